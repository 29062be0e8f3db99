//! Gives back the memory that only the start needed.
//!
//! A program's own code counts as its memory once it has run. Enrolling, measuring and opening the journal run most of it; an
//! idle agent needs a fraction, and what it needs comes back from the file by itself.

#[cfg_attr(target_os = "linux", path = "footprint/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "footprint/os.rs")]
mod system;

pub(super) use system::release;
