//! The small things each operating system does in its own way. Both files export the same functions.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{
    StopSignals, disk_bytes_free, exit_signal, kill_process_group, own_process_group, set_executable, symlink,
};
#[cfg(windows)]
pub(crate) use windows::{
    StopSignals, disk_bytes_free, exit_signal, kill_process_group, own_process_group, set_executable, symlink,
};
