//! What a container has on disk, in its folders and outside of them, and what is free there.

mod held;

use std::path::{Path, PathBuf};

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, InspectContainerOptionsBuilder, StatsOptionsBuilder,
};
use futures_util::StreamExt as _;

use super::super::{ContainerId, DiskUse, FreeSpace, RuntimeError};
use super::containers::status_of;
use super::{CALL_DEADLINE, DockerRuntime, PIECE_DEADLINE, START_DEADLINE, errors};
use crate::os;

/// How the engine begins each entry of its list of changed files.
const ENTRY: &[u8] = b"\"Path\":";
/// What an engine itself writes into each of the files that it keeps outside of the layer is less.
const OWN_BYTES: u64 = 4096;

impl DockerRuntime {
    pub(super) async fn disk_use(&self, id: &ContainerId) -> Result<DiskUse, RuntimeError> {
        let options = InspectContainerOptionsBuilder::new().size(true).build();
        let look = self.docker.inspect_container(&id.0, Some(options));
        let found = self.call("measure a container", START_DEADLINE, look).await?;
        let status = status_of(&found).ok_or(RuntimeError::NoSuchContainer)?;
        let layer = found.size_rw.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        let held = self.held(id, &found).await;
        let bytes = layer.saturating_add(self.outside_bytes(id, &found).await).saturating_add(held.bytes);
        let written_max = if held.complete { None } else { self.written_bytes(id).await };
        Ok(DiskUse { bytes, written_max, status })
    }

    /// Deleted files that its processes still hold.
    async fn held(&self, id: &ContainerId, found: &ContainerInspectResponse) -> held::Held {
        let init = found.state.as_ref().and_then(|state| state.pid).filter(|pid| *pid > 0 && self.is_on_this_machine());
        let Some(init) = init else { return held::Held::default() };
        let id = id.0.clone();
        let look = tokio::task::spawn_blocking(move || held::look(Path::new(held::PROC), &id, init));
        look.await.unwrap_or_default()
    }

    /// Files that engines keep outside of the layer and mount into it; root of a container may write to them.
    async fn outside_bytes(&self, id: &ContainerId, found: &ContainerInspectResponse) -> u64 {
        let files = [
            (&found.hosts_path, "/etc/hosts"),
            (&found.resolv_conf_path, "/etc/resolv.conf"),
            (&found.hostname_path, "/etc/hostname"),
        ];
        let mut sum: u64 = 0;
        for (path, inside) in files {
            let path = path.as_ref().filter(|path| !path.is_empty() && self.is_on_this_machine());
            let bytes = match path.and_then(|path| os::file_bytes(Path::new(path)).ok()) {
                Some(bytes) => bytes,
                // Somebody else's to look at: then its size, which holes make larger than what it takes.
                None if may_be_root(found) => self.size_inside(id, inside).await,
                None => 0,
            };
            sum = sum.saturating_add(bytes.saturating_sub(OWN_BYTES));
        }
        sum
    }

    async fn size_inside(&self, id: &ContainerId, path: &str) -> u64 {
        let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        let look = self.docker.get_container_archive_info(&id.0, Some(options));
        // Where the engine does not say, the next look may.
        let found = self.call("measure a file", CALL_DEADLINE, look).await.ok();
        found.and_then(|found| u64::try_from(found.size).ok()).unwrap_or(0)
    }

    /// All that it ever wrote to disks, where the kernel counts that.
    async fn written_bytes(&self, id: &ContainerId) -> Option<u64> {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let mut stats = self.docker.stats(&id.0, Some(options)).boxed();
        let found = tokio::time::timeout(CALL_DEADLINE, stats.next()).await.ok()??.ok()?;
        let entries = found.blkio_stats?.io_service_bytes_recursive?;
        let writes =
            entries.iter().filter(|entry| entry.op.as_deref().is_some_and(|op| op.eq_ignore_ascii_case("write")));
        (!entries.is_empty()).then(|| writes.filter_map(|entry| entry.value).sum())
    }

    fn is_on_this_machine(&self) -> bool {
        !self.facts().desktop && self.address.starts_with("unix://")
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
        if !self.is_on_this_machine() {
            return None;
        }
        let folder = PathBuf::from(self.facts().data_dir.as_ref()?);
        let free = tokio::task::spawn_blocking(move || os::disk_free(&folder));
        let (bytes_free, files_free, files_total) =
            tokio::time::timeout(PIECE_DEADLINE, free).await.ok()?.ok()?.ok()?;
        Some(FreeSpace { bytes_free, files_free, files_total })
    }
}

/// Whether its user is root or one that cannot be told from it.
fn may_be_root(found: &ContainerInspectResponse) -> bool {
    let user = found.config.as_ref().and_then(|config| config.user.as_deref()).unwrap_or_default();
    user.split(':').next().and_then(|user| user.parse::<u32>().ok()).is_none_or(|uid| uid == 0)
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
