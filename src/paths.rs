//! Where Fizz keeps its files on this machine.
//!
//! Invariants
//! - Root uses the system's folders (`/etc/fizz`, `/var/lib/fizz`), everybody else their own.
//! - `FIZZ_STATE_DIR` and `FIZZ_CONFIG` go before anything else; a state folder holds everything an agent owns, so two
//!   state folders are two nodes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use directories::ProjectDirs;
use thiserror::Error;

#[cfg_attr(unix, path = "paths/unix.rs")]
#[cfg_attr(not(unix), path = "paths/windows.rs")]
mod system;

/// Environment variable that names the state folder.
pub const STATE_DIR_VARIABLE: &str = "FIZZ_STATE_DIR";
/// Environment variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "FIZZ_CONFIG";

/// Where files go when the configuration does not say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The configuration file.
    pub config_file: PathBuf,
    /// Whether somebody named the configuration file, so that it has to be there.
    pub config_file_named: bool,
    /// The agent's folder: identity, journal, lock, control socket.
    pub state_dir: PathBuf,
    /// The coordinator's folder: database, certificate authority, outputs.
    pub coordinator_dir: PathBuf,
}

/// No folder can be found.
#[derive(Debug, Error)]
#[error("this user has no home folder; name the folders to use: FIZZ_STATE_DIR=/path FIZZ_CONFIG=/path/fizz.toml")]
pub struct NoHome;

/// Files inside an agent's state folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl Paths {
    /// The paths for this process: its user and its environment.
    ///
    /// # Errors
    /// [`NoHome`] when a folder is neither named nor to be found.
    pub fn discover() -> Result<Self, NoHome> {
        Self::choose(system::is_root(), |name| std::env::var_os(name))
    }

    /// The paths for a user and an environment.
    ///
    /// # Errors
    /// [`NoHome`] when a folder is neither named nor to be found.
    pub fn choose(is_root: bool, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, NoHome> {
        let named = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config_named = named(CONFIG_VARIABLE);
        let usual = if is_root { system::folders() } else { None }.or_else(user_folders);
        let state_dir = named(STATE_DIR_VARIABLE).or_else(|| usual.as_ref().map(|u| u.1.clone())).ok_or(NoHome)?;
        let config_file = config_named.clone().or_else(|| usual.map(|u| u.0.join("fizz.toml"))).ok_or(NoHome)?;
        Ok(Self {
            config_file,
            config_file_named: config_named.is_some(),
            coordinator_dir: state_dir.join("coordinator"),
            state_dir,
        })
    }
}

/// Configuration and state folder of an ordinary user.
fn user_folders() -> Option<(PathBuf, PathBuf)> {
    let dirs = ProjectDirs::from("io", "fizz", "fizz")?;
    let state = dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir());
    Some((dirs.config_dir().to_owned(), state.to_owned()))
}

impl StateDir {
    /// The state folder at `path`; nothing is created.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The node's private key.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.0.join("identity.key")
    }

    /// The lock that one agent holds.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("agent.lock")
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.0.join("state.sqlite")
    }

    /// The control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// Folder for outputs on their way.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_goes_before_the_usual_folders() {
        let env = |name: &str| match name {
            STATE_DIR_VARIABLE => Some(OsString::from("/srv/a")),
            CONFIG_VARIABLE => Some(OsString::from("/srv/a.toml")),
            _ => None,
        };
        let paths = Paths::choose(true, env).unwrap();
        assert_eq!(paths.state_dir, Path::new("/srv/a"));
        assert_eq!(paths.config_file, Path::new("/srv/a.toml"));
        assert!(paths.config_file_named);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn root_uses_the_systems_folders() {
        let paths = Paths::choose(true, |_| None).unwrap();
        assert_eq!(paths.state_dir, Path::new("/var/lib/fizz"));
        assert_eq!(paths.config_file, Path::new("/etc/fizz/fizz.toml"));
        assert!(!paths.config_file_named);
    }
}
