//! What an operator can set, with defaults that run on one machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use semver::Version;
use serde::{Deserialize, Serialize};
use url::Url;

/// Configuration of one coordinator. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoordinatorConfig {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Address that nodes and people use, when it differs from `listen` (a name, a proxy).
    pub public_url: Option<Url>,
    /// Further names and addresses the own certificate is made for.
    pub hostnames: Vec<String>,
    /// Folder for the database, keys and outputs.
    pub data_dir: PathBuf,
    /// Certificate chain (PEM) from elsewhere; with `key_file`, instead of the own CA.
    pub cert_file: Option<PathBuf>,
    /// Private key (PEM) of `cert_file`.
    pub key_file: Option<PathBuf>,
    /// Database file; `coordinator.sqlite` in `data_dir` when absent.
    pub database: Option<PathBuf>,
    /// Where outputs are kept; the folder `outputs` in `data_dir` when absent.
    pub outputs_url: Option<String>,
    /// How often nodes report, in milliseconds.
    pub heartbeat_interval_millis: u64,
    /// Seconds of silence before a node's leases are lost; three intervals and 15 seconds when absent.
    pub lease_grace_seconds: Option<u64>,
    /// The network's fee in thousandths of what renters pay, at most 1000.
    pub fee_per_mille: u16,
    /// Older agents are refused.
    pub min_agent_version: Option<Version>,
    /// Seconds a request may take (long polls, streams and uploads have their own limits).
    pub request_timeout_seconds: u64,
    /// Requests per minute that one credential may make over time.
    pub requests_per_minute_per_token: u32,
    /// Requests per minute that one address may make over time, all credentials together.
    pub requests_per_minute_per_address: u32,
    /// Whether nodes have to prove their hardware, see `coordinator::verify`.
    pub challenges: bool,
    /// Seconds that open requests get to finish when the coordinator stops.
    pub drain_deadline_seconds: u64,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8443)),
            public_url: None,
            hostnames: Vec::new(),
            data_dir: PathBuf::from("fizz-coordinator"),
            cert_file: None,
            key_file: None,
            database: None,
            outputs_url: None,
            heartbeat_interval_millis: 30_000,
            lease_grace_seconds: None,
            fee_per_mille: 50,
            min_agent_version: None,
            request_timeout_seconds: 30,
            requests_per_minute_per_token: 3_000,
            requests_per_minute_per_address: 12_000,
            challenges: true,
            drain_deadline_seconds: 20,
        }
    }
}

impl CoordinatorConfig {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What does not, and what would.
    pub fn check(&self) -> Result<(), String> {
        if self.fee_per_mille > 1000 {
            return Err(format!("fee_per_mille is {}; it must be at most 1000", self.fee_per_mille));
        }
        if self.heartbeat_interval_millis == 0 {
            return Err("heartbeat_interval_millis is 0; 30000 is usual".to_owned());
        }
        match &self.public_url {
            Some(url) if url.scheme() != "https" => Err(format!("public_url is {url}; it must start with https://")),
            Some(_) | None => Ok(()),
        }
    }

    /// How often nodes report.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_millis.max(1))
    }

    /// Silence after which a node's leases are lost.
    #[must_use]
    pub fn lease_grace(&self) -> Duration {
        match self.lease_grace_seconds {
            Some(seconds) => Duration::from_secs(seconds),
            None => self.heartbeat_interval().saturating_mul(3).saturating_add(Duration::from_secs(15)),
        }
    }

    /// The database file.
    #[must_use]
    pub fn database_path(&self) -> PathBuf {
        self.database.clone().unwrap_or_else(|| self.data_dir.join("coordinator.sqlite"))
    }
}
