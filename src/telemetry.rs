//! What the process says about itself on stderr: human text or JSON lines.
//!
//! Invariants
//! - Logs go to stderr only; stdout belongs to what the user asked for.
//! - `FIZZ_LOG` goes before the flags. Crates that could print addresses or headers stay at WARN unless it names them.

use std::io::IsTerminal as _;

use thiserror::Error;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// Environment variable with filter directives: `info`, `fizz=debug`, `fizz::job=trace,warn`.
pub const LOG_VARIABLE: &str = "FIZZ_LOG";
/// Environment variable with the format: `human` or `json`.
pub const LOG_FORMAT_VARIABLE: &str = "FIZZ_LOG_FORMAT";

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// What to log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Steps above WARN: 0 WARN, 1 INFO, 2 DEBUG, 3 and more TRACE.
    pub verbosity: u8,
    /// How lines look.
    pub format: LogFormat,
    /// Directives that replace what `verbosity` says; from [`LOG_VARIABLE`].
    pub filter: Option<String>,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The directives cannot be read.
    #[error("FIZZ_LOG='{given}' cannot be read; write a level or directives, like FIZZ_LOG=fizz=debug")]
    BadFilter {
        /// As given.
        given: String,
        /// The parser's words.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The format is not known.
    #[error("FIZZ_LOG_FORMAT='{0}' is not known; write human or json")]
    BadFormat(String),
    /// Logging was set up before.
    #[error("logging is set up already")]
    Twice(#[source] TryInitError),
}

impl LogOptions {
    /// What flags and environment say.
    ///
    /// # Errors
    /// [`TelemetryError::BadFormat`] for a format that is not known.
    pub fn from_environment(verbosity: u8, env: impl Fn(&str) -> Option<String>) -> Result<Self, TelemetryError> {
        let format = match env(LOG_FORMAT_VARIABLE).as_deref() {
            None | Some("" | "human") => LogFormat::Human,
            Some("json") => LogFormat::Json,
            Some(other) => return Err(TelemetryError::BadFormat(other.to_owned())),
        };
        Ok(Self { verbosity, format, filter: env(LOG_VARIABLE).filter(|f| !f.is_empty()) })
    }

    fn directives(&self) -> String {
        let level = match self.verbosity {
            0 => "warn",
            1 => "info",
            2 => "debug",
            _ => "trace",
        };
        self.filter.clone().unwrap_or_else(|| format!("warn,fizz={level}"))
    }

    fn filter(&self) -> Result<Targets, TelemetryError> {
        let given = self.directives();
        given.parse().map_err(|source| TelemetryError::BadFilter { given, source })
    }
}

/// Starts logging to stderr for this process.
///
/// # Errors
/// [`TelemetryError::BadFilter`] for directives that cannot be read; [`TelemetryError::Twice`] when called twice.
pub fn init(options: &LogOptions) -> Result<(), TelemetryError> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match options.format {
        LogFormat::Human => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(options.filter()?)).try_init().map_err(TelemetryError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_goes_before_the_flags() {
        let env = |name: &str| (name == LOG_VARIABLE).then(|| "trace".to_owned());
        assert_eq!(LogOptions::from_environment(0, env).unwrap().directives(), "trace");
        assert_eq!(LogOptions::from_environment(1, |_| None).unwrap().directives(), "warn,fizz=info");
    }

    #[test]
    fn a_filter_or_format_that_cannot_be_read_is_named() {
        let bad = LogOptions { filter: Some("fizz=loud".to_owned()), ..LogOptions::default() };
        assert!(bad.filter().unwrap_err().to_string().contains("FIZZ_LOG='fizz=loud'"));
        let env = |name: &str| (name == LOG_FORMAT_VARIABLE).then(|| "xml".to_owned());
        assert!(LogOptions::from_environment(0, env).unwrap_err().to_string().contains("human or json"));
    }
}
