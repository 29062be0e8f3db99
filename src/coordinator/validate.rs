//! Whether a job can be run as described, before any money is held for it.
//!
//! Every refusal is one sentence for the person who wrote the job: which field, what is wrong with it, what would be right.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::wire::job::{JobLimits, JobSpec, Requirements, Resources, ServiceSpec};
use crate::wire::{Amount, Secret};

const NAME_CHARS_MAX: usize = 63;
const IMAGE_BYTES_MAX: usize = 512;
const PATH_BYTES_MAX: usize = 4096;
const ENV_ENTRIES_MAX: usize = 1000;
const TEXT_BYTES_MAX: usize = 256 << 10;
const CPU_MILLIS: std::ops::RangeInclusive<u32> = 10..=1_024_000;
const MEMORY_BYTES_MIN: u64 = 6 << 20;
/// 2^53: sizes stay exact in every JSON reader, and far below what SQLite's integers hold.
const BYTES_MAX: u64 = 1 << 53;
const GPUS_MAX: u32 = 1024;
const DURATION_SECONDS_MAX: u64 = 30 * 24 * 3600;
const STOP_GRACE_SECONDS_MAX: u32 = 300;
const LOG_BYTES_MAX: u64 = 1 << 30;
const PIDS_MAX: u32 = 1 << 20;

/// Why a job cannot be run as described.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct InvalidJob {
    /// Which part of the job, as it is written in JSON.
    pub field: &'static str,
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
    let [only] = spec.services.as_slice() else {
        return refuse("services", format!("must hold exactly one container, not {}", spec.services.len()));
    };
    service(only)?;
    requirements(&spec.requirements)?;
    if let Some(path) = &spec.output_path {
        absolute_path("output_path", path)?;
        if path.trim_end_matches('/').is_empty() {
            return refuse("output_path", "must be a folder below /, such as /output");
        }
    }
    limits(&spec.limits)
}

fn refuse<T>(field: &'static str, problem: impl Into<String>) -> Result<T, InvalidJob> {
    Err(InvalidJob { field, problem: problem.into() })
}

fn display_name(name: &str) -> Result<(), InvalidJob> {
    let chars = name.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return refuse("name", format!("must have 1 to {NAME_CHARS_MAX} printable characters"));
    }
    Ok(())
}

fn service(service: &ServiceSpec) -> Result<(), InvalidJob> {
    let name_ok = (1..=NAME_CHARS_MAX).contains(&service.name.len())
        && service.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !name_ok {
        return refuse("services[0].name", "must have 1 to 63 characters out of a-z, 0-9 and '-'");
    }
    image(&service.image)?;
    words("services[0].entrypoint", service.entrypoint.as_deref().unwrap_or_default())?;
    words("services[0].command", &service.command)?;
    environment(&service.env)?;
    if let Some(path) = &service.workdir {
        absolute_path("services[0].workdir", path)?;
    }
    resources(&service.resources)
}

/// Leaves the grammar to the container engine; refuses only what can be no reference at all.
fn image(image: &str) -> Result<(), InvalidJob> {
    const FIELD: &str = "services[0].image";
    if image.is_empty() {
        return refuse(FIELD, "is empty; name one, such as alpine:3.20");
    }
    if image.len() > IMAGE_BYTES_MAX {
        return refuse(FIELD, format!("is longer than {IMAGE_BYTES_MAX} bytes"));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@+[]".contains(&b);
    if let Some(bad) = image.chars().find(|c| !u8::try_from(*c).is_ok_and(allowed)) {
        return refuse(FIELD, format!("'{}' holds {bad:?}, which no image name may", image.escape_debug()));
    }
    if !image.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') {
        return refuse(FIELD, format!("'{image}' must begin with a letter or digit"));
    }
    Ok(())
}

fn words(field: &'static str, words: &[String]) -> Result<(), InvalidJob> {
    if words.iter().any(|w| w.contains('\0')) {
        return refuse(field, "holds a zero byte, which no argument may");
    }
    if words.iter().map(|w| w.len() + 1).sum::<usize>() > TEXT_BYTES_MAX {
        return refuse(field, format!("is longer than {} KiB altogether", TEXT_BYTES_MAX >> 10));
    }
    Ok(())
}

