//! The agent beside a real coordinator and an engine in memory: what an owner and a renter would see.

mod failing;
mod folder;
mod joining;
mod servers;
mod world;
