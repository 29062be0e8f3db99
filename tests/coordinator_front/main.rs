//! The coordinator as its callers meet it: over TLS, on a real port, with keys of their own.

mod accounts;
mod devices;
mod harness;
mod joining;
mod limits;
mod openapi;
mod server;
mod sessions;
