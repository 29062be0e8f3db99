//! That jobs reach the internet and nothing of their owner's home, shown with real containers in a home that is built for it.
//!
//! Every test runs in a network namespace of its own ([`home::alone`]), with a Docker engine of its own, a router, a
//! neighbour, and an internet of one server ([`scene::Scene`]). Nothing of the machine around it is touched, and all of it goes with the test.
//! Each "blocked" has its control: the same attempt from a network without the rules succeeds.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

#[path = "../docker_support/mod.rs"]
mod docker_support;
mod domains;
mod home;
mod reach;
mod scene;
mod tricks;
mod upkeep;
