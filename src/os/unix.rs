//! Linux and macOS.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal};
use tokio::process::Command;
use tokio::signal::unix;

/// Where Docker's engine usually listens.
pub(crate) const ENGINE_ADDRESS: &str = "unix:///var/run/docker.sock";

/// Free bytes for ordinary users on the file system that holds `path`, which must exist.
pub(crate) fn disk_bytes_free(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Free bytes, free files and all files that can be on the file system that holds `path`; files are 0 where it has no such limit.
pub(crate) fn disk_free(path: &Path) -> io::Result<(u64, u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_favail, stat.f_files))
}

/// Whether this kernel gives groups of processes a share of the disk's time (cgroup v2).
pub(crate) fn disk_weight_exists() -> bool {
    let groups = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    groups
        .map(|group| group.path())
        .any(|group| group.join("io.weight").exists() || group.join("io.bfq.weight").exists())
}

/// Whether root of this process is not root of the machine. Where that cannot be read there are no such namespaces.
pub(crate) fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let everybody = |line: &str| line.split_whitespace().eq(["0", "0", "4294967295"]);
    !map.is_empty() && !map.lines().any(everybody)
}

/// Size of the file system that holds `path`, which must exist.
pub(crate) fn disk_bytes_total(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// Bytes that a file takes on its disk.
pub(crate) fn file_bytes(path: &Path) -> io::Result<u64> {
    std::fs::metadata(path).map(|file| std::os::unix::fs::MetadataExt::blocks(&file).saturating_mul(512))
}

/// A file that is in no folder any more.
#[derive(Debug)]
pub(crate) struct DeletedFile {
    /// Device and number, which no other file has.
    pub(crate) id: (u64, u64),
    /// What it takes on its disk.
    pub(crate) bytes: u64,
}

/// What `path`, one of the kernel's links to what a process has open, leads to, if that is a deleted file.
pub(crate) fn deleted_file(path: &Path) -> io::Result<Option<DeletedFile>> {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(path)?;
    let is_deleted = file.is_file() && file.nlink() == 0;
    Ok(is_deleted.then(|| DeletedFile { id: (file.dev(), file.ino()), bytes: file.blocks().saturating_mul(512) }))
}

/// Whether two files lie on one file system.
pub(crate) fn same_file_system(a: &Path, b: &Path) -> io::Result<bool> {
    let key = |path| rustix::fs::statvfs(path).map(|stat| (stat.f_fsid, stat.f_blocks, stat.f_frsize));
    Ok(key(a)? == key(b)?)
}

/// Makes reads and writes of a file go to the disk itself. They must then start, in memory and in the file, at multiples of 4 KiB.
#[cfg(target_os = "linux")]
pub(crate) fn past_the_cache(file: &std::fs::File) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(rustix::fs::fcntl_setfl(file, flags | rustix::fs::OFlags::DIRECT)?)
}

/// Not known how.
#[cfg(not(target_os = "linux"))]
pub(crate) fn past_the_cache(_file: &std::fs::File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The beginning of a file as text; `None` when it cannot be read or is no text.
pub(crate) fn read_start(path: &Path, bytes_max: u64) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(bytes_max).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The group a file belongs to.
pub(crate) fn group_of(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|file| std::os::unix::fs::MetadataExt::gid(&file))
}

/// Makes the child the head of a process group of its own, so that all of it can be ended at once.
pub(crate) fn own_process_group(command: &mut Command) {
    command.process_group(0);
}

/// Ends every process of the group at once; nothing happens when nobody of it is left.
pub(crate) fn kill_process_group(id: u32) {
    if let Some(group) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// The signal that ended a process, if one did.
pub(crate) fn exit_signal(status: ExitStatus) -> Option<i32> {
    status.signal()
}

/// The signals that ask a program to end: SIGTERM and SIGINT (Ctrl-C). From its making on they no longer end the process.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl StopSignals {
    /// Begins to catch them.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(unix::SignalKind::terminate())?,
            interrupt: unix::signal(unix::SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A terminal whose keys all go to the program as they are. Dropping it restores what was before.
#[derive(Debug)]
pub(crate) struct RawTerminal(libc::termios);

impl RawTerminal {
    /// Makes the terminal on standard input raw.
    pub(crate) fn enter() -> io::Result<Self> {
        let mut before = std::mem::MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the descriptor is a number, and the call writes a whole `termios` where it succeeds.
        if unsafe { libc::tcgetattr(libc::STDIN_FILENO, before.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above succeeded.
        let before = unsafe { before.assume_init() };
        let mut raw = before;
        // SAFETY: `raw` is a whole `termios` of our own.
        unsafe { libc::cfmakeraw(&raw mut raw) };
        // SAFETY: as above.
        if unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const raw) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // SAFETY: `self.0` is a whole `termios`, read from this terminal.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const self.0) };
    }
}

/// Tells of changes of the terminal's size.
#[derive(Debug)]
pub(crate) struct Resizes(unix::Signal);

impl Resizes {
    /// Begins to listen.
    pub(crate) fn catch() -> io::Result<Self> {
        unix::signal(unix::SignalKind::window_change()).map(Self)
    }

    /// Waits for the next change.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// Readable by all, writable by its owner, and executable or not.
pub(crate) fn set_executable(file: &File, executable: bool) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(if executable { 0o755 } else { 0o644 }))
}

/// Makes a symbolic link `at` that leads to `to`.
pub(crate) fn symlink(to: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}

/// A render node of a card that is there, but not for this user. Only Linux has such nodes.
#[cfg(feature = "gpu")]
pub(crate) fn unreachable_render_node() -> Option<String> {
    let nodes = std::fs::read_dir("/dev/dri").ok()?.filter_map(Result::ok);
    let mut render = nodes.map(|node| node.path()).filter(|path| path.to_string_lossy().contains("/renderD"));
    let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    render.find(|path| rustix::fs::access(path, access).is_err()).map(|path| path.display().to_string())
}

/// Returns on Ctrl-C or a polite request to end (SIGTERM).
#[cfg(feature = "coordinator")]
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    if let Ok(mut terminate) = signal(SignalKind::terminate()) {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = tokio::signal::ctrl_c() => return,
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
