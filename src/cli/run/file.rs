//! A whole job out of a file: TOML, or JSON where the file's name ends so. Mistakes are told by line and column, misspelled keys
//! too.

mod keys;

use std::io::Read as _;
use std::path::Path;

use crate::cli::errors::{CliError, Exit};
use crate::config;
use crate::wire::job::JobSpec;
use keys::JobKeys;

/// Largest job file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads the job.
///
/// # Errors
/// When the file cannot be read or is no job.
pub(super) fn read(path: &Path) -> Result<JobSpec, CliError> {
    let shown = path.display().to_string();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| CliError::new(Exit::Usage, format!("--file {shown} cannot be read")).because(error))?;
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    parse(&text, &shown, is_json).map_err(CliError::usage)
}

fn parse(text: &str, name: &str, is_json: bool) -> Result<JobSpec, String> {
    if is_json {
        // Its sentence ends with line and column.
        let read = serde_json::from_str::<JobKeys<true>>(text).and_then(|_| serde_json::from_str(text));
        return read.map_err(|error| format!("{name}: {error}"));
    }
    config::read_toml::<JobKeys<false>>(text, name).map_err(|error| error.to_string())?;
    config::read_toml(text, name).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = r#"
name = "web"

[limits]
price_max = 50000
duration_seconds_max = 3600

[network]
reach = "internet"

[[services]]
name = "main"
image = "alpine:3"
command = ["wget", "http://db:8080/"]
depends_on = ["db"]
resources = { cpu_millis = 500, memory_bytes = 67108864, disk_bytes = 0 }

[[services]]
name = "db"
image = "db:1"
restart = { when = "on_failure", times_max = 3 }
env = { PASSWORD = "hunter2" }

[services.resources]
cpu_millis = 500
memory_bytes = 67108864
disk_bytes = 1048576

[services.health]
interval_seconds = 2
test = { kind = "http", port = 8080, path = "/live" }
"#;

    #[test]
    fn a_job_of_two_services_reads_the_same_from_toml_and_from_json() {
        let from_toml = parse(JOB, "job.toml", false).unwrap();
        assert_eq!(from_toml.services.len(), 2);
        assert_eq!(from_toml.services[1].health.as_ref().unwrap().interval_seconds, 2);
        let json = serde_json::to_string_pretty(&from_toml).unwrap();
        assert_eq!(parse(&json, "job.json", true).unwrap(), from_toml);
    }

    #[test]
    fn a_misspelled_key_is_refused_with_its_place_and_the_nearest_key() {
        for (right, wrong, place) in [
            ("name = \"web\"", "nmae = \"web\"", "job.toml:2:1: there is no key 'nmae'; did you mean 'name'?"),
            (
                "duration_seconds_max",
                "duration_second_max",
                "job.toml:6:1: there is no key 'limits.duration_second_max'",
            ),
            (
                "depends_on",
                "dependson",
                "job.toml:15:1: there is no key 'services.dependson'; did you mean 'depends_on'?",
            ),
            (
                "disk_bytes = 0",
                "gpu = 1",
                "job.toml:16:58: there is no key 'services.resources.gpu'; did you mean 'gpus'?",
            ),
            (
                "times_max",
                "times",
                "job.toml:21:34: there is no key 'services.restart.times'; did you mean 'times_max'?",
            ),
            (
                "port = 8080",
                "prot = 8080",
                "job.toml:31:25: there is no key 'services.health.test.prot'; did you mean 'port'?",
            ),
        ] {
            assert!(JOB.contains(right), "{right}");
            let error = parse(&JOB.replacen(right, wrong, 1), "job.toml", false).unwrap_err();
            assert!(error.starts_with(place), "{error}");
        }
        let json = serde_json::to_string_pretty(&parse(JOB, "job.toml", false).unwrap()).unwrap();
        let error = parse(&json.replacen("\"memory_bytes\"", "\"memory_byte\"", 1), "job.json", true).unwrap_err();
        assert!(
            error.starts_with("job.json: there is no key 'memory_byte'; did you mean 'memory_bytes'? at line "),
            "{error}"
        );
        // Variables are called as their job likes.
        assert!(parse(&JOB.replace("PASSWORD", "services"), "job.toml", false).is_ok());
    }

    #[test]
    fn mistakes_are_told_by_line_and_column_and_no_value_of_the_environment_is_shown() {
        let broken = JOB.replace("cpu_millis = 500\nmemory", "cpu_millis = \"many\"\nmemory");
        let error = parse(&broken, "job.toml", false).unwrap_err();
        assert!(error.starts_with("job.toml:25:14: "), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        let error = parse("{\n  \"services\": 3\n}", "job.json", true).unwrap_err();
        assert!(error.contains("line 2 column"), "{error}");
        let error = parse("services = [", "job.toml", false).unwrap_err();
        assert!(error.contains("job.toml"), "{error}");
    }
}
