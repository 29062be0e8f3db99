//! Fizz: a node agent, a coordinator and a client for a decentralized compute network, in one binary.

pub mod agent;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
#[cfg(feature = "coordinator")]
pub mod coordinator;
pub mod hardware;
pub mod http;
pub mod job;
pub(crate) mod os;
pub mod paths;
pub mod proof;
pub mod rent;
pub mod runtime;
pub mod telemetry;
pub mod wire;
