//! The configuration file `fizz.toml` and the environment variables that go before it.
//!
//! Invariants
//! - A missing file is the default configuration; a file that somebody named must be there.
//! - Nothing is ignored: an unknown key is an error with file, line, column and the nearest known key.
//! - Values are checked when they are read: sizes, cores and prices in range, coordinators with `https://`.
//! - No secret is in the file; it names files that hold one.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Format as _, Serialized, Toml};
use figment::value::Value;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

mod ceiling;
pub mod edit;
mod locate;
mod units;

pub(crate) use locate::hint;

pub use ceiling::{Ceiling, CpuWeight, ImagesConfig, NetworkConfig, PidsMax, Pool, RootRule, SandboxConfig};
pub use units::{ByteSize, CpuMillis, Price};

use crate::wire::HourlyRate;

/// Everything that can be configured.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The agent's state folder; the usual one when absent. `FIZZ_STATE_DIR`.
    pub state_dir: Option<PathBuf>,
    /// The node's name for people; the host's name when absent. `FIZZ_NAME`.
    pub name: Option<String>,
    /// The addresses of the network's coordinator, in order of preference.
    pub coordinators: Vec<CoordinatorEntry>,
    /// What this machine lends.
    pub offer: OfferConfig,
    /// The container engine.
    pub engine: EngineConfig,
    /// How strangers' containers are shut in.
    pub sandbox: SandboxConfig,
    /// What they may reach.
    pub network: NetworkConfig,
    /// Where their images may come from.
    pub images: ImagesConfig,
    /// Seconds a drain waits for running jobs before it hands them back. `FIZZ_DRAIN_DEADLINE_SECONDS`.
    pub drain_deadline_seconds: DrainDeadline,
    /// The renter's side: where `fizz run` sends jobs.
    pub rent: RentConfig,
}

impl Config {
    /// What a stranger's container may have here at most.
    #[must_use]
    pub fn ceiling(&self) -> Ceiling {
        Ceiling { sandbox: self.sandbox.clone(), network: self.network.clone(), images: self.images.clone() }
    }
}

/// One address of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorEntry {
    /// `https://host:port`.
    pub url: CoordinatorUrl,
    /// PEM file of the only authority to trust for it; the system's authorities when absent.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// A checked `https://` address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CoordinatorUrl(String);

/// What the owner lends; everything that is absent is decided from the inventory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OfferConfig {
    /// CPU cores, `2` or `1.5`.
    pub cpus: Option<CpuMillis>,
    /// Memory, `"8GiB"`.
    pub memory: Option<ByteSize>,
    /// Disk, `"50GiB"`.
    pub disk: Option<ByteSize>,
    /// Hardware GPUs.
    pub gpus: Option<u32>,
    /// Lowest price per hour for the whole offer in dollars, `"0.25"`.
    pub price_per_hour: Option<Price>,
}

impl OfferConfig {
    /// The lowest price for the whole offer; [`default_price`] when the owner named none.
    #[must_use]
    pub fn price_min(&self) -> HourlyRate {
        self.price_per_hour.map_or_else(default_price, |price| price.0)
    }
}

/// Ten cents an hour.
#[must_use]
pub fn default_price() -> HourlyRate {
    HourlyRate::try_from(100_000).unwrap_or(HourlyRate::MIN)
}

/// The container engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// `unix:///var/run/docker.sock`, or `tcp://host:2376` with `ca`; found by itself when absent.
    pub address: Option<String>,
    /// PEM file of the authority of an engine behind TLS.
    pub ca: Option<PathBuf>,
    /// PEM file of our certificate, where that engine asks for one.
    pub cert: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
}

/// The renter's side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RentConfig {
    /// `https://host:port`. `FIZZ_COORDINATOR`.
    pub coordinator: Option<CoordinatorUrl>,
    /// PEM file of the only authority to trust. `FIZZ_CA_FILE`.
    pub ca_file: Option<PathBuf>,
    /// File that holds the API key. `FIZZ_API_KEY_FILE`.
    pub api_key_file: Option<PathBuf>,
}

/// Seconds a drain may take, 0 to 24 hours; 60 when absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct DrainDeadline(u64);

/// Why the configuration cannot be used. Every sentence starts with where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: the configuration cannot be read ({why})")]
    Unreadable {
        /// Path.
        file: String,
        /// The system's words.
        why: String,
    },
    /// Somebody named a file that is not there.
    #[error("{file} does not exist; make it with `fizz enroll`, or unset FIZZ_CONFIG")]
    Missing {
        /// Path.
        file: String,
    },
    /// The text is no TOML.
    #[error("{at}: this is not valid TOML: {why}")]
    Syntax {
        /// `file:line:column`.
        at: String,
        /// The parser's words.
        why: String,
    },
    /// A key that does not exist.
    #[error("{at}: there is no key '{key}'{hint}")]
    UnknownKey {
        /// `file:line:column`, or the variable.
        at: String,
        /// As written.
        key: String,
        /// `; did you mean 'memory'?`, or what there is.
        hint: String,
    },
    /// A value that cannot be.
    #[error("{at}: {what}{why}")]
    BadValue {
        /// `file:line:column`, or the variable.
        at: String,
        /// `'offer.memory' `: which key, with a space behind it.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Default for DrainDeadline {
    fn default() -> Self {
        Self(60)
    }
}

