//! Files on Windows: the user's own folders are closed to others by their access lists; locks by exclusive opening.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Write as _};
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::Path;

const SHARING_VIOLATION: i32 = 32;

/// Who may use a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Access {
    /// Its owner alone.
    OwnerOnly,
    /// Others too; never seen here.
    #[expect(dead_code, reason = "the same type as on the other systems")]
    Shared {
        /// Permission bits.
        mode: u32,
    },
}

/// Makes the folder with the folders above it.
pub(in crate::agent) fn create_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path)
}

/// Makes a file that is there whole or not at all.
pub(in crate::agent) fn create_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temporary, path)
}

/// The user's own folders are closed to others already.
pub(in crate::agent) fn close_to_others(_path: &Path) -> Result<(), Error> {
    Ok(())
}

/// Who may use the file.
pub(in crate::agent) fn access(path: &Path) -> Result<Access, Error> {
    std::fs::metadata(path).map(|_| Access::OwnerOnly)
}

/// A lock that ends with the process, however it ends.
#[derive(Debug)]
pub(in crate::agent) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock; `Err(Ok(0))` when another process holds it (its id cannot be read here).
    pub(in crate::agent) fn take(path: &Path) -> Result<Self, Result<u32, Error>> {
        match OpenOptions::new().write(true).create(true).truncate(true).share_mode(0).open(path) {
            Ok(mut file) => {
                writeln!(file, "{}", std::process::id()).map_err(Err)?;
                Ok(Self { _file: file })
            }
            Err(error) if error.raw_os_error() == Some(SHARING_VIOLATION) => Err(Ok(0)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Err(error)),
            Err(error) => Err(Err(error)),
        }
    }
}
