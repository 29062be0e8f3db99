//! Whether one service of a job can be run as described.

use std::collections::BTreeMap;

use super::{BYTES_MAX, InvalidJob, NAME_CHARS_MAX, absolute_path, refuse};
use crate::http::public;
use crate::wire::Secret;
use crate::wire::job::{
    HealthCheck, HealthTest, InputSpec, RegistryLogin, Resources, RestartPolicy, RestartWhen, ServiceSpec,
};

const IMAGE_BYTES_MAX: usize = 512;
const ENV_ENTRIES_MAX: usize = 1000;
const TEXT_BYTES_MAX: usize = 256 << 10;
const CPU_MILLIS: std::ops::RangeInclusive<u32> = 10..=1_024_000;
const MEMORY_BYTES_MIN: u64 = 6 << 20;
const GPUS_MAX: u32 = 1024;
const INPUTS_MAX: usize = 64;
const URL_BYTES_MAX: usize = 2048;
const LOGIN_BYTES_MAX: usize = 16 << 10;

/// Checks one service by itself; fields are named from the service on.
pub(super) fn check(service: &ServiceSpec) -> Result<(), InvalidJob> {
    let name_ok = (1..=NAME_CHARS_MAX).contains(&service.name.len())
        && service.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !name_ok {
        return refuse("name", "must have 1 to 63 characters out of a-z, 0-9 and '-'");
    }
    image(&service.image)?;
    words("entrypoint", service.entrypoint.as_deref().unwrap_or_default())?;
    words("command", &service.command)?;
    environment(&service.env)?;
    if let Some(path) = &service.workdir {
        absolute_path("workdir", path)?;
    }
    resources(&service.resources)?;
    if service.shm_bytes.is_some_and(|bytes| !(1..=service.resources.memory_bytes).contains(&bytes)) {
        return refuse("shm_bytes", "must be at least 1 and at most resources.memory_bytes, of which it is part");
    }
    restart(service.restart)?;
    service.health.as_ref().map_or(Ok(()), health)?;
    inputs(&service.inputs)?;
    service.registry.as_ref().map_or(Ok(()), registry)
}

fn restart(restart: RestartPolicy) -> Result<(), InvalidJob> {
    match restart.when {
        RestartWhen::Unknown => refuse("restart.when", "must be \"never\", \"on_failure\" or \"always\""),
        RestartWhen::Never if restart.times_max.is_some() => {
            refuse("restart.times_max", "means nothing when restart.when is \"never\"")
        }
        RestartWhen::Never => Ok(()),
        RestartWhen::OnFailure | RestartWhen::Always if restart.times_max == Some(0) => {
            refuse("restart.times_max", "must be at least 1; leave it out for no limit")
        }
        RestartWhen::OnFailure | RestartWhen::Always => Ok(()),
    }
}

fn health(health: &HealthCheck) -> Result<(), InvalidJob> {
    let in_range = |field: &str, value: u32, range: std::ops::RangeInclusive<u32>| {
        if range.contains(&value) {
            return Ok(());
        }
        refuse(field, format!("must be from {} to {}, not {value}", range.start(), range.end()))
    };
    in_range("health.interval_seconds", health.interval_seconds, 1..=3600)?;
    in_range("health.timeout_seconds", health.timeout_seconds, 1..=600)?;
    in_range("health.retries", health.retries, 1..=100)?;
    in_range("health.start_grace_seconds", health.start_grace_seconds, 0..=3600)?;
    match &health.test {
        HealthTest::Exec { command } if command.first().is_none_or(String::is_empty) => {
            refuse("health.test.command", "is empty; name a program and its arguments")
        }
        HealthTest::Exec { command } => words("health.test.command", command),
        HealthTest::Http { port: 0, .. } | HealthTest::Tcp { port: 0 } => {
            refuse("health.test.port", "must be from 1 to 65535")
        }
        HealthTest::Http { path, .. } => {
            let is_sound = path.starts_with('/') && path.len() <= URL_BYTES_MAX;
            if is_sound && path.bytes().all(|b| b.is_ascii_graphic()) {
                return Ok(());
            }
            refuse(
                "health.test.path",
                format!("must begin with / and have at most {URL_BYTES_MAX} printable characters"),
            )
        }
        HealthTest::Tcp { .. } => Ok(()),
        HealthTest::Unknown => refuse("health.test.kind", "must be \"exec\", \"http\" or \"tcp\""),
    }
}

