//! The system's folders on Windows: every account uses its own.

use std::path::PathBuf;

/// Windows has no root.
pub(super) fn is_root() -> bool {
    false
}

/// None: the user's folders are used.
pub(super) fn folders() -> Option<(PathBuf, PathBuf)> {
    None
}
