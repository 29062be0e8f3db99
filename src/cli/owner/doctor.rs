//! `fizz doctor`: looks at everything a node needs, and says of each thing that is missing what it means and what to type.

mod sandbox;

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;
use tokio::net::UdpSocket;

use super::DoctorArgs;
use super::firewall::{domains_verdict, open, verdict};
use crate::cli::errors::{CliError, Exit};
use crate::cli::output::{self, Style};
use crate::cli::settings;
use crate::config::Config;
use crate::hardware;
use crate::runtime::firewall::{NftError, Verdict, nft};
use crate::runtime::{ContainerRuntime as _, RuntimeError};

/// How long a name server has.
const RESOLVER_DEADLINE: Duration = Duration::from_secs(2);
/// Where engines keep their data, most likely first.
const DATA_DIRS: &[&str] = &["/var/lib/docker", "/var/lib/containers", "/"];
/// Below this a node can hardly take a job.
const DISK_BYTES_FEW: u64 = 10 << 30;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Good,
    /// Works, but less well than it could.
    Warning,
    /// Something a node promises does not work.
    Bad,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// What was found and what it means.
    pub found: String,
    /// What to type or write, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn new(name: &'static str, outcome: Outcome, found: impl Into<String>) -> Self {
        Self { name, outcome, found: found.into(), fix: None }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

/// Looks at everything and prints it; 0 when nothing is broken.
///
/// # Errors
/// When the configuration is wrong or the output cannot be written.
pub async fn run(args: DoctorArgs) -> Result<u8, CliError> {
    let (_, config) = settings::load(args.config.as_deref())?;
    let checks = examine(&config).await?;
    if args.json {
        output::json(&checks)?;
    } else {
        output::line(picture(output::columns(), &checks))?;
    }
    let broken = checks.iter().any(|check| check.outcome == Outcome::Bad);
    Ok(if broken { Exit::Error.code() } else { 0 })
}

async fn examine(config: &Config) -> Result<Vec<Check>, CliError> {
    let mut checks = Vec::new();
    match open(config).await? {
        Ok(docker) => {
            checks.push(engine(docker.engine().await));
            checks.extend(sandbox::checks(config, &docker.facts(), &docker.findings(), &docker.isolation()));
            checks.push(firewall(nft::listing().await));
            checks.push(isolation(config, verdict(&docker).await));
            checks.extend(domains(config, domains_verdict(&docker).await));
        }
        Err(error) => {
            checks.push(engine(Err(error)));
            checks.push(firewall(nft::listing().await));
        }
    }
    for &resolver in config.network.resolvers.iter().filter(|_| config.network.internet) {
        checks.push(answers(resolver).await);
    }
    checks.push(sandbox::images(&config.images));
    checks.push(disk());
    Ok(checks)
}

fn engine(found: Result<crate::wire::node::Engine, RuntimeError>) -> Check {
    const NAME: &str = "container engine";
    match found {
        Ok(engine) => {
            let words = format!("{} {}, API {}", engine.name, engine.version, engine.api_version);
            Check::new(NAME, Outcome::Good, words)
        }
        // Its sentences say what to type.
        Err(error) => Check::new(NAME, Outcome::Bad, format!("{error}; without one no job can run")),
    }
}

/// Where the rules cannot be seen, networks may still be shut off by other means: the probe says.
fn firewall(listing: Result<Option<String>, NftError>) -> Check {
    const NAME: &str = "firewall";
    match listing {
        Ok(Some(_)) => Check::new(NAME, Outcome::Good, "nftables works, and the rules are in place"),
        Ok(None) => {
            Check::new(NAME, Outcome::Good, "nftables works; the rules are set before the first job with a network")
        }
        Err(error @ NftError::NoSuchSystem) => Check::new(NAME, Outcome::Warning, error.to_string()),
        Err(
            error @ (NftError::Missing | NftError::NotPermitted | NftError::TimedOut { .. } | NftError::Failed { .. }),
        ) => Check::new(NAME, Outcome::Warning, error.to_string()),
    }
}

fn isolation(config: &Config, verdict: Verdict) -> Check {
    const NAME: &str = "isolation of jobs";
    if !config.network.internet {
        return Check::new(NAME, Outcome::Good, "no job gets the internet: [network] internet = false");
    }
    let sentence = verdict.sentence();
    match verdict {
        Verdict::Isolated => Check::new(NAME, Outcome::Good, sentence),
        Verdict::Reaches { .. } => {
            Check::new(NAME, Outcome::Bad, format!("{sentence}: jobs that ask for a network are refused")).fix(
                "see what lets it through: `sudo nft list ruleset`; or lend no internet: [network] internet = false",
            )
        }
        Verdict::NotShown { .. } => {
            Check::new(NAME, Outcome::Bad, format!("{sentence}: jobs that ask for a network are refused")).fix(
                "mend that, then try again: `fizz firewall probe`; or lend no internet: [network] internet = false",
            )
        }
    }
}

