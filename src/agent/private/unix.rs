//! Files of mode 0600 and locks by `flock`.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Error, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Who may use a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Access {
    /// Its owner alone.
    OwnerOnly,
    /// Others too, by these permission bits.
    Shared {
        /// Lowest nine bits of its mode.
        mode: u32,
    },
}

/// Makes the folder, readable by its owner alone, with the folders above it.
pub(in crate::agent) fn create_folder(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a file of mode 0600 that is there whole or not at all, even after a power cut.
pub(in crate::agent) fn create_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes an empty file of mode 0600, or takes everybody but the owner the rights to the one that is there.
pub(in crate::agent) fn close_to_others(path: &Path) -> Result<(), Error> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    // By name: opening and closing it would give back the locks that a database holds on it in this process.
    let mode = std::fs::metadata(path)?.mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { std::fs::set_permissions(path, Permissions::from_mode(mode & 0o700)) }
}

/// Who may use the file.
pub(in crate::agent) fn access(path: &Path) -> Result<Access, Error> {
    let mode = std::fs::metadata(path)?.mode() & 0o777;
    Ok(if mode & 0o077 == 0 { Access::OwnerOnly } else { Access::Shared { mode } })
}

/// A lock that ends with the process, however it ends.
#[derive(Debug)]
pub(in crate::agent) struct FileLock {
    /// Kept open: closing it gives the lock back.
    _file: File,
}

impl FileLock {
    /// Takes the lock and leaves our process id in the file; `Err(Ok(pid))` when another process holds it.
    pub(in crate::agent) fn take(path: &Path) -> Result<Self, Result<u32, Error>> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(Err)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(Err)?;
                return Err(Ok(text.trim().parse().unwrap_or(0)));
            }
            Err(errno) => return Err(Err(errno.into())),
        }
        sign(&mut file).map_err(Err)?;
        Ok(Self { _file: file })
    }
}

fn sign(file: &mut File) -> Result<(), Error> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
