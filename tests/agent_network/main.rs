//! The agent beside a real coordinator and an engine in memory: what an owner and a renter would see.

mod crash;
mod failing;
mod folder;
mod jobs;
mod joining;
mod servers;
mod world;
