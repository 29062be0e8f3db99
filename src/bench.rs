//! The machine as measured.
