//! Windows: files of a user's own profile are private to that user already.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::Path;

/// As if only the owner may read it.
pub(super) fn permission_bits(_metadata: &Metadata) -> u32 {
    0o600
}

/// Nothing to do.
pub(super) fn set_permission_bits(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// Makes a file where there is nothing.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Nothing to do.
pub(super) fn make_private(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Makes a folder and its parents.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}
