//! `fizz enroll`: register this machine, by token or by a code that a person approves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::qr;
use super::up::{addresses, enroll_refused};
use crate::agent::CoordinatorAddress;
use crate::agent::enroll::{EnrollOptions, EnrollStep, Enrollment};
use crate::cli::connect::trust;
use crate::cli::errors::{CliError, Exit};
use crate::cli::owner::EnrollArgs;
use crate::cli::values::show_duration;
use crate::cli::{output, secrets, settings};
use crate::clock::Clock;
use crate::config::edit::with_coordinator;
use crate::hardware;
use crate::paths::{Paths, StateDir};
use crate::wire::enroll::PendingEnrollment;
use crate::wire::{NodeId, Secret};

/// Registers this machine and notes the coordinator in fizz.toml.
///
/// # Errors
/// When the coordinator refuses or cannot be reached, or the files cannot be written.
pub async fn run(args: EnrollArgs) -> Result<u8, CliError> {
    let (mut paths, config) = load(&args)?;
    if let Some(state_dir) = config.state_dir {
        paths.state_dir = state_dir;
    }
    let ca_file = args.ca_file.as_deref().map(absolute).transpose()?;
    let coordinators = match &args.coordinator {
        Some(url) => vec![CoordinatorAddress { url: url.clone(), trust: trust(ca_file.as_deref())? }],
        None => addresses(&config.coordinators)?,
    };
    if coordinators.is_empty() {
        return Err(CliError::new(Exit::Config, "no coordinator is set").next("give --coordinator https://host:8443"));
    }
    let options = EnrollOptions {
        state_dir: StateDir::new(&paths.state_dir),
        name: args.name.clone().or(config.name).unwrap_or_else(hardware::host_name),
        coordinators,
        join_token: token(&args)?,
    };
    let (node, already) = join(options).await?;
    if already {
        output::note("this machine is registered already; to join another network give it another FIZZ_STATE_DIR");
    }
    if let Some(url) = args.coordinator.as_deref().filter(|_| !already || config.coordinators.is_empty()) {
        note_coordinator(&paths, url, ca_file.as_deref())?;
    }
    output::line(node.to_string())?;
    output::note("registered; now lend this machine: `fizz up`");
    Ok(0)
}

/// A configuration file that was named may be made by this command.
fn load(args: &EnrollArgs) -> Result<(Paths, crate::config::Config), CliError> {
    let (mut paths, config) = match &args.config {
        Some(file) if file.exists() => settings::load(Some(file))?,
        _ => settings::load_or_default()?,
    };
    if let Some(file) = &args.config {
        paths.config_file.clone_from(file);
    }
    Ok((paths, config))
}

fn token(args: &EnrollArgs) -> Result<Option<Secret>, CliError> {
    if args.token {
        return secrets::ask("Join token")?.map(Some).ok_or_else(|| {
            CliError::usage("no token was typed").next("give --token-file FILE, or leave --token away to get a code")
        });
    }
    secrets::find(args.token_file.as_deref(), "FIZZ_JOIN_TOKEN")
}

async fn join(options: EnrollOptions) -> Result<(NodeId, bool), CliError> {
    let clock = Clock::system();
    let mut enrollment = Enrollment::open(options, clock.clone()).await.map_err(enroll_refused)?;
    let mut waiting: Option<ProgressBar> = None;
    loop {
        let step = enrollment.next().await;
        if let Some(bar) = waiting.take() {
            bar.finish_and_clear();
        }
        match step.map_err(enroll_refused)? {
            EnrollStep::Enrolled { node_id, already } => return Ok((node_id, already)),
            EnrollStep::Approve(pending) => {
                show(&pending, clock.now());
                waiting = Some(spinner());
            }
        }
    }
}

fn show(pending: &PendingEnrollment, now: jiff::Timestamp) {
    let terminal = output::stderr_is_terminal();
    let url = output::printable(&pending.verification_url);
    let code = output::printable(&pending.user_code);
    if let Some(picture) = qr::picture(&pending.verification_url_complete, output::columns()).filter(|_| terminal) {
        output::aside(format!("\n{picture}"));
    }
    let left = show_duration(Duration::try_from(pending.expires_at.duration_since(now)).unwrap_or_default());
    output::aside(format!("Open   {url}\nCode   {code}   (good for {left})\n"));
    output::aside("Sign in there with your account's API key and let this machine in.");
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
    }
    bar.set_message("waiting for you to approve it; Ctrl-C gives up");
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path)
        .map_err(|error| CliError::new(Exit::Config, format!("{} cannot be found", path.display())).because(error))
}

/// Adds the coordinator to fizz.toml, so that `fizz up` finds it.
fn note_coordinator(paths: &Paths, url: &str, ca_file: Option<&Path>) -> Result<(), CliError> {
    let file = &paths.config_file;
    let failed = |why: String| {
        CliError::new(Exit::Config, format!("this machine is registered, but {} could not be changed", file.display()))
            .because(why)
            .next(format!("write this into it: coordinators = [{{ url = \"{url}\" }}]"))
    };
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error.to_string())),
    };
    let Some(text) = with_coordinator(&text, url, ca_file).map_err(|error| failed(error.to_string()))? else {
        return Ok(());
    };
    replace(file, &text).map_err(|error| failed(error.to_string()))?;
    output::note(format!("{} now names this coordinator", file.display()));
    Ok(())
}

/// Replaces a file whole or not at all. A link to it stays a link, and its permissions stay.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    if let Ok(old) = std::fs::metadata(&file) {
        new.as_file().set_permissions(old.permissions())?;
    } else {
        crate::os::set_executable(new.as_file(), false)?;
    }
    new.as_file().sync_all()?;
    new.persist(&file).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_made_and_changed_whole_with_its_comments() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sub/fizz.toml");
        let paths = Paths {
            config_file: file.clone(),
            config_file_named: false,
            state_dir: PathBuf::new(),
            coordinator_dir: PathBuf::new(),
        };
        note_coordinator(&paths, "https://a:1", None).unwrap();
        std::fs::write(&file, format!("# mine\n{}", std::fs::read_to_string(&file).unwrap())).unwrap();
        note_coordinator(&paths, "https://b:1", Some(Path::new("/ca.pem"))).unwrap();
        note_coordinator(&paths, "https://b:1", None).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let config = crate::config::Config::parse(&text, "fizz.toml", |_| None).unwrap();
        assert_eq!(config.coordinators.len(), 2, "{text}");
        assert_eq!(config.coordinators[0].url.as_str(), "https://b:1");
        assert!(text.contains("# mine\n[[coordinators]]\nurl = \"https://a:1\""), "{text}");
    }

    #[test]
    fn a_broken_file_is_left_alone_and_the_error_says_what_to_write() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fizz.toml");
        std::fs::write(&file, "= broken").unwrap();
        let paths = Paths {
            config_file: file.clone(),
            config_file_named: false,
            state_dir: PathBuf::new(),
            coordinator_dir: PathBuf::new(),
        };
        let error = note_coordinator(&paths, "https://a:1", None).unwrap_err().to_string();
        assert!(error.contains("coordinators = [{ url = \"https://a:1\" }]"), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "= broken");
    }
}
