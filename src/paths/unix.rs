//! The system's folders on Linux and macOS.

use std::path::PathBuf;

/// Whether this process is root.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Configuration and state folder of the system.
pub(super) fn folders() -> Option<(PathBuf, PathBuf)> {
    Some((PathBuf::from("/etc/fizz"), PathBuf::from("/var/lib/fizz")))
}
