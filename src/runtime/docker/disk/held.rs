//! What a container has on disk that is in none of its folders: files that were deleted and are still open or mapped. The kernel's
//! own lists of its processes tell, to the machine's root and to the user that a rootless engine runs as.
//!
//! Invariants
//! - A file counts once, however many processes and threads hold it, and only if it lies where the container's own files lie:
//!   what is in memory is limited as memory.
//! - A look reads a bounded number of entries; what it could not see makes it incomplete, never smaller in silence.
//!
//! Not seen: files that are on their way between two of its processes over a socket.

use std::collections::HashSet;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use crate::os;

/// Where the kernel lists processes.
pub(super) const PROC: &str = "/proc";
/// So many entries are read at most; about a second's work.
const ENTRIES_MAX: usize = 250_000;
/// A process's own line of groups is short.
const GROUPS_BYTES_MAX: u64 = 16 << 10;

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Bytes on disk of deleted files.
    pub(super) bytes: u64,
    /// Whether all could be looked at.
    pub(super) complete: bool,
}

/// Looks at every process in the container's control group; `init` is its first one. Blocks.
pub(super) fn look(proc: &Path, container: &str, init: i64) -> Held {
    let processes = match std::fs::read_dir(proc) {
        Ok(entries) => {
            entries.flatten().map(|entry| entry.path()).filter(|process| is_in(process, container)).collect()
        }
        Err(_) => Vec::new(),
    };
    let root = proc.join(init.to_string()).join("root");
    held_by(&processes, &root)
}

/// A container cannot leave its control group, and its name there is the engine's.
fn is_in(process: &Path, container: &str) -> bool {
    let is_process = process.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok());
    let groups = || os::read_start(&process.join("cgroup"), GROUPS_BYTES_MAX);
    is_process && groups().is_some_and(|groups| groups.contains(container))
}

fn held_by(processes: &[PathBuf], root: &Path) -> Held {
    let mut look = Look { root, seen: HashSet::new(), left: ENTRIES_MAX, held: Held { bytes: 0, complete: true } };
    for process in processes {
        look.folder(&process.join("map_files"));
        // A thread can have files of its own.
        for thread in look.entries(&process.join("task")) {
            look.folder(&thread.join("fd"));
        }
    }
    look.held.complete &= !processes.is_empty();
    look.held
}

struct Look<'a> {
    root: &'a Path,
    seen: HashSet<(u64, u64)>,
    left: usize,
    held: Held,
}

impl Look<'_> {
    fn folder(&mut self, folder: &Path) {
        for entry in self.entries(folder) {
            match os::deleted_file(&entry) {
                Ok(Some(file)) if self.seen.insert(file.id) => match os::same_file_system(&entry, self.root) {
                    Ok(true) => self.held.bytes = self.held.bytes.saturating_add(file.bytes),
                    Ok(false) => {}
                    Err(error) => self.missed(&error),
                },
                Ok(_) => {}
                Err(error) => self.missed(&error),
            }
        }
    }

    fn entries(&mut self, folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        match std::fs::read_dir(folder) {
            Ok(entries) => found.extend(entries.flatten().take(self.left).map(|entry| entry.path())),
            Err(error) => self.missed(&error),
        }
        self.left -= found.len();
        self.held.complete &= self.left > 0;
        found
    }

    /// Only what is there and cannot be looked at is missed.
    fn missed(&mut self, error: &Error) {
        let gone = error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(NO_SUCH_PROCESS);
        self.held.complete &= gone;
    }
}

/// `ESRCH`.
const NO_SUCH_PROCESS: i32 = 3;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn this_process() -> Vec<PathBuf> {
        vec![PathBuf::from(PROC).join(std::process::id().to_string())]
    }

    #[test]
    fn a_deleted_file_that_is_open_counts_once_where_it_lies_on_the_disk_and_not_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let before = held_by(&this_process(), folder.path()).bytes;
        let hold = |bytes: usize, at: &Path| {
            let mut file = tempfile::tempfile_in(at).unwrap();
            file.write_all(&vec![1; bytes]).unwrap();
            file
        };
        let kept = [hold(3 << 20, folder.path()), hold(2 << 20, Path::new("/dev/shm"))];
        let again = kept[0].try_clone().unwrap();
        let now = held_by(&this_process(), folder.path()).bytes - before;
        // Other tests of this process hold files meanwhile, far smaller ones.
        assert!((3 << 20..4 << 20).contains(&now), "{now}");
        drop((kept, again));
    }

    #[test]
    fn what_cannot_be_looked_at_is_said() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!held_by(&[], folder.path()).complete, "a container that runs has processes");
        assert!(held_by(&[PathBuf::from("/proc/4194305")], folder.path()).complete, "it has just ended");
        assert!(!look(Path::new("/nowhere"), "abc", 1).complete);
    }
}
