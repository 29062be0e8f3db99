//! Jobs as renters and nodes meet them: over TLS, on a real port, with scripted nodes.
#![cfg(feature = "coordinator")]
#![allow(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test")]

mod flow;
mod killed;
mod losses;
mod reach;
mod requests;
mod world;
