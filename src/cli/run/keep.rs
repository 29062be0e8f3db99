//! How a job is kept going, as it is typed: restarts and health checks, in the spirit of docker's flags.

use clap::Args;

use crate::cli::errors::CliError;
use crate::cli::values::parse_seconds;
use crate::wire::job::{
    HealthCheck, HealthTest, RestartPolicy, RestartWhen, default_health_interval_seconds, default_health_retries,
    default_health_timeout_seconds,
};

/// Restarts and health checks.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Keeping it going")]
pub struct KeepArgs {
    /// When it ends: no, on-failure[:N] or always start it again
    #[arg(long, value_name = "POLICY", default_value = "no", value_parser = parse_restart)]
    pub restart: RestartPolicy,
    /// It is well while this shell line in it succeeds
    #[arg(long, value_name = "LINE", group = "health")]
    pub health_cmd: Option<String>,
    /// It is well while GET answers 200 to 399, like 8080/live
    #[arg(long, value_name = "PORT/PATH", group = "health", value_parser = parse_http)]
    pub health_http: Option<(u16, String)>,
    /// It is well while this port of it answers
    #[arg(long, value_name = "PORT", group = "health", value_parser = clap::value_parser!(u16).range(1..))]
    pub health_tcp: Option<u16>,
    /// Between two checks [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, requires = "health")]
    pub health_interval: Option<u64>,
    /// A check that takes longer has failed [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, requires = "health")]
    pub health_timeout: Option<u64>,
    /// Failures in a row that end it [default: 3]
    #[arg(long, value_name = "N", requires = "health")]
    pub health_retries: Option<u32>,
    /// Failures so soon after the start do not count
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, requires = "health")]
    pub health_start_period: Option<u64>,
}

impl KeepArgs {
    /// The check, if one was asked for.
    ///
    /// # Errors
    /// When a time is too long to be meant.
    pub(super) fn health(&self) -> Result<Option<HealthCheck>, CliError> {
        let test = if let Some(line) = &self.health_cmd {
            HealthTest::Exec { command: vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()] }
        } else if let Some((port, path)) = &self.health_http {
            HealthTest::Http { port: *port, path: path.clone() }
        } else if let Some(port) = self.health_tcp {
            HealthTest::Tcp { port }
        } else {
            return Ok(None);
        };
        let seconds = |flag: &str, value: Option<u64>, default: u32| match value.map(u32::try_from) {
            None => Ok(default),
            Some(Ok(seconds)) => Ok(seconds),
            Some(Err(_)) => Err(CliError::usage(format!("{flag} is longer than any job runs"))),
        };
        Ok(Some(HealthCheck {
            test,
            interval_seconds: seconds("--health-interval", self.health_interval, default_health_interval_seconds())?,
            timeout_seconds: seconds("--health-timeout", self.health_timeout, default_health_timeout_seconds())?,
            retries: self.health_retries.unwrap_or_else(default_health_retries),
            start_grace_seconds: seconds("--health-start-period", self.health_start_period, 0)?,
        }))
    }
}

fn parse_restart(text: &str) -> Result<RestartPolicy, String> {
    let (word, times) = text.split_once(':').map_or((text, None), |(word, times)| (word, Some(times)));
    let times_max = match times.map(str::parse::<u32>) {
        None => None,
        Some(Ok(times)) if times > 0 && word == "on-failure" => Some(times),
        Some(_) => return Err("write on-failure:N with N from 1 on".to_owned()),
    };
    let when = match word {
        "no" => RestartWhen::Never,
        "on-failure" => RestartWhen::OnFailure,
        "always" | "unless-stopped" => RestartWhen::Always,
        _ => return Err("must be no, on-failure, on-failure:N or always".to_owned()),
    };
    Ok(RestartPolicy { when, times_max })
}

fn parse_http(text: &str) -> Result<(u16, String), String> {
    let (port, path) = text.split_once('/').unwrap_or((text, ""));
    let port = port.trim_start_matches(':').parse().ok().filter(|port| *port > 0);
    port.map(|port| (port, format!("/{path}"))).ok_or_else(|| "write a port and a path, like 8080/live".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_written_as_dockers() {
        let policy = |when, times_max| Ok(RestartPolicy { when, times_max });
        assert_eq!(parse_restart("no"), policy(RestartWhen::Never, None));
        assert_eq!(parse_restart("on-failure"), policy(RestartWhen::OnFailure, None));
        assert_eq!(parse_restart("on-failure:3"), policy(RestartWhen::OnFailure, Some(3)));
        assert_eq!(parse_restart("always"), policy(RestartWhen::Always, None));
        for bad in ["", "never", "on-failure:0", "on-failure:x", "always:3", "no:1"] {
            assert!(parse_restart(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_and_a_path_make_a_check() {
        assert_eq!(parse_http("8080/live?x=1"), Ok((8080, "/live?x=1".to_owned())));
        assert_eq!(parse_http("80"), Ok((80, "/".to_owned())));
        for bad in ["", "/live", "0/x", "http://x/", "70000/x"] {
            assert!(parse_http(bad).is_err(), "{bad}");
        }
    }
}
