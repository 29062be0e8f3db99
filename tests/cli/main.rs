//! The program as people type it: the real binary, its output, its exit codes.
#![cfg(feature = "coordinator")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

mod alone;
mod live;
mod reach;
mod world;
