//! How a renter's command finds its coordinator: flag, then environment, then fizz.toml.

use std::path::{Path, PathBuf};

use clap::Args;

use super::errors::{CliError, Exit};
use super::{secrets, settings};
use crate::http::Trust;
use crate::rent::RentClient;
use crate::wire::Secret;

/// Which coordinator, how to trust it, and who asks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Coordinator")]
pub struct RenterArgs {
    /// Address of the coordinator, like https://coordinator.example:8443
    #[arg(long, value_name = "URL", env = "FIZZ_COORDINATOR", hide_env = true)]
    pub coordinator: Option<String>,
    /// Certificate of the authority to trust, instead of the system's
    #[arg(long, value_name = "FILE", env = "FIZZ_CA_FILE", hide_env = true)]
    pub ca_file: Option<PathBuf>,
    /// File with your API key (else FIZZ_API_KEY or FIZZ_API_KEY_FILE)
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
}

impl RenterArgs {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// When the coordinator or the key is not known, or the CA file cannot be used.
    pub fn connect(&self) -> Result<RentClient, CliError> {
        let address = self.address()?;
        Ok(RentClient::new(&address.url, &trust(address.ca_file.as_deref())?, address.key)?)
    }

    /// Everything needed for a connection.
    ///
    /// # Errors
    /// When the coordinator or the key is not known.
    pub fn address(&self) -> Result<RenterAddress, CliError> {
        let given = secrets::find(self.api_key_file.as_deref(), "FIZZ_API_KEY")?;
        let config = settings::renter(self.coordinator.is_some() && given.is_some())?;
        let url = self.coordinator.clone().or(config.coordinator).ok_or_else(|| {
            CliError::new(Exit::Config, "no coordinator is set")
                .next("give --coordinator URL, set FIZZ_COORDINATOR, or write `rent.coordinator` into fizz.toml")
        })?;
        let found = match given {
            None => config.api_key_file.as_deref().map(secrets::from_file).transpose()?,
            found => found,
        };
        let key = match found {
            Some(key) => key,
            None => secrets::ask("API key")?.ok_or_else(|| {
                CliError::new(Exit::Config, "no API key is set")
                    .next("set FIZZ_API_KEY, or put the key into a file and give --api-key-file FILE")
            })?,
        };
        Ok(RenterAddress { url, ca_file: self.ca_file.clone().or(config.ca_file), key })
    }
}

/// Where a renter's calls go and who makes them.
#[derive(Debug, Clone)]
pub struct RenterAddress {
    /// `https://host:port`.
    pub url: String,
    /// The only authority to trust, if not the system's.
    pub ca_file: Option<PathBuf>,
    /// The account's key.
    pub key: Secret,
}

/// The authority in `ca_file`, or the system's.
///
/// # Errors
/// When the file cannot be read.
pub fn trust(ca_file: Option<&Path>) -> Result<Trust, CliError> {
    let Some(path) = ca_file else { return Ok(Trust::System) };
    let pem = std::fs::read(path).map_err(|error| {
        CliError::new(Exit::Config, format!("the CA file {} cannot be read", path.display())).because(error)
    })?;
    Ok(Trust::Pinned { pem })
}