/// Only of interest where jobs may have the internet at all.
fn domains(config: &Config, verdict: Verdict) -> Option<Check> {
    const NAME: &str = "lists of domains";
    if !config.network.internet {
        return None;
    }
    if verdict.is_isolated() {
        return Some(Check::new(NAME, Outcome::Good, "jobs were shown to be kept to the domains that they name"));
    }
    let words = format!("{}: jobs that name domains are refused", verdict.sentence());
    Some(Check::new(NAME, Outcome::Warning, words).fix("mend that, then look again: `fizz doctor`"))
}

/// Asks a name server for the servers of the root, which every one of them knows.
async fn answers(resolver: Ipv4Addr) -> Check {
    const NAME: &str = "name server";
    let ask = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect((resolver, 53)).await?;
        // Identifier, recursion wanted, one question: the root, NS, IN.
        socket.send(b"\x46\x5a\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01").await?;
        let mut answer = [0; 512];
        socket.recv(&mut answer).await
    };
    match tokio::time::timeout(RESOLVER_DEADLINE, ask).await {
        Ok(Ok(_)) => Check::new(NAME, Outcome::Good, format!("{resolver} answers")),
        Ok(Err(_)) | Err(_) => Check::new(
            NAME,
            Outcome::Warning,
            format!("{resolver} does not answer, so jobs may find no names through it"),
        )
        .fix("name one that does in fizz.toml: [network] resolvers = [\"9.9.9.9\"]"),
    }
}

fn disk() -> Check {
    const NAME: &str = "disk";
    let data_dir = DATA_DIRS.iter().map(std::path::Path::new).find(|path| path.exists());
    match hardware::host(data_dir.unwrap_or_else(|| std::path::Path::new("/"))) {
        Ok(host) if host.disk_bytes_free >= DISK_BYTES_FEW => {
            Check::new(NAME, Outcome::Good, format!("{} GiB are free", host.disk_bytes_free >> 30))
        }
        Ok(host) => Check::new(
            NAME,
            Outcome::Warning,
            format!("only {} GiB are free, too little for most jobs", host.disk_bytes_free >> 30),
        )
        .fix("see what takes it: `docker system df`"),
        Err(error) => Check::new(NAME, Outcome::Warning, error.to_string()),
    }
}

/// The checks below each other, each with what to do.
#[must_use]
pub fn picture(columns: u16, checks: &[Check]) -> String {
    let mut blocks = Vec::new();
    for check in checks {
        let (style, mark) = match check.outcome {
            Outcome::Good => (Style::Good, "✓"),
            Outcome::Warning => (Style::Warn, "!"),
            Outcome::Bad => (Style::Bad, "✗"),
        };
        let text = format!("{mark} {}: {}", check.name, output::printable(&check.found));
        let mut block = output::styled_lines(style, &output::wrapped(columns, &text));
        if let Some(fix) = &check.fix {
            block.push('\n');
            block.push_str(&output::wrapped(columns, &format!("  → {fix}")));
        }
        blocks.push(block);
    }
    blocks.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_that_is_not_good_says_what_to_type_and_fits_80_columns() {
        let config = Config::default();
        let not_running = RuntimeError::NotRunning { address: "unix:///x".to_owned(), source: "gone".into() };
        let checks = vec![
            engine(Err(not_running)),
            firewall(Err(NftError::Missing)),
            firewall(Err(NftError::NotPermitted)),
            isolation(&config, Verdict::Reaches { what: vec!["this machine at 192.168.1.7".to_owned()] }),
            isolation(&config, Verdict::NotShown { why: "the probe could not run".to_owned() }),
        ];
        assert!(checks.iter().all(|check| check.outcome != Outcome::Good));
        let text = picture(80, &checks);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for part in
            ["systemctl start docker", "apt-get install nftables", "setcap", "fizz firewall probe", "nft list ruleset"]
        {
            assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn an_owner_who_lends_no_internet_is_well() {
        let mut config = Config::default();
        config.network.internet = false;
        let why = "the owner does not lend the internet".to_owned();
        assert_eq!(isolation(&config, Verdict::NotShown { why }).outcome, Outcome::Good);
    }
}
