//! The configuration as commands need it: which file, and where a renter's coordinator is named.

use std::path::{Path, PathBuf};

use super::errors::{CliError, Exit};
use crate::config::Config;
use crate::paths::{Paths, StateDir};

/// The folders and the configuration; `file` is what `--config` says.
///
/// # Errors
/// When the file is wrong, or named and not there.
pub fn load(file: Option<&Path>) -> Result<(Paths, Config), CliError> {
    let mut paths = Paths::discover().map_err(|error| CliError::new(Exit::Config, error.to_string()))?;
    if let Some(file) = file {
        paths.config_file = file.to_owned();
        paths.config_file_named = true;
    }
    let config = Config::load(&paths.config_file, paths.config_file_named, |name| std::env::var(name).ok())
        .map_err(|error| CliError::new(Exit::Config, error.to_string()))?;
    Ok((paths, config))
}

/// As [`load`], but a file named by `FIZZ_CONFIG` need not be there yet.
///
/// # Errors
/// When the file is wrong.
pub fn load_or_default() -> Result<(Paths, Config), CliError> {
    let paths = Paths::discover().map_err(|error| CliError::new(Exit::Config, error.to_string()))?;
    let config = Config::load(&paths.config_file, false, |name| std::env::var(name).ok())
        .map_err(|error| CliError::new(Exit::Config, error.to_string()))?;
    Ok((paths, config))
}

/// The agent's folder.
///
/// # Errors
/// As [`load`].
pub fn state_dir(file: Option<&Path>) -> Result<StateDir, CliError> {
    let (paths, config) = load(file)?;
    Ok(StateDir::new(config.state_dir.unwrap_or(paths.state_dir)))
}

/// What fizz.toml says to a renter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renter {
    /// `https://host:port`.
    pub coordinator: Option<String>,
    /// The only authority to trust.
    pub ca_file: Option<PathBuf>,
    /// File with the API key.
    pub api_key_file: Option<PathBuf>,
}

/// The section `rent`, else the first of the node's own coordinators. `complete`: coordinator and key are known already, so
/// a file that is named need not be there.
///
/// # Errors
/// When the file is wrong, or named, needed and not there.
pub fn renter(complete: bool) -> Result<Renter, CliError> {
    // Renting needs no home folder; without one there is no configuration either.
    if Paths::discover().is_err() {
        return Ok(Renter::default());
    }
    let (_, config) = if complete { load_or_default()? } else { load(None)? };
    Ok(renter_of(config))
}

fn renter_of(config: Config) -> Renter {
    let api_key_file = config.rent.api_key_file;
    if let Some(url) = config.rent.coordinator {
        return Renter { coordinator: Some(url.as_str().to_owned()), ca_file: config.rent.ca_file, api_key_file };
    }
    match config.coordinators.into_iter().next() {
        Some(first) => Renter {
            coordinator: Some(first.url.as_str().to_owned()),
            ca_file: config.rent.ca_file.or(first.ca_file),
            api_key_file,
        },
        None => Renter { coordinator: None, ca_file: config.rent.ca_file, api_key_file },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renter(text: &str) -> Renter {
        renter_of(Config::parse(text, "fizz.toml", |_| None).unwrap())
    }

    #[test]
    fn a_renter_uses_the_nodes_own_coordinator_unless_another_is_named() {
        let node = "[[coordinators]]\nurl = \"https://a:1\"\nca_file = \"/a.pem\"\n";
        let found = renter(node);
        assert_eq!(found.coordinator.as_deref(), Some("https://a:1"));
        assert_eq!(found.ca_file.as_deref(), Some(Path::new("/a.pem")));
        let found = renter(&format!("{node}[rent]\ncoordinator = \"https://b:1\"\n"));
        assert_eq!(found.coordinator.as_deref(), Some("https://b:1"));
        assert_eq!(found.ca_file, None, "another coordinator's authority is not this one's");
        assert_eq!(renter(""), Renter::default());
    }
}
