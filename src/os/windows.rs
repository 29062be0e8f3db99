//! Windows.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::ExitStatus;

use tokio::process::Command;
use tokio::signal::windows;

/// Where Docker's engine usually listens.
pub(crate) const ENGINE_ADDRESS: &str = "npipe:////./pipe/docker_engine";

/// Windows has no such namespaces.
pub(crate) const fn in_user_namespace() -> bool {
    false
}

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

/// A console whose keys all go to the program as they are. Dropping it restores what was before.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    input: u32,
    output: u32,
}

const STD_INPUT_HANDLE: u32 = 0xffff_fff6;
const STD_OUTPUT_HANDLE: u32 = 0xffff_fff5;
/// Ctrl-C as a signal, whole lines, echo.
const COOKED_INPUT: u32 = 0x1 | 0x2 | 0x4;
/// Keys as terminals send them.
const TERMINAL_INPUT: u32 = 0x200;
/// Sequences as terminals take them, and no line end of its own making.
const TERMINAL_OUTPUT: u32 = 0x4 | 0x8;

#[link(name = "kernel32")]
unsafe extern "system" {
    fn GetStdHandle(which: u32) -> *mut std::ffi::c_void;
    fn GetConsoleMode(console: *mut std::ffi::c_void, mode: *mut u32) -> i32;
    fn SetConsoleMode(console: *mut std::ffi::c_void, mode: u32) -> i32;
}

fn console_mode(which: u32) -> io::Result<u32> {
    let mut mode = 0;
    // SAFETY: the handle is the process's own, and the call writes one number.
    if unsafe { GetConsoleMode(GetStdHandle(which), &raw mut mode) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(mode)
}

fn set_console_mode(which: u32, mode: u32) -> io::Result<()> {
    // SAFETY: the handle is the process's own.
    if unsafe { SetConsoleMode(GetStdHandle(which), mode) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl RawTerminal {
    /// Makes the console raw.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = Self { input: console_mode(STD_INPUT_HANDLE)?, output: console_mode(STD_OUTPUT_HANDLE)? };
        set_console_mode(STD_INPUT_HANDLE, (before.input & !COOKED_INPUT) | TERMINAL_INPUT)?;
        set_console_mode(STD_OUTPUT_HANDLE, before.output | TERMINAL_OUTPUT)?;
        Ok(before)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A console that is gone needs no restoring.
        let _ = set_console_mode(STD_INPUT_HANDLE, self.input);
        let _ = set_console_mode(STD_OUTPUT_HANDLE, self.output);
    }
}

/// Looks for changes of the console's size; Windows tells of none.
#[derive(Debug)]
pub(crate) struct Resizes;

impl Resizes {
    /// Begins to look.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits until it is time to look.
    pub(crate) async fn next(&mut self) {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

/// Free bytes for this user on the volume that holds `path`.
pub(crate) fn disk_bytes_free(path: &Path) -> io::Result<u64> {
    on_volume(path, sysinfo::Disk::available_space)
}

/// Size of the volume that holds `path`, which must exist.
pub(crate) fn disk_bytes_total(path: &Path) -> io::Result<u64> {
    on_volume(path, sysinfo::Disk::total_space)
}

fn on_volume(path: &Path, ask: fn(&sysinfo::Disk) -> u64) -> io::Result<u64> {
    let disks = sysinfo::Disks::new_with_refreshed_list().map_err(io::Error::other)?;
    let volume = disks
        .iter()
        .filter(|disk| path.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().as_os_str().len());
    volume.map(ask).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no volume holds this folder"))
}

/// Free bytes; Windows has no limit on files.
pub(crate) fn disk_free(path: &Path) -> io::Result<(u64, u64, u64)> {
    disk_bytes_free(path).map(|bytes| (bytes, 0, 0))
}

/// Bytes that a file takes on its disk, about.
pub(crate) fn file_bytes(path: &Path) -> io::Result<u64> {
    std::fs::metadata(path).map(|file| file.len())
}

/// See the file for Unix.
#[derive(Debug)]
pub(crate) struct DeletedFile {
    /// Device and number, which no other file has.
    pub(crate) id: (u64, u64),
    /// What it takes on its disk.
    pub(crate) bytes: u64,
}

/// Engines on Windows run in a virtual machine, whose files are nobody's here to look at.
pub(crate) fn deleted_file(_path: &Path) -> io::Result<Option<DeletedFile>> {
    Ok(None)
}

/// See [`deleted_file`].
pub(crate) fn same_file_system(_a: &Path, _b: &Path) -> io::Result<bool> {
    Ok(false)
}

/// See the file for Linux.
pub(crate) fn disk_weight_exists() -> bool {
    false
}

/// Not known how, once a file is open.
pub(crate) fn past_the_cache(_file: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The beginning of a file as text; `None` when it cannot be read or is no text.
pub(crate) fn read_start(path: &Path, bytes_max: u64) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(bytes_max).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Files here have no group that a container could be in.
pub(crate) fn group_of(_path: &Path) -> Option<u32> {
    None
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
