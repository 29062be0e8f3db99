//! The machine as found.
