//! `fizz up`: lend this machine until stopped.

use std::time::Duration;

use crate::agent::enroll::EnrollError;
use crate::agent::signals;
use crate::agent::{self, AgentError, AgentOptions, BenchmarkSource, CoordinatorAddress, EngineSource, Outcome};
use crate::bench::QUICK_TIME_LIMIT;
use crate::cli::connect::trust;
use crate::cli::errors::{CliError, Exit};
use crate::cli::owner::UpArgs;
use crate::cli::{block_on, output, secrets, settings};
use crate::clock::Clock;
use crate::config::{Config, CoordinatorEntry, EngineConfig};
use crate::hardware;
use crate::paths::StateDir;
use crate::runtime::docker::EngineTls;

/// How often desired and actual state are compared without anything having happened.
const RECONCILE_EVERY: Duration = Duration::from_secs(60);

/// Runs the agent on this one thread: an idle agent should weigh nothing.
///
/// # Errors
/// When the configuration is wrong or the agent cannot start.
pub fn run(args: UpArgs) -> Result<u8, CliError> {
    let (paths, config) = settings::load(args.config.as_deref())?;
    let options = options(config, StateDir::new(paths.state_dir))?;
    block_on(async {
        let agent = agent::build(options, Clock::system()).await.map_err(refused)?;
        let (stop, stopped) = signals::channel();
        let listening = tokio::spawn(signals::listen(stop));
        tell_states(agent.snapshots());
        let outcome = agent.run(stopped).await;
        listening.abort();
        match outcome {
            Outcome::Drained => {}
            Outcome::Left => output::note("stopped at once; what runs is taken up again by the next `fizz up`"),
        }
        Ok(0)
    })
}

/// Says where the agent stands whenever that changes, for whoever watches the terminal.
fn tell_states(mut snapshots: tokio::sync::watch::Receiver<crate::control::Snapshot>) {
    if !output::stderr_is_terminal() {
        return;
    }
    output::note("lending this machine; Ctrl-C drains and stops, `fizz status` shows more");
    tokio::spawn(async move {
        let mut said = String::new();
        loop {
            let words = super::status::headline(&snapshots.borrow_and_update());
            if words != said {
                output::note(&words);
                said = words;
            }
            if snapshots.changed().await.is_err() {
                return;
            }
        }
    });
}

fn options(config: Config, usual_state_dir: StateDir) -> Result<AgentOptions, CliError> {
    let program = std::env::current_exe()
        .map_err(|error| CliError::new(Exit::Error, "this program's own file cannot be found").because(error))?;
    let ceiling = config.ceiling();
    Ok(AgentOptions {
        state_dir: config.state_dir.map_or(usual_state_dir, StateDir::new),
        name: config.name.unwrap_or_else(hardware::host_name),
        coordinators: addresses(&config.coordinators)?,
        join_token: secrets::find(None, "FIZZ_JOIN_TOKEN")?,
        offer: config.offer,
        engine: EngineSource::Docker { tls: engine_tls(&config.engine)?, address: config.engine.address },
        ceiling,
        prover: Some(program.clone()),
        benchmark: BenchmarkSource::Child { program, timeout: QUICK_TIME_LIMIT },
        drain_deadline: config.drain_deadline_seconds.as_duration(),
        reconcile_every: RECONCILE_EVERY,
    })
}

/// The certificates for an engine behind TLS.
///
/// # Errors
/// When only some of them are named.
pub fn engine_tls(engine: &EngineConfig) -> Result<Option<EngineTls>, CliError> {
    let identity = match (engine.cert.clone(), engine.key.clone()) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(CliError::new(Exit::Config, "'engine.cert' and 'engine.key' belong together")
                .next("name both under [engine] in fizz.toml, or neither"));
        }
    };
    match &engine.ca {
        Some(ca) => Ok(Some(EngineTls { ca: ca.clone(), identity })),
        None if identity.is_some() => Err(CliError::new(Exit::Config, "'engine.ca' is missing")
            .next("name the authority of the engine's own certificate under [engine] in fizz.toml")),
        None => Ok(None),
    }
}

/// The configured coordinators with their authorities read.
///
/// # Errors
/// When a CA file cannot be read.
pub fn addresses(entries: &[CoordinatorEntry]) -> Result<Vec<CoordinatorAddress>, CliError> {
    entries
        .iter()
        .map(|entry| {
            Ok(CoordinatorAddress { url: entry.url.as_str().to_owned(), trust: trust(entry.ca_file.as_deref())? })
        })
        .collect()
}

fn refused(error: AgentError) -> CliError {
    match error {
        AgentError::Address(error) => error.into(),
        AgentError::NoCoordinator => CliError::new(Exit::Config, "no coordinator is configured")
            .next("register this machine: `fizz enroll --coordinator https://host:8443`"),
        error @ (AgentError::Identity(_)
        | AgentError::Control(_)
        | AgentError::Spool { .. }
        | AgentError::Images(_)) => CliError::new(Exit::Config, error.to_string()).because(error),
    }
}

/// What an enrolment's failure means.
pub(super) fn enroll_refused(error: EnrollError) -> CliError {
    match error {
        EnrollError::Address(error) => error.into(),
        EnrollError::Client(crate::agent::client::ClientError::Http(error)) => error.into(),
        error @ (EnrollError::Identity(_) | EnrollError::Journal(_)) => {
            CliError::new(Exit::Config, error.to_string()).because(error)
        }
        error @ (EnrollError::Denied | EnrollError::Expired) => CliError::new(Exit::Refused, error.to_string()),
        error @ EnrollError::Client(_) => CliError::new(Exit::Unreachable, error.to_string()).because(error),
        error @ EnrollError::Unknown => CliError::new(Exit::Error, error.to_string()),
    }
}
