//! Whether a job can be run as described, before any money is held for it.
//!
//! Every refusal is one sentence for the person who wrote the job: which field, what is wrong with it, what would be right.

mod service;

use thiserror::Error;

use crate::wire::Amount;
use crate::wire::domain::{DOMAINS_MAX, DomainPattern};
use crate::wire::job::{Isolation, JobLimits, JobSpec, NetworkSpec, Reach, Requirements, ServiceSpec};

const SERVICES_MAX: usize = 8;
const NAME_CHARS_MAX: usize = 63;
const PATH_BYTES_MAX: usize = 4096;
/// 2^53: sizes stay exact in every JSON reader, and far below what SQLite's integers hold.
const BYTES_MAX: u64 = 1 << 53;
const DURATION_SECONDS_MAX: u64 = 30 * 24 * 3600;
const STOP_GRACE_SECONDS_MAX: u32 = 300;
const LOG_BYTES_MAX: u64 = 1 << 30;
const PIDS_MAX: u32 = 1 << 20;

/// Why a job cannot be run as described.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct InvalidJob {
    /// Which part of the job, as it is written in JSON.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// A job that can be run as described, and the most it can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Valid {
    /// What escrow must hold: highest price times longest duration, rounded up.
    pub escrow: Amount,
}

/// Checks `spec` whole.
///
/// # Errors
/// The first thing that is wrong.
pub fn job(spec: &JobSpec) -> Result<Valid, InvalidJob> {
    if let Some(name) = &spec.name {
        display_name(name)?;
    }
    services(&spec.services)?;
    requirements(&spec.requirements)?;
    network(&spec.network)?;
    if let Some(path) = &spec.output_path {
        absolute_path("output_path", path)?;
        if path.trim_end_matches('/').is_empty() {
            return refuse("output_path", "must be a folder below /, such as /output");
        }
    }
    limits(&spec.limits)
}

fn refuse<T>(field: &str, problem: impl Into<String>) -> Result<T, InvalidJob> {
    Err(InvalidJob { field: field.to_owned(), problem: problem.into() })
}

/// Each service by itself, then what they say of each other.
fn services(services: &[ServiceSpec]) -> Result<(), InvalidJob> {
    if !(1..=SERVICES_MAX).contains(&services.len()) {
        return refuse("services", format!("must hold 1 to {SERVICES_MAX} containers, not {}", services.len()));
    }
    for (index, one) in services.iter().enumerate() {
        let under = |error: InvalidJob| InvalidJob { field: format!("services[{index}].{}", error.field), ..error };
        service::check(one).map_err(under)?;
        let earlier = services.get(..index).unwrap_or_default();
        if earlier.iter().any(|other| other.name == one.name) {
            let problem = format!("'{}' is the name of two services; each needs one of its own", one.name);
            return refuse(&format!("services[{index}].name"), problem);
        }
        if index > 0 && one.resources.gpus > 0 {
            let problem = "must be 0: GPUs go to the first service";
            return refuse(&format!("services[{index}].resources.gpus"), problem);
        }
        depends_on(services, one).map_err(under)?;
    }
    circle(services)
}

fn depends_on(services: &[ServiceSpec], one: &ServiceSpec) -> Result<(), InvalidJob> {
    for (index, name) in one.depends_on.iter().enumerate() {
        let named = format!("names '{}', which is", name.escape_debug());
        if *name == one.name {
            return refuse("depends_on", format!("{named} the service itself"));
        }
        if services.iter().all(|other| other.name != *name) {
            return refuse("depends_on", format!("{named} no service of this job"));
        }
        if one.depends_on.iter().take(index).any(|other| other == name) {
            return refuse("depends_on", format!("{named} there twice"));
        }
    }
    Ok(())
}

/// Takes away what waits for nothing until nothing is left.
fn circle(services: &[ServiceSpec]) -> Result<(), InvalidJob> {
    let mut left: Vec<&ServiceSpec> = services.iter().collect();
    while !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|service| service.name.as_str()).collect();
        let before = left.len();
        left.retain(|service| service.depends_on.iter().any(|name| names.contains(&name.as_str())));
        if left.len() == before {
            return refuse("services", format!("wait for each other in a circle by depends_on: {}", names.join(", ")));
        }
    }
    Ok(())
}

