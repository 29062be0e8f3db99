//! `fizz firewall`: the rules that keep jobs out of this home, by hand.

use clap::Subcommand;
use std::path::PathBuf;

use crate::cli::errors::{CliError, Exit};
use crate::cli::output::{self, Style};
use crate::cli::owner::up::engine_tls;
use crate::cli::settings;
use crate::clock::Clock;
use crate::config::Config;
use crate::runtime::ContainerRuntime as _;
use crate::runtime::RuntimeError;
use crate::runtime::docker::{DockerOptions, DockerRuntime};
use crate::runtime::firewall::gate::Gate;
use crate::runtime::firewall::surroundings::Surroundings;
use crate::runtime::firewall::{NetworkPolicy, NftError, Verdict, nft, rules};
use crate::wire::NodeId;
use crate::wire::job::Reach;

/// What can be done with the rules.
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
`fizz up` sets the rules by itself before the first job that has a network, sets
them again when somebody changes them, and takes them away at its end.
They concern interfaces named fz-... and nothing else on this machine.")]
pub enum FirewallCommand {
    /// Print the rules as nft reads them, and whether they are in place
    Show {
        /// Configuration file, instead of the usual one
        #[arg(long, value_name = "FILE", env = "FIZZ_CONFIG", hide_env = true)]
        config: Option<PathBuf>,
    },
    /// Set the rules now
    Apply {
        /// Configuration file, instead of the usual one
        #[arg(long, value_name = "FILE", env = "FIZZ_CONFIG", hide_env = true)]
        config: Option<PathBuf>,
    },
    /// Take the rules away, and all that probes have left
    Remove {
        /// Configuration file, instead of the usual one
        #[arg(long, value_name = "FILE", env = "FIZZ_CONFIG", hide_env = true)]
        config: Option<PathBuf>,
    },
    /// Set the rules, then try from a container whether they hold
    Probe {
        /// Print the verdict as JSON
        #[arg(long)]
        json: bool,
        /// Configuration file, instead of the usual one
        #[arg(long, value_name = "FILE", env = "FIZZ_CONFIG", hide_env = true)]
        config: Option<PathBuf>,
    },
}

/// Does it.
///
/// # Errors
/// When the configuration is wrong, or nftables or the engine do not do it.
pub async fn run(command: FirewallCommand) -> Result<u8, CliError> {
    match command {
        FirewallCommand::Show { config } => show(&settings::load(config.as_deref())?.1).await,
        FirewallCommand::Apply { config } => apply(&settings::load(config.as_deref())?.1).await,
        FirewallCommand::Remove { config } => remove(&settings::load(config.as_deref())?.1).await,
        FirewallCommand::Probe { json, config } => probe(&settings::load(config.as_deref())?.1, json).await,
    }
}

async fn show(config: &Config) -> Result<u8, CliError> {
    let script = rules::script(&NetworkPolicy::from(&config.network), &Surroundings::read());
    output::raw(script.as_bytes())?;
    match nft::listing().await {
        Ok(Some(_)) => output::note("a table `inet fizz` is in place"),
        Ok(None) => output::note("no rules are in place; set them: `sudo fizz firewall apply`"),
        Err(error) => output::note(format!("whether they are in place cannot be seen: {error}")),
    }
    Ok(0)
}

async fn apply(config: &Config) -> Result<u8, CliError> {
    let script = rules::script(&NetworkPolicy::from(&config.network), &Surroundings::read());
    nft::apply(&script).await.map_err(refused)?;
    output::note("the rules are in place; try them: `fizz firewall probe`");
    Ok(0)
}

async fn remove(config: &Config) -> Result<u8, CliError> {
    nft::apply(&rules::removal()).await.map_err(refused)?;
    for (bridge, _) in nft::gates().await.map_err(refused)? {
        nft::apply(&Gate::removal(&bridge)).await.map_err(refused)?;
    }
    output::note("the rules are gone");
    match open(config).await? {
        Ok(docker) => docker.remove_probes().await.map_err(engine_refused)?,
        Err(error) => output::note(format!("what probes left on the engine stays: {error}")),
    }
    Ok(0)
}

async fn probe(config: &Config, json: bool) -> Result<u8, CliError> {
    let docker = open(config).await?.map_err(engine_refused)?;
    let verdict = verdict(&docker).await;
    if json {
        output::json(&verdict)?;
    } else {
        let style = if verdict.is_isolated() { Style::Good } else { Style::Bad };
        output::line(output::styled_lines(style, &output::wrapped(output::columns(), &verdict.sentence())))?;
    }
    Ok(if verdict.is_isolated() { 0 } else { Exit::Error.code() })
}

/// What a probe shows now, on a network like one of a job that reaches the internet.
pub(super) async fn verdict(docker: &DockerRuntime) -> Verdict {
    // Whoever asks by hand is no node: what is made for the probe carries an id that nobody else has.
    docker.network_verdict(NodeId::generate(Clock::system().now()), Reach::Internet).await
}

/// What a probe shows now, on a network that is kept to some domains.
pub(super) async fn domains_verdict(docker: &DockerRuntime) -> Verdict {
    docker.domains_verdict(NodeId::generate(Clock::system().now())).await
}

/// The engine under the owner's ceiling.
pub(super) async fn open(config: &Config) -> Result<Result<DockerRuntime, RuntimeError>, CliError> {
    let (address, tls) = (config.engine.address.clone(), engine_tls(&config.engine)?);
    Ok(DockerRuntime::open(DockerOptions { address, tls, ceiling: config.ceiling(), ..DockerOptions::default() }).await)
}

fn refused(error: NftError) -> CliError {
    CliError::new(Exit::Error, error.to_string()).because(error)
}

fn engine_refused(error: RuntimeError) -> CliError {
    CliError::new(Exit::NoEngine, error.to_string()).because(error)
}
