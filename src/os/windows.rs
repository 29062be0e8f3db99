//! Windows.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::ExitStatus;

use tokio::process::Command;
use tokio::signal::windows;

/// What asks a program to end: Ctrl-C. From its making on it no longer ends the process.
#[derive(Debug)]
pub(crate) struct StopSignals(windows::CtrlC);

impl StopSignals {
    /// Begins to catch it.
    pub(crate) fn catch() -> io::Result<Self> {
        windows::ctrl_c().map(Self)
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// Free bytes for this user on the volume that holds `path`.
pub(crate) fn disk_bytes_free(path: &Path) -> io::Result<u64> {
    let disks = sysinfo::Disks::new_with_refreshed_list().map_err(io::Error::other)?;
    let volume = disks
        .iter()
        .filter(|disk| path.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().as_os_str().len());
    volume
        .map(sysinfo::Disk::available_space)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no volume holds this folder"))
}

/// Free bytes; Windows has no limit on files.
pub(crate) fn disk_free(path: &Path) -> io::Result<(u64, u64, u64)> {
    disk_bytes_free(path).map(|bytes| (bytes, 0, 0))
}

/// See the file for Linux.
pub(crate) fn disk_weight_exists() -> bool {
    false
}

/// Windows has no process groups of this kind; the child itself is killed when it is dropped.
pub(crate) fn own_process_group(_command: &mut Command) {}

/// See [`own_process_group`].
pub(crate) fn kill_process_group(_id: u32) {}

/// Windows ends processes with codes only.
pub(crate) fn exit_signal(_status: ExitStatus) -> Option<i32> {
    None
}

/// Whether a file can be executed is in its name on Windows.
pub(crate) fn set_executable(_file: &File, _executable: bool) -> io::Result<()> {
    Ok(())
}

/// Links need a privilege that users do not have on Windows; the link is left out.
pub(crate) fn symlink(_to: &Path, _at: &Path) -> io::Result<()> {
    Ok(())
}

/// Windows has no render nodes.
#[cfg(feature = "gpu")]
pub(crate) fn unreachable_render_node() -> Option<String> {
    None
}

/// Returns on Ctrl-C.
#[cfg(feature = "coordinator")]
pub(crate) async fn interrupted() {
    let _ = tokio::signal::ctrl_c().await;
}
