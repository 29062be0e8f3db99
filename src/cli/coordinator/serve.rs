//! `fizz coordinator serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::admin::data_dir;
use crate::cli::errors::{CliError, Exit};
use crate::cli::output;
use crate::cli::run::ending::EXIT_INTERRUPTED;
use crate::clock::Clock;
use crate::config::laid_over;
use crate::coordinator::{self, CoordinatorConfig, CoordinatorError, Running};
use crate::os::StopSignals;

/// Arguments of `fizz coordinator serve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Without a certificate of its own the coordinator makes an authority; give its
ca.pem (in the data folder) to nodes and renters. The admin token is in the file
admin.token there. Ctrl-C or SIGTERM drains it.")]
pub struct ServeArgs {
    /// Address to listen on [default: 127.0.0.1:8443]
    #[arg(long, value_name = "IP:PORT", env = "FIZZ_LISTEN", hide_env = true)]
    pub listen: Option<SocketAddr>,
    /// Folder for the database, keys and outputs
    #[arg(long, value_name = "DIR", env = "FIZZ_COORDINATOR_DIR", hide_env = true)]
    pub data_dir: Option<PathBuf>,
    /// Address that nodes and renters use, when it is another
    #[arg(long, value_name = "URL")]
    pub public_url: Option<Url>,
    /// Further name or address for the own certificate; may be repeated
    #[arg(long, value_name = "NAME")]
    pub hostname: Vec<String>,
    /// Certificate chain (PEM), instead of the own authority
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// Private key (PEM) of the certificate
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
    /// Configuration of the coordinator (TOML); flags go before it
    #[arg(long, value_name = "FILE", env = "FIZZ_COORDINATOR_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
}

impl ServeArgs {
    /// Defaults, then the file, then the flags.
    ///
    /// # Errors
    /// When the file cannot be read or holds what it may not.
    pub fn config(&self) -> Result<CoordinatorConfig, CliError> {
        let mut defaults = CoordinatorConfig::default();
        if self.data_dir.is_none() {
            defaults.data_dir = data_dir(None)?;
        }
        let mut config = match &self.config {
            None => defaults,
            Some(file) => laid_over(defaults, file).map_err(|why| {
                CliError::new(Exit::Config, "the coordinator's configuration cannot be used").because(why)
            })?,
        };
        config.hostnames.extend(self.hostname.iter().cloned());
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        if let Some(folder) = &self.data_dir {
            config.data_dir.clone_from(folder);
        }
        if self.public_url.is_some() {
            config.public_url.clone_from(&self.public_url);
        }
        if self.cert_file.is_some() {
            config.cert_file.clone_from(&self.cert_file);
            config.key_file.clone_from(&self.key_file);
        }
        Ok(config)
    }
}

/// Serves until stopped. A second signal ends it without waiting for anybody.
///
/// # Errors
/// When the coordinator cannot start or its server breaks.
pub fn run(args: ServeArgs) -> Result<u8, CliError> {
    let config = args.config()?;
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| CliError::new(Exit::Error, what).because(error)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(failed("the runtime cannot be started"))?;
    let result = runtime.block_on(async {
        let mut signals = StopSignals::catch().map_err(failed("signals cannot be caught"))?;
        let shutdown = CancellationToken::new();
        let serving = coordinator::serve(config, Clock::system(), shutdown.clone(), announce);
        tokio::pin!(serving);
        loop {
            tokio::select! {
                served = &mut serving => return served.map(|()| 0).map_err(refused),
                () = signals.next() => {
                    if shutdown.is_cancelled() {
                        return Ok(EXIT_INTERRUPTED);
                    }
                    output::note("draining; once more stops at once");
                    shutdown.cancel();
                }
            }
        }
    });
    runtime.shutdown_background();
    result
}

/// What a person needs to begin, once it answers.
fn announce(running: &Running) {
    let folder = running.app().config.data_dir.display().to_string();
    output::note(format!("the coordinator answers at {}", running.url().as_str().trim_end_matches('/')));
    if running.ca_pem().is_some() {
        output::note(format!("its authority, for nodes and renters: {folder}/ca.pem"));
    }
    output::note(format!("the admin token is in {folder}/admin.token"));
}

fn refused(error: CoordinatorError) -> CliError {
    CliError::new(Exit::Config, error.to_string()).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn config(args: &[&str]) -> Result<CoordinatorConfig, CliError> {
        let line = ["fizz", "coordinator", "serve"].iter().chain(args);
        let command = crate::cli::Cli::try_parse_from(line).unwrap().command;
        let crate::cli::Command::Coordinator(super::super::CoordinatorCommand::Serve(args)) = command else {
            panic!("not serve")
        };
        args.config()
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coordinator.toml");
        std::fs::write(&file, "listen = \"0.0.0.0:9\"\nfee_per_mille = 10\n").unwrap();
        let file = file.to_str().unwrap();
        let config = config(&["--config", file, "--listen", "127.0.0.1:0", "--data-dir", "/d"]).unwrap();
        assert_eq!(config.listen.port(), 0);
        assert_eq!(config.fee_per_mille, 10);
        assert_eq!(config.data_dir, PathBuf::from("/d"));
        assert_eq!(config.drain_deadline_seconds, CoordinatorConfig::default().drain_deadline_seconds);
    }

    #[test]
    fn an_unknown_key_and_a_missing_file_are_errors_of_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coordinator.toml");
        std::fs::write(&file, "lisen = \"0.0.0.0:9\"\n").unwrap();
        let error = config(&["--config", file.to_str().unwrap(), "--data-dir", "/d"]).unwrap_err();
        assert!(error.to_string().contains("lisen"), "{error}");
        assert_eq!(error.exit(), Exit::Config);
        assert!(config(&["--config", "/nonexistent", "--data-dir", "/d"]).is_err());
    }
}