fn inputs(inputs: &[InputSpec]) -> Result<(), InvalidJob> {
    if inputs.len() > INPUTS_MAX {
        return refuse("inputs", format!("has {} entries; the most is {INPUTS_MAX}", inputs.len()));
    }
    for (index, input) in inputs.iter().enumerate() {
        let field = |name: &str| format!("inputs[{index}].{name}");
        if !is_web_address(&input.url) {
            return refuse(&field("url"), "must be an address such as https://example.com/data, without a login in it");
        }
        if public::names_private_address(&input.url) {
            return refuse(&field("url"), "names a private address; nodes fetch from the public internet only");
        }
        if input.sha256.len() != 64 || !input.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return refuse(&field("sha256"), "must have 64 hexadecimal digits, as sha256sum prints them");
        }
        absolute_path(&field("path"), &input.path)?;
        if input.path.ends_with('/') || input.path.ends_with("/.") {
            return refuse(&field("path"), "must name a file, such as /work/data");
        }
        if input.bytes_max.is_some_and(|bytes| !(1..=BYTES_MAX).contains(&bytes)) {
            return refuse(&field("bytes_max"), format!("must be from 1 to {BYTES_MAX}"));
        }
        let parts =
            |path: &str| path.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/");
        if inputs.iter().take(index).any(|other| parts(&other.path) == parts(&input.path)) {
            return refuse(&field("path"), format!("'{}' is the path of two inputs", input.path));
        }
    }
    Ok(())
}

/// Leaves the rest of the grammar to whoever fetches it.
fn is_web_address(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let is_plain = url.len() <= URL_BYTES_MAX && url.bytes().all(|b| b.is_ascii_graphic());
    is_plain && host.is_some_and(|host| !host.is_empty() && !host.contains('@'))
}

/// Never repeats what it was given: it is a login.
fn registry(login: &RegistryLogin) -> Result<(), InvalidJob> {
    let length = 1..=LOGIN_BYTES_MAX;
    if !length.contains(&login.username.len()) || login.username.chars().any(|c| c.is_control() || c == ':') {
        let problem = format!("must have 1 to {LOGIN_BYTES_MAX} bytes, without ':' and control characters");
        return refuse("registry.username", problem);
    }
    if !length.contains(&login.password.expose().len()) || login.password.expose().contains('\0') {
        return refuse("registry.password", format!("must have 1 to {LOGIN_BYTES_MAX} bytes and no zero byte"));
    }
    Ok(())
}

/// Leaves the grammar to the container engine; refuses only what can be no reference at all.
fn image(image: &str) -> Result<(), InvalidJob> {
    const FIELD: &str = "image";
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

fn words(field: &str, words: &[String]) -> Result<(), InvalidJob> {
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
    const FIELD: &str = "env";
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

fn resources(resources: &Resources) -> Result<(), InvalidJob> {
    if !CPU_MILLIS.contains(&resources.cpu_millis) {
        return refuse(
            "resources.cpu_millis",
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
            "resources.memory_bytes",
            format!(
                "must be at least {MEMORY_BYTES_MIN} (6 MiB) and at most {BYTES_MAX}, not {}",
                resources.memory_bytes
            ),
        );
    }
    if resources.disk_bytes > BYTES_MAX {
        return refuse("resources.disk_bytes", format!("must be at most {BYTES_MAX}, not {}", resources.disk_bytes));
    }
    if resources.gpus > GPUS_MAX {
        return refuse("resources.gpus", format!("must be at most {GPUS_MAX}, not {}", resources.gpus));
    }
    Ok(())
}