impl DrainDeadline {
    /// As a duration.
    #[must_use]
    pub const fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0)
    }
}

impl TryFrom<u64> for DrainDeadline {
    type Error = String;

    fn try_from(seconds: u64) -> Result<Self, String> {
        if seconds <= 86_400 { Ok(Self(seconds)) } else { Err("must be from 0 to 86400 seconds".to_owned()) }
    }
}

impl CoordinatorUrl {
    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CoordinatorUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let usable = url::Url::parse(&text).is_ok_and(|u| u.scheme() == "https" && u.has_host());
        if usable { Ok(Self(text)) } else { Err(format!("'{text}' must be an address like https://host:8443")) }
    }
}

/// Variables that stand for a key, beside the keys themselves in capitals with `__` between the levels.
const VARIABLES: &[(&str, &str)] = &[
    ("FIZZ_STATE_DIR", "state_dir"),
    ("FIZZ_NAME", "name"),
    ("FIZZ_COORDINATORS", "coordinators"),
    ("FIZZ_OFFER__CPUS", "offer.cpus"),
    ("FIZZ_OFFER__MEMORY", "offer.memory"),
    ("FIZZ_OFFER__DISK", "offer.disk"),
    ("FIZZ_OFFER__GPUS", "offer.gpus"),
    ("FIZZ_OFFER__PRICE_PER_HOUR", "offer.price_per_hour"),
    ("FIZZ_ENGINE__ADDRESS", "engine.address"),
    ("FIZZ_DRAIN_DEADLINE_SECONDS", "drain_deadline_seconds"),
    ("FIZZ_COORDINATOR", "rent.coordinator"),
    ("FIZZ_CA_FILE", "rent.ca_file"),
    ("FIZZ_API_KEY_FILE", "rent.api_key_file"),
];

impl Config {
    /// Reads the file, if it is there, and the environment.
    ///
    /// # Errors
    /// [`ConfigError`] with the place and what to write instead.
    pub fn load(file: &Path, must_exist: bool, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if must_exist {
                    return Err(ConfigError::Missing { file: file.display().to_string() });
                }
                String::new()
            }
            Err(error) => {
                return Err(ConfigError::Unreadable { file: file.display().to_string(), why: error.to_string() });
            }
        };
        Self::parse(&text, &file.display().to_string(), env)
    }

    /// Reads a text as if it were the file `name`, and the environment.
    ///
    /// # Errors
    /// [`ConfigError`] with the place and what to write instead.
    pub fn parse(text: &str, name: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let located = locate::Located::parse(text, name)?;
        // The file alone first, so that a mistake in it is told with its place even where a variable goes before it.
        let figment = Figment::from(Toml::string(text));
        figment.extract::<Self>().map_err(|error| located.explain(&error))?;
        let mut figment = figment;
        for (variable, key) in VARIABLES {
            if let Some(value) = env(variable).filter(|v| !v.is_empty()) {
                figment = figment.merge(Serialized::globals(figment::util::nest(key, env_value(&value))));
                figment.extract::<Self>().map_err(|error| locate::explain_variable(variable, &error))?;
            }
        }
        figment.extract().map_err(|error| located.explain(&error))
    }
}

/// `defaults` with what the file says laid over them, for other programs' configurations of the same kind.
///
/// # Errors
/// A sentence with the file and the key when it cannot be read or holds what it may not.
pub fn laid_over<T: Serialize + DeserializeOwned>(defaults: T, file: &Path) -> Result<T, String> {
    let figment = Figment::from(Serialized::defaults(defaults)).merge(Toml::file_exact(file));
    figment.extract().map_err(|error| error.to_string())
}

/// Lists and tables as TOML writes them inline, whole numbers as numbers, everything else as text.
fn env_value(text: &str) -> Value {
    if text.starts_with(['[', '{']) {
        // The parser takes everything: what is neither list nor table becomes text.
        return match text.parse() {
            Ok(value) => value,
        };
    }
    text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from)
}

/// Reads any value written as TOML; `name` is the file's, for the sentence.
///
/// # Errors
/// [`ConfigError`] with line and column.
pub fn read_toml<T: serde::de::DeserializeOwned>(text: &str, name: &str) -> Result<T, ConfigError> {
    let located = locate::Located::parse(text, name)?;
    Figment::from(Toml::string(text)).extract().map_err(|error| located.explain(&error))
}

#[cfg(test)]
mod tests;
