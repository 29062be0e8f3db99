//! The coordinator as its callers meet it: over TLS, on a real port, with keys of their own.
#![cfg(feature = "coordinator")]
#![allow(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test")]

mod accounts;
mod devices;
mod harness;
mod joining;
mod limits;
mod openapi;
mod server;
mod sessions;
