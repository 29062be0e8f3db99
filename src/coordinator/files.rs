//! Small files with secrets in them: written whole or not at all, readable by their owner only.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

#[cfg(unix)]
use unix::{create_private, make_folder, make_private, permission_bits, set_permission_bits};
#[cfg(windows)]
use windows::{create_private, make_folder, make_private, permission_bits, set_permission_bits};

/// Why a file could not be read or written.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("{} cannot be written; check that its folder exists, may be written and has room", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read a secret.
    #[error("{path} may be read by others (mode {mode:04o}); type `chmod 600 {path}`", path = path.display())]
    Loose {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What it holds is not what it should hold.
    #[error("{path} is damaged; restore it from a backup, or move it aside and start again", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// Another coordinator works in this folder.
    #[error(
        "another coordinator{} uses the folder {}; stop it, or choose another folder with --data-dir",
        pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default(), path.display()
    )]
    InUse {
        /// Which folder.
        path: PathBuf,
        /// Its process, as it wrote it down.
        pid: Option<String>,
    },
}

/// Keeps a folder for one coordinator, until dropped or until the process ends however it ends. Two coordinators on one
/// database would each take the other's nodes for silent.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

/// Takes the folder, or says who has it.
pub(crate) fn lock_folder(folder: &Path) -> Result<FolderLock, FileError> {
    let path = folder.join("coordinator.lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|source| FileError::Write { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).ok().map(|text| text.trim().to_owned());
            let pid = pid.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
            return Err(FileError::InUse { path: folder.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(FileError::Write { path, source }),
    }
    let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    noted.map_err(|source| FileError::Write { path, source })?;
    Ok(FolderLock { _file: file })
}

/// A secret file's text; `None` when there is no such file.
pub(crate) fn read_secret(path: &Path) -> Result<Option<String>, FileError> {
    let read = |source| FileError::Read { path: path.to_owned(), source };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let mode = permission_bits(&metadata);
    if mode & 0o077 != 0 {
        return Err(FileError::Loose { path: path.to_owned(), mode });
    }
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(FileError::Damaged { path: path.to_owned() }),
        Err(error) => Err(read(error)),
    }
}

/// Writes a file that only its owner may read (mode 0600).
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), FileError> {
    write_whole(path, text, 0o600).map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Writes a file that everybody may read.
pub(crate) fn write_public(path: &Path, text: &str) -> Result<(), FileError> {
    write_whole(path, text, 0o644).map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Makes a folder that only its owner may enter, with its parents, where there is none.
pub(crate) fn make_private_folder(path: &Path) -> Result<(), FileError> {
    make_folder(path).map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Makes an empty file that only its owner may read and write, where there is none.
pub(crate) fn make_private_file(path: &Path) -> io::Result<()> {
    match create_private(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(|_file| ()),
    }
}

/// Takes a file, if there is one, away from everybody but its owner. Does not open it: to close a database's file would give
/// up this process's locks on it.
pub(crate) fn tighten(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && permission_bits(&metadata) & 0o077 != 0 => make_private(path),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn write_whole(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Made with mode 0600; only widened when its content may be seen.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    set_permission_bits(file.as_file(), mode)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
