//! From what was typed to a [`JobSpec`]. Pure but for reading `--env-file`.

use std::collections::BTreeMap;
use std::path::Path;

use super::{RunArgs, file};
use crate::cli::errors::{CliError, Exit};
use crate::wire::Secret;
use crate::wire::job::{
    JobLimits, JobSpec, NetworkSpec, Reach, Requirements, Resources, ServiceSpec, default_log_bytes_max,
    default_output_bytes_max,
};

/// Folder in the container that `--output` brings back.
pub const OUTPUT_PATH: &str = "/output";

/// Largest `--env-file`.
const ENV_FILE_BYTES_MAX: u64 = 1 << 20;

/// Builds the job. `ours` looks up our own environment.
///
/// # Errors
/// When a variable or an environment file cannot be used.
pub fn build(args: &RunArgs, ours: &dyn Fn(&str) -> Option<String>) -> Result<JobSpec, CliError> {
    if let Some(path) = &args.file {
        let mut spec = file::read(path)?;
        if args.output.is_some() && spec.output_path.is_none() {
            spec.output_path = Some(OUTPUT_PATH.to_owned());
        }
        return Ok(spec);
    }
    let mut env = BTreeMap::new();
    for file in &args.env_file {
        read_env_file(file, ours, &mut env)?;
    }
    for pair in &args.env {
        add_variable(pair, ours, &mut env).map_err(|why| CliError::usage(format!("--env {why}")))?;
    }
    if args.disk == 0 && args.output.is_some() {
        return Err(CliError::usage("--output needs disk for what is brought back; leave out --disk 0"));
    }
    let image = args.image.as_deref().unwrap_or_default();
    let registry = super::fetched::login(image, args.registry_login_file.as_deref(), args.registry_auth)?;
    Ok(JobSpec {
        name: args.name.clone(),
        services: vec![ServiceSpec {
            name: "main".to_owned(),
            image: args.image.clone().unwrap_or_default(),
            entrypoint: args.entrypoint.clone().map(|program| vec![program]),
            command: args.command.clone(),
            env,
            workdir: args.workdir.clone(),
            inputs: args.input.clone(),
            registry,
            resources: Resources {
                cpu_millis: args.cpus,
                memory_bytes: args.memory,
                disk_bytes: args.disk,
                gpus: args.gpus,
            },
            root: args.root,
            shm_bytes: args.shm_size,
            restart: args.keep.restart,
            health: args.keep.health()?,
            ..ServiceSpec::default()
        }],
        requirements: Requirements {
            node_id: args.node,
            isolation: args.isolation,
            proven: args.proven,
            ..Requirements::default()
        },
        limits: JobLimits {
            price_max: args.max_price,
            duration_seconds_max: args.timeout,
            start_deadline_seconds: args.start_within,
            stop_grace_seconds: args.stop_timeout,
            log_bytes_max: default_log_bytes_max(),
            output_bytes_max: default_output_bytes_max(),
            pids_max: args.pids_limit,
        },
        network: network(args)?,
        output_path: args.output.is_some().then(|| OUTPUT_PATH.to_owned()),
        interactive: args.interactive,
    })
}

fn network(args: &RunArgs) -> Result<NetworkSpec, CliError> {
    if args.network != Reach::Internet && !args.domain.is_empty() {
        return Err(CliError::usage("--domain names a part of the internet; add --network internet".to_owned()));
    }
    let domains = args.domain.iter().map(ToString::to_string).collect();
    Ok(NetworkSpec { reach: args.network, domains })
}

fn read_env_file(
    path: &Path,
    ours: &dyn Fn(&str) -> Option<String>,
    env: &mut BTreeMap<String, Secret>,
) -> Result<(), CliError> {
    use std::io::Read as _;
    let shown = path.display();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(ENV_FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| CliError::new(Exit::Usage, format!("--env-file {shown} cannot be read")).because(error))?;
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        add_variable(line, ours, env)
            .map_err(|why| CliError::usage(format!("--env-file {shown}, line {}: {why}", number + 1)))?;
    }
    Ok(())
}