fn network(network: &NetworkSpec) -> Result<(), InvalidJob> {
    match network.reach {
        Reach::Internet => {}
        Reach::None if network.domains.is_empty() => {}
        Reach::None => return refuse("network.domains", "need network.reach \"internet\""),
        Reach::Unknown => return refuse("network.reach", "must be \"none\" or \"internet\""),
    }
    if network.domains.len() > DOMAINS_MAX {
        return refuse("network.domains", format!("has {} entries; the most is {DOMAINS_MAX}", network.domains.len()));
    }
    match network.domains.iter().find_map(|domain| domain.parse::<DomainPattern>().err()) {
        Some(wrong) => refuse("network.domains", format!("holds something else: {wrong}")),
        None => Ok(()),
    }
}

fn display_name(name: &str) -> Result<(), InvalidJob> {
    let chars = name.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return refuse("name", format!("must have 1 to {NAME_CHARS_MAX} printable characters"));
    }
    Ok(())
}

fn absolute_path(field: &str, path: &str) -> Result<(), InvalidJob> {
    if !path.starts_with('/') {
        return refuse(field, format!("'{}' must be an absolute path, such as /output", path.escape_debug()));
    }
    if path.len() > PATH_BYTES_MAX || path.chars().any(char::is_control) {
        return refuse(field, format!("must have at most {PATH_BYTES_MAX} bytes and no control characters"));
    }
    if path.split('/').any(|part| part == "..") {
        return refuse(field, format!("'{path}' must not contain '..'"));
    }
    Ok(())
}

fn requirements(requirements: &Requirements) -> Result<(), InvalidJob> {
    if requirements.isolation == Some(Isolation::Unknown) {
        let kinds = "\"container\", \"user_namespace\", \"gvisor\" or \"kata\"";
        return refuse("requirements.isolation", format!("must be {kinds}"));
    }
    let Some(architecture) = &requirements.architecture else { return Ok(()) };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if architecture.is_empty() || architecture.len() > 32 || !architecture.bytes().all(plain) {
        return refuse("requirements.architecture", "must be a name as Docker writes it, such as amd64 or arm64");
    }
    Ok(())
}

fn limits(limits: &JobLimits) -> Result<Valid, InvalidJob> {
    if !(1..=DURATION_SECONDS_MAX).contains(&limits.duration_seconds_max) {
        return refuse(
            "limits.duration_seconds_max",
            format!("must be from 1 to {DURATION_SECONDS_MAX} (30 days), not {}", limits.duration_seconds_max),
        );
    }
    if let Some(seconds) = limits.start_deadline_seconds.filter(|s| !(1..=DURATION_SECONDS_MAX).contains(s)) {
        return refuse(
            "limits.start_deadline_seconds",
            format!("must be from 1 to {DURATION_SECONDS_MAX} (30 days), not {seconds}"),
        );
    }
    if limits.stop_grace_seconds > STOP_GRACE_SECONDS_MAX {
        return refuse(
            "limits.stop_grace_seconds",
            format!("must be at most {STOP_GRACE_SECONDS_MAX}, not {}", limits.stop_grace_seconds),
        );
    }
    if limits.log_bytes_max > LOG_BYTES_MAX {
        return refuse(
            "limits.log_bytes_max",
            format!("must be at most {LOG_BYTES_MAX} (1 GiB), not {}", limits.log_bytes_max),
        );
    }
    if limits.output_bytes_max > BYTES_MAX {
        return refuse(
            "limits.output_bytes_max",
            format!("must be at most {BYTES_MAX}, not {}", limits.output_bytes_max),
        );
    }
    if !(1..=PIDS_MAX).contains(&limits.pids_max) {
        return refuse("limits.pids_max", format!("must be from 1 to {PIDS_MAX}, not {}", limits.pids_max));
    }
    // ceiling_for_seconds saturates instead of wrapping; a job that needs that much money is refused in words.
    let escrow = limits.price_max.ceiling_for_seconds(limits.duration_seconds_max);
    if escrow.micros() == i64::MAX {
        return refuse("limits.price_max", "times limits.duration_seconds_max is more money than can be counted");
    }
    Ok(Valid { escrow })
}

#[cfg(test)]
mod tests;
