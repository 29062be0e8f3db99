//! Files that belong to one user alone, and the lock that one process holds.

#[cfg_attr(unix, path = "private/unix.rs")]
#[cfg_attr(not(unix), path = "private/windows.rs")]
mod system;

pub(super) use system::{Access, FileLock, access, close_to_others, create_file, create_folder};
