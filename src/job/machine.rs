//! The life of one lease as a pure machine: events in, actions out.

mod saved;

pub use saved::{Cause, LogPosition, Saved, Stage, StreamPosition};
