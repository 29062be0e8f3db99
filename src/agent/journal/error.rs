//! What can be wrong with the journal, in words that say what to do.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::wire::LeaseId;

/// Why the journal could not be opened, read or written.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Another process holds the file.
    #[error("the state database {path} is in use by another process; find it with `fuser {path}`", path = path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The content makes no sense.
    #[error(
        "the state database {path} is damaged ({detail}); move it aside and start again: `mv {path} {path}.damaged`",
        path = path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Written by a later version.
    #[error(
        "the state database {path} was made by a newer fizz (its version is {found}, this one knows {known}); update fizz",
        path = path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: i64,
        /// Highest version known here.
        known: i64,
    },
    /// The disk is full.
    #[error("no disk space is left for the state database {path}; free some on that disk", path = path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
    },
    /// It may not be read or written.
    #[error(
        "the state database {path} cannot be opened ({detail}); check that its folder exists and is yours: `ls -ld {path}`",
        path = path.display()
    )]
    NotAccessible {
        /// The file.
        path: PathBuf,
        /// The database's words.
        detail: String,
    },
    /// The lease was never put, or is forgotten.
    #[error("the journal does not know lease {lease_id}")]
    UnknownLease {
        /// Which.
        lease_id: LeaseId,
    },
    /// Anything else.
    #[error("the state database {path} failed", path = path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// The database's words.
        #[source]
        source: sqlx::Error,
    },
}

impl JournalError {
    /// Whether the same call may succeed later without anybody repairing the file.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Locked { .. } | Self::NoSpace { .. } => true,
            Self::Corrupt { .. }
            | Self::Newer { .. }
            | Self::NotAccessible { .. }
            | Self::UnknownLease { .. }
            | Self::Failed { .. } => false,
        }
    }

    /// SQLite's primary result codes, see <https://www.sqlite.org/rescode.html>.
    pub(super) fn from_sqlx(path: &Path, error: sqlx::Error) -> Self {
        let path = path.to_owned();
        let Some(database) = error.as_database_error() else { return Self::Failed { path, source: error } };
        let detail = database.message().to_owned();
        let code = database.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(0) & 0xff;
        match code {
            5 | 6 => Self::Locked { path },
            11 | 26 => Self::Corrupt { path, detail },
            13 => Self::NoSpace { path },
            3 | 8 | 14 | 23 => Self::NotAccessible { path, detail },
            _ => Self::Failed { path, source: error },
        }
    }

    pub(super) fn unreadable(path: &Path, error: &serde_json::Error) -> Self {
        Self::Corrupt { path: path.to_owned(), detail: error.to_string() }
    }
}
