//! Jobs as renters and nodes meet them: over TLS, on a real port, with scripted nodes.

mod flow;
mod losses;
mod requests;
mod world;