/// Adds `KEY=VALUE`, or `KEY` with our own value. A variable that we do not have is left out, as docker leaves it out.
/// The sentence never repeats a value.
fn add_variable(
    pair: &str,
    ours: &dyn Fn(&str) -> Option<String>,
    env: &mut BTreeMap<String, Secret>,
) -> Result<(), String> {
    let (name, value) = pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value)));
    if name.is_empty() {
        return Err("has no name before the '='; write KEY=VALUE".to_owned());
    }
    if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("'{}' is no name of a variable; write KEY=VALUE", name.escape_debug()));
    }
    if let Some(value) = value.map(str::to_owned).or_else(|| ours(name)) {
        if value.contains('\0') {
            return Err(format!("{name} has a zero byte in its value"));
        }
        env.insert(name.to_owned(), Secret::new(value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn parse(args: &[&str]) -> RunArgs {
        let cli = crate::cli::Cli::try_parse_from(["fizz", "run"].iter().chain(args)).unwrap();
        let crate::cli::Command::Run(args) = cli.command else { panic!("not run") };
        *args
    }

    fn built(args: &[&str]) -> JobSpec {
        build(&parse(args), &|name| (name == "HOME").then(|| "/home/me".to_owned())).unwrap()
    }

    #[test]
    fn the_short_form_is_short_and_its_limits_are_finite() {
        let spec = built(&["alpine:3", "--", "echo", "-n", "hello"]);
        assert_eq!(spec.services[0].image, "alpine:3");
        assert_eq!(spec.services[0].command, ["echo", "-n", "hello"]);
        assert_eq!(spec.limits.duration_seconds_max, 3600);
        assert_eq!(spec.output_path, None);
    }

    #[test]
    fn an_isolation_is_asked_for_by_its_name() {
        use crate::wire::job::Isolation;
        assert_eq!(built(&["--isolation", "gvisor", "x"]).requirements.isolation, Some(Isolation::Gvisor));
        assert_eq!(built(&["x"]).requirements.isolation, None);
    }

    #[test]
    fn a_job_can_ask_for_root_for_shared_memory_and_for_no_disk() {
        let service = &built(&["alpine"]).services[0];
        assert_eq!((service.root, service.shm_bytes, service.resources.disk_bytes), (false, None, 1 << 30));
        let service = &built(&["--root", "--shm-size", "2g", "--disk", "0", "alpine"]).services[0];
        assert_eq!((service.root, service.shm_bytes, service.resources.disk_bytes), (true, Some(2 << 30), 0));
        let error = build(&parse(&["--disk", "0", "--output", "out", "alpine"]), &|_| None).unwrap_err().to_string();
        assert!(error.contains("--output needs disk"), "{error}");
    }

    #[test]
    fn a_job_has_no_network_unless_it_asks_and_domains_are_a_part_of_the_internet() {
        assert!(built(&["x"]).network.is_none());
        let network = built(&["--network", "internet", "--domain", "Example.org", "x"]).network;
        assert_eq!((network.reach, network.domains), (Reach::Internet, vec!["example.org".to_owned()]));
        let error = build(&parse(&["--domain", "example.org", "x"]), &|_| None).unwrap_err();
        assert!(error.to_string().contains("--network internet"), "{error}");
    }

    #[test]
    fn the_command_may_follow_the_image_without_dashes_as_in_docker() {
        assert_eq!(built(&["alpine", "sh", "-c", "exit 3"]).services[0].command, ["sh", "-c", "exit 3"]);
        assert_eq!(built(&["alpine", "ls", "--cpus", "9"]).services[0].command, ["ls", "--cpus", "9"]);
        assert_eq!(built(&["--cpus", "0.5", "alpine"]).services[0].resources.cpu_millis, 500);
    }

    #[test]
    fn a_variable_without_a_value_takes_ours_and_one_we_lack_is_left_out() {
        let env = &built(&["-e", "A=b=c", "-e", "HOME", "--env", "ABSENT", "-e", "EMPTY=", "x"]).services[0].env;
        assert_eq!(env.keys().collect::<Vec<_>>(), ["A", "EMPTY", "HOME"]);
        assert_eq!(env["A"].expose(), "b=c");
        assert_eq!(env["HOME"].expose(), "/home/me");
        assert_eq!(env["EMPTY"].expose(), "");
    }

    #[test]
    fn an_environment_file_reads_as_dockers_and_flags_win_over_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env");
        std::fs::write(&path, "\u{feff}# note\n\nA=1\n  B=two words # kept\nHOME\r\nC=\"quoted\"\n").unwrap();
        let env = &built(&["--env-file", path.to_str().unwrap(), "-e", "A=2", "x"]).services[0].env;
        assert_eq!(env["A"].expose(), "2");
        assert_eq!(env["B"].expose(), "two words # kept");
        assert_eq!(env["C"].expose(), "\"quoted\"");
        assert_eq!(env["HOME"].expose(), "/home/me");
    }

    #[test]
    fn a_bad_line_is_named_by_file_and_number_and_its_value_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env");
        std::fs::write(&path, "A=1\n=s3cret\n").unwrap();
        let args = parse(&["--env-file", path.to_str().unwrap(), "x"]);
        let error = build(&args, &|_| None).unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("s3cret"), "{error}");
        let error = build(&parse(&["-e", "A B=s3cret", "x"]), &|_| None).unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
}
