//! The agent beside a real coordinator and an engine in memory: what an owner and a renter would see.
#![cfg(feature = "coordinator")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod crash;
mod failing;
mod folder;
mod jobs;
mod joining;
mod networks;
mod proofs;
mod servers;
mod silence;
mod world;
