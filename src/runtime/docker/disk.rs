//! What a container has on disk, and what is free there.

use std::path::PathBuf;

use bollard::query_parameters::InspectContainerOptionsBuilder;
use futures_util::StreamExt as _;

use super::super::{ContainerId, DiskUse, FreeSpace, RuntimeError};
use super::containers::status_of;
use super::{DockerRuntime, PIECE_DEADLINE, START_DEADLINE, errors};
use crate::os;

/// How the engine begins each entry of its list of changed files.
const ENTRY: &[u8] = b"\"Path\":";

impl DockerRuntime {
    pub(super) async fn disk_use(&self, id: &ContainerId) -> Result<DiskUse, RuntimeError> {
        let options = InspectContainerOptionsBuilder::new().size(true).build();
        let look = self.docker.inspect_container(&id.0, Some(options));
        let found = self.call("measure a container", START_DEADLINE, look).await?;
        let status = found.state.as_ref().and_then(status_of).ok_or(RuntimeError::NoSuchContainer)?;
        let bytes = found.size_rw.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        Ok(DiskUse { bytes, status })
    }

    /// Reads the list piece by piece and keeps nothing of it: a job may have made millions of files.
    pub(super) async fn count_files(&self, id: &ContainerId, files_max: u64) -> Result<u64, RuntimeError> {
        const WHAT: &str = "count a container's files";
        // bollard reads this list only whole. Its call for exports reads anything in pieces; the question mark ends the path here.
        let mut pieces = self.docker.export_container(&format!("{}/changes?", id.0)).boxed();
        let mut counter = Counter::default();
        loop {
            let next = tokio::time::timeout(PIECE_DEADLINE, pieces.next()).await;
            match next.map_err(|_| RuntimeError::TimedOut { what: WHAT, seconds: PIECE_DEADLINE.as_secs() })? {
                None => return Ok(counter.found),
                Some(Ok(piece)) => counter.read(&piece),
                Some(Err(error)) => return Err(errors::classify(&self.address, WHAT, error)),
            }
            if counter.found >= files_max {
                return Ok(files_max);
            }
        }
    }

    pub(super) async fn space_left(&self) -> Option<FreeSpace> {
        let facts = self.facts();
        if facts.desktop || !self.address.starts_with("unix://") {
            return None;
        }
        let folder = PathBuf::from(facts.data_dir.as_ref()?);
        let free = tokio::task::spawn_blocking(move || os::disk_free(&folder));
        let (bytes_free, files_free, files_total) =
            tokio::time::timeout(PIECE_DEADLINE, free).await.ok()?.ok()?.ok()?;
        Some(FreeSpace { bytes_free, files_free, files_total })
    }
}

/// Counts entries in text that comes in pieces.
#[derive(Default)]
struct Counter {
    found: u64,
    /// How much of [`ENTRY`] the text ends with.
    matched: usize,
}

impl Counter {
    fn read(&mut self, piece: &[u8]) {
        for &byte in piece {
            // The first byte of the entry is in it twice only as its last quote; starting over there is enough.
            if ENTRY.get(self.matched) == Some(&byte) {
                self.matched += 1;
            } else {
                self.matched = usize::from(ENTRY.first() == Some(&byte));
            }
            if self.matched == ENTRY.len() {
                self.found += 1;
                self.matched = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_whatever_pieces_the_list_comes_in() {
        let list = br#"[{"Path":"/work","Kind":0},{"Path":"/work/\"Path\":","Kind":1},{"Path":"/\"\"","Kind":1}]"#;
        for size in 1..=list.len() {
            let mut counter = Counter::default();
            list.chunks(size).for_each(|piece| counter.read(piece));
            assert_eq!(counter.found, 3, "in pieces of {size}");
        }
    }
}