/// Never repeats a value: it may be a password.
fn environment(env: &BTreeMap<String, Secret>) -> Result<(), InvalidJob> {
    const FIELD: &str = "services[0].env";
    if env.len() > ENV_ENTRIES_MAX {
        return refuse(FIELD, format!("has {} entries; the most is {ENV_ENTRIES_MAX}", env.len()));
    }
    for (key, value) in env {
        if key.is_empty() || key.contains('=') || key.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return refuse(
                FIELD,
                format!("has the key {key:?}; a key is not empty and has no '=', blank or control character"),
            );
        }
        if value.expose().contains('\0') {
            return refuse(FIELD, format!("{key} holds a zero byte, which no variable may"));
        }
    }
    if env.iter().map(|(k, v)| k.len() + v.expose().len() + 2).sum::<usize>() > TEXT_BYTES_MAX {
        return refuse(FIELD, format!("is larger than {} KiB altogether", TEXT_BYTES_MAX >> 10));
    }
    Ok(())
}

fn absolute_path(field: &'static str, path: &str) -> Result<(), InvalidJob> {
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

fn resources(resources: &Resources) -> Result<(), InvalidJob> {
    if !CPU_MILLIS.contains(&resources.cpu_millis) {
        return refuse(
            "services[0].resources.cpu_millis",
            format!(
                "must be from {} to {} (1000 is one core), not {}",
                CPU_MILLIS.start(),
                CPU_MILLIS.end(),
                resources.cpu_millis
            ),
        );
    }
    if !(MEMORY_BYTES_MIN..=BYTES_MAX).contains(&resources.memory_bytes) {
        return refuse(
            "services[0].resources.memory_bytes",
            format!(
                "must be at least {MEMORY_BYTES_MIN} (6 MiB) and at most {BYTES_MAX}, not {}",
                resources.memory_bytes
            ),
        );
    }
    if resources.disk_bytes > BYTES_MAX {
        return refuse(
            "services[0].resources.disk_bytes",
            format!("must be at most {BYTES_MAX}, not {}", resources.disk_bytes),
        );
    }
    if resources.gpus > GPUS_MAX {
        return refuse("services[0].resources.gpus", format!("must be at most {GPUS_MAX}, not {}", resources.gpus));
    }
    Ok(())
}

fn requirements(requirements: &Requirements) -> Result<(), InvalidJob> {
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
mod tests {
    use super::*;
    use crate::wire::job::{
        default_log_bytes_max, default_output_bytes_max, default_pids_max, default_stop_grace_seconds,
    };

    fn valid() -> JobSpec {
        JobSpec {
            name: Some("render a café".into()),
            services: vec![ServiceSpec {
                name: "main".into(),
                image: "ghcr.io/a/b@sha256:0123".into(),
                entrypoint: None,
                command: vec!["echo".into(), "…".into()],
                env: BTreeMap::from([("TOKEN".into(), Secret::new("hunter2"))]),
                workdir: Some("/work".into()),
                resources: Resources::default(),
                ..ServiceSpec::default()
            }],
            requirements: Requirements::default(),
            limits: JobLimits {
                price_max: "0.36".parse().unwrap(),
                duration_seconds_max: 3600,
                start_deadline_seconds: None,
                stop_grace_seconds: default_stop_grace_seconds(),
                log_bytes_max: default_log_bytes_max(),
                output_bytes_max: default_output_bytes_max(),
                pids_max: default_pids_max(),
            },
            output_path: Some("/output".into()),
            ..JobSpec::default()
        }
    }

    fn refused(field: &str, change: impl FnOnce(&mut JobSpec)) -> String {
        let mut spec = valid();
        change(&mut spec);
        let error = job(&spec).expect_err(field);
        assert_eq!(error.field, field, "{error}");
        error.to_string()
    }

    #[test]
    fn a_sound_job_is_accepted_and_its_escrow_is_price_times_duration() {
        assert_eq!(job(&valid()).unwrap().escrow, Amount::from_micros(360_000));
    }

    #[test]
    fn a_job_has_exactly_one_container() {
        refused("services", |j| j.services.clear());
        let sentence = refused("services", |j| j.services.push(j.services[0].clone()));
        assert_eq!(sentence, "services must hold exactly one container, not 2");
    }

    #[test]
    fn names_and_images_that_no_engine_takes_are_refused() {
        refused("name", |j| j.name = Some(String::new()));
        refused("name", |j| j.name = Some("a\nb".into()));
        refused("name", |j| j.name = Some("x".repeat(64)));
        for name in ["", "Main", "a_b", "a b", "ä"] {
            refused("services[0].name", |j| j.services[0].name = name.into());
        }
        for image in ["", " ", "alpine; rm -rf /", "a b", "-alpine", "/x", "é", "a\0", &"x".repeat(513)] {
            refused("services[0].image", |j| j.services[0].image = image.into());
        }
    }

    #[test]
    fn bad_environment_keys_are_refused_and_values_never_shown() {
        for key in ["", "A=B", "A B", "A\n"] {
            let sentence = refused("services[0].env", |j| {
                j.services[0].env = BTreeMap::from([(key.to_owned(), Secret::new("hunter2"))]);
            });
            assert!(!sentence.contains("hunter2"), "{sentence}");
        }
        let zero = refused("services[0].env", |j| {
            j.services[0].env.insert("A".into(), Secret::new("hunter2\0"));
        });
        assert!(!zero.contains("hunter2"), "{zero}");
        refused("services[0].env", |j| {
            j.services[0].env.insert("A".into(), Secret::new("x".repeat(TEXT_BYTES_MAX)));
        });
    }

    #[test]
    fn paths_are_absolute_and_never_climb() {
        for path in ["", "out", "./out", "/a/../b", "/..", "/a\n"] {
            refused("output_path", |j| j.output_path = Some(path.into()));
            refused("services[0].workdir", |j| j.services[0].workdir = Some(path.into()));
        }
        refused("output_path", |j| j.output_path = Some("//".into()));
        let mut dots = valid();
        dots.output_path = Some("/a..b/...".into());
        assert!(job(&dots).is_ok());
    }

    #[test]
    fn sizes_and_times_out_of_range_are_refused_with_the_range() {
        refused("services[0].resources.cpu_millis", |j| j.services[0].resources.cpu_millis = 9);
        refused("services[0].resources.cpu_millis", |j| j.services[0].resources.cpu_millis = u32::MAX);
        refused("services[0].resources.memory_bytes", |j| j.services[0].resources.memory_bytes = (6 << 20) - 1);
        refused("services[0].resources.memory_bytes", |j| j.services[0].resources.memory_bytes = u64::MAX);
        refused("services[0].resources.disk_bytes", |j| j.services[0].resources.disk_bytes = u64::MAX);
        refused("services[0].resources.gpus", |j| j.services[0].resources.gpus = u32::MAX);
        refused("limits.duration_seconds_max", |j| j.limits.duration_seconds_max = 0);
        refused("limits.duration_seconds_max", |j| j.limits.duration_seconds_max = u64::MAX);
        refused("limits.start_deadline_seconds", |j| j.limits.start_deadline_seconds = Some(0));
        refused("limits.stop_grace_seconds", |j| j.limits.stop_grace_seconds = 301);
        refused("limits.log_bytes_max", |j| j.limits.log_bytes_max = u64::MAX);
        refused("limits.output_bytes_max", |j| j.limits.output_bytes_max = u64::MAX);
        refused("limits.pids_max", |j| j.limits.pids_max = 0);
        refused("requirements.architecture", |j| j.requirements.architecture = Some("x86 64".into()));
    }

    #[test]
    fn the_highest_price_for_the_longest_time_still_counts_right() {
        let mut spec = valid();
        spec.limits.price_max = crate::wire::HourlyRate::MAX;
        spec.limits.duration_seconds_max = DURATION_SECONDS_MAX;
        assert_eq!(job(&spec).unwrap().escrow.to_string(), "$7200000.00");
    }
}
