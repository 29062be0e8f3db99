//! From the engine's words to errors that say what to do.

use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, SocketAddr};

use bollard::errors::Error;

use super::super::RuntimeError;

/// Whether an API version like `1.41` is at least the needed one.
pub(super) fn api_is_enough(found: &str, needed: &str) -> bool {
    let parse = |text: &str| -> Option<(u32, u32)> {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    parse(found) >= parse(needed)
}

/// Turns an error of any call into ours.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "bollard has many kinds; those without a meaning of their own share one"
)]
pub(super) fn classify(address: &str, what: &'static str, error: Error) -> RuntimeError {
    match error {
        Error::DockerResponseServerError { status_code, message } => from_answer(what, status_code, &message),
        Error::DockerStreamError { error } => from_answer(what, 0, &error),
        Error::RequestTimeoutError => RuntimeError::TimedOut { what, seconds: 120 },
        Error::JsonDataError { message, .. } => RuntimeError::Engine { what, detail: message },
        Error::UnsupportedURISchemeError { .. } => RuntimeError::NotRunning {
            address: address.to_owned(),
            source: "the address must start with unix:// or tcp://".into(),
        },
        other if let Some(why) = tls_trouble(&other) => {
            RuntimeError::EngineTls { detail: format!("{address} is not the engine that was named ({why})") }
        }
        other if is_permission(&other) => RuntimeError::PermissionDenied { address: address.to_owned() },
        other => RuntimeError::NotRunning { address: address.to_owned(), source: Box::new(other) },
    }
}

/// As [`classify`], for reading the folder `path`.
pub(super) fn classify_archive(address: &str, path: &str, error: Error) -> RuntimeError {
    if let Error::DockerResponseServerError { status_code: 404, message } = &error
        && !message.contains("No such container:")
    {
        return RuntimeError::NoSuchPath { path: path.to_owned() };
    }
    classify(address, "read a folder", error)
}

/// What an error answer means for an image.
pub(super) fn from_pull(image: &str, here: &str, error: RuntimeError) -> RuntimeError {
    let RuntimeError::Engine { detail: told, .. } = error else { return error };
    let detail = without_addresses(&told, image);
    if detail != told {
        tracing::info!(image, detail = told, "an image cannot be pulled");
    }
    let image = image.to_owned();
    let lower = detail.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&["toomanyrequests", "too many requests", "rate limit"]) {
        RuntimeError::RegistryBusy { image, detail, retry_after: None }
    } else if says(&["no matching manifest", "does not match the specified platform"]) {
        RuntimeError::WrongArchitecture { image, found: "another platform".to_owned(), here: here.to_owned() }
    } else if says(&["manifest unknown", "not found", "access denied", "unauthorized", "denied:", "invalid reference"])
    {
        RuntimeError::ImageNotFound { image, detail }
    } else {
        RuntimeError::PullFailed { image, detail }
    }
}

/// What leaves this node names no address of the home: neither that of its name server ("lookup x on 192.168.1.1:53") nor what
/// a name means there. Addresses that the job itself wrote into `image` stay.
fn without_addresses(detail: &str, image: &str) -> String {
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '[' | ']');
    let detail = without_zones(detail);
    let mut told = String::with_capacity(detail.len());
    let mut rest = detail.as_str();
    while let Some(start) = rest.find(is_part) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_part(c)).unwrap_or(from.len()));
        let trimmed = word.trim_end_matches([':', '.']);
        told.push_str(before);
        if is_address(trimmed) && !image.contains(trimmed) {
            told.push_str("(address)");
            told.push_str(word.get(trimmed.len()..).unwrap_or_default());
        } else {
            told.push_str(word);
        }
        rest = after;
    }
    told.push_str(rest);
    told
}

/// `[fe80::1%eth0]:53` without the interface.
fn without_zones(detail: &str) -> String {
    let mut parts = detail.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.find(']') {
            Some(end) if plain.contains('[') && part[..end].chars().all(char::is_alphanumeric) => {
                plain.push_str(&part[end..]);
            }
            Some(_) | None => {
                plain.push('%');
                plain.push_str(part);
            }
        }
    }
    plain
}

fn is_address(word: &str) -> bool {
    let bare = word.trim_start_matches('[').trim_end_matches(']');
    word.parse::<SocketAddr>().is_ok() || (bare.len() > 2 && bare.parse::<IpAddr>().is_ok())
}

/// Whether the engine does not remove an image because something uses it.
pub(super) fn is_in_use(detail: &str) -> bool {
    let lower = detail.to_lowercase();
    ["conflict", "is using", "in use", "used by"].iter().any(|words| lower.contains(words))
}

/// What TLS found wrong, if that is what went wrong.
fn tls_trouble(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return Some(tls.to_string());
        }
        // An error of reading that has TLS's own inside does not name it as its source.
        let inner = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inner.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| current.source());
    }
    None
}

fn is_permission(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::PermissionDenied
        {
            return true;
        }
        next = current.source();
    }
    false
}

fn from_answer(what: &'static str, status: u16, message: &str) -> RuntimeError {
    let detail = short(message);
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    // The kernel's words stand at the end; before them a path may stand, which is the job's to choose.
    let ends = |words: &[&str]| words.iter().any(|word| lower.trim_end().trim_end_matches(": unknown").ends_with(word));
    if ends(&["no space left on device", "disk quota exceeded"]) {
        return RuntimeError::NoSpace { detail };
    }
    if let Some(error) = from_exec(message).filter(|_| what == "run a command") {
        return error;
    }
    if status == 404 && says(&["no such container"]) {
        return RuntimeError::NoSuchContainer;
    }
    if status == 404 && says(&["no such image"]) {
        return RuntimeError::ImageNotFound { image: String::new(), detail };
    }
    // Its own parts cannot reach each other: nothing is wrong with the container, whatever else the words say.
    if !is_of_runc(&lower) && says(&["dial unix", "transport is closing", "transport: ", "ttrpc: closed"]) {
        return RuntimeError::Engine { what, detail };
    }
    if what == "start a container" {
        if says(&["cannot mkdir", "cwd", "chdir"]) {
            return RuntimeError::InvalidSpec { detail };
        }
        if says(&["executable file not found", "no such file or directory", "exec: "]) && !says(&["permission denied"])
        {
            return RuntimeError::CommandNotFound { detail };
        }
        if says(&["permission denied", "exec format error", "is a directory"]) {
            return RuntimeError::CommandNotExecutable { detail };
        }
    }
    if what == "create a container" && says(&["cannot mkdir"]) {
        return RuntimeError::InvalidSpec { detail };
    }
    if status == 400 && matches!(what, "create a container" | "start a container") {
        return RuntimeError::InvalidSpec { detail };
    }
    RuntimeError::Engine { what, detail }
}

/// Whether it is what runc says of one container, quoting what the job wrote, and not the engine of itself.
fn is_of_runc(lower: &str) -> bool {
    let before_quotes = lower.split(['"', '\'']).next().unwrap_or_default();
    before_quotes.contains("oci runtime create failed")
}

/// What the engine says, as an answer or in place of a command's output, when it could not begin the command at all.
pub(super) fn from_exec(message: &str) -> Option<RuntimeError> {
    let words = message.strip_prefix("OCI runtime exec failed: ").or_else(|| message.strip_prefix("crun: "))?;
    let program = words.split(['"', '`']).nth(1).unwrap_or("it").to_owned();
    // What is quoted is the renter's own words.
    let plain = words.replace(&program, "").to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| plain.contains(word));
    Some(if says(&["cwd", "chdir"]) {
        RuntimeError::InvalidSpec { detail: "the working directory is not in the container".to_owned() }
    } else if says(&["permission denied", "exec format error", "is a directory"]) {
        RuntimeError::CommandNotExecutable { detail: program }
    } else if says(&["not found", "no such file or directory"]) {
        RuntimeError::CommandNotFound { detail: program }
    } else {
        RuntimeError::Engine {
            what: "run a command",
            detail: words.trim_end().trim_end_matches(": unknown").to_owned(),
        }
    })
}

/// The engine wraps its sentences in layers of "OCI runtime create failed: … : unknown"; people need the end of it.
fn short(message: &str) -> String {
    let trimmed = message.trim().trim_end_matches(": unknown");
    trimmed.rsplit("OCI runtime create failed: ").next().unwrap_or(trimmed).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(what: &'static str, status: u16, message: &str) -> RuntimeError {
        classify("s", what, Error::DockerResponseServerError { status_code: status, message: message.to_owned() })
    }

    #[test]
    fn versions_compare_as_numbers_and_not_as_text() {
        for (found, enough) in
            [("1.41", true), ("1.53", true), ("1.9", false), ("1.40", false), ("2.0", true), ("", false)]
        {
            assert_eq!(api_is_enough(found, "1.41"), enough, "{found}");
        }
    }

    #[test]
    fn an_engine_that_breaks_down_is_not_taken_for_a_command_that_is_missing() {
        let message = "connection error: desc = \"transport: error while dialing: dial unix /run/containerd.sock: connect: \
            no such file or directory\": unavailable";
        assert!(matches!(answer("start a container", 500, message), RuntimeError::Engine { .. }));
    }

    #[test]
    fn a_full_disk_is_recognised_in_every_call() {
        for (what, message) in [
            ("create a container", "mkdir /var/lib/docker/overlay2/x-init: no space left on device"),
            ("start a container", "failed to create shim: write /run/x: no space left on device: unknown"),
        ] {
            assert!(matches!(answer(what, 500, message), RuntimeError::NoSpace { .. }), "{message}");
        }
        let pull = Error::DockerStreamError {
            error:
                "failed to register layer: Error processing tar file(exit status 1): write /f: no space left on device"
                    .into(),
        };
        let pull = from_pull("busybox", "amd64", classify("s", "pull", pull));
        assert!(matches!(pull, RuntimeError::NoSpace { .. }), "{pull}");
        assert!(pull.to_string().contains("docker system df"), "{pull}");
    }

    #[test]
    fn a_job_that_writes_an_engines_words_into_its_own_chooses_no_kind_of_failure() {
        let runc = "OCI runtime create failed: runc create failed: unable to start container process: ";
        for words in ["no space left on device", "dial unix", "transport: "] {
            let missing =
                format!("{runc}exec: \"/bin/{words}\": stat /bin/{words}: no such file or directory: unknown");
            let missing = answer("start a container", 400, &missing);
            assert!(matches!(missing, RuntimeError::CommandNotFound { .. }), "{missing:?}");
            let workdir = format!("Cannot mkdir: /bin/sh/{words} is not a directory");
            let workdir = answer("create a container", 500, &workdir);
            assert!(!matches!(workdir, RuntimeError::NoSpace { .. }), "{workdir:?}");
        }
    }

    #[test]
    fn start_errors_tell_a_missing_command_from_one_that_cannot_run() {
        let missing = "OCI runtime create failed: container_linux.go:380: starting container process caused: exec: \"nope\": executable file not found in $PATH: unknown";
        assert!(matches!(answer("start a container", 400, missing), RuntimeError::CommandNotFound { .. }));
        let locked = "OCI runtime create failed: container_linux.go:380: starting container process caused: exec: \"/etc/x\": permission denied: unknown";
        assert!(matches!(answer("start a container", 400, locked), RuntimeError::CommandNotExecutable { .. }));
        let workdir = "the working directory 'x' is invalid, it needs to be an absolute path";
        assert!(matches!(answer("create a container", 400, workdir), RuntimeError::InvalidSpec { .. }));
    }

    #[test]
    fn a_command_that_could_not_begin_in_a_container_is_told_by_its_kind_and_name() {
        let begin = "OCI runtime exec failed: exec failed: unable to start container process: ";
        let said = |words: &str| from_exec(&format!("{begin}{words}: unknown\r\n")).unwrap().to_string();
        assert_eq!(
            said(r#"exec: "permission denied": executable file not found in $PATH"#),
            "the command was not found in the image: permission denied"
        );
        assert_eq!(
            said(r#"exec: "/nope": stat /nope: no such file or directory"#),
            "the command was not found in the image: /nope"
        );
        assert_eq!(said(r#"exec: "/etc/x": permission denied"#), "the command cannot be executed: /etc/x");
        assert!(said(r#"chdir to cwd ("/no") set in config.json failed: no such file"#).contains("working directory"));
        let podman = "crun: executable file `nope` not found in $PATH: No such file or directory";
        assert!(matches!(from_exec(podman), Some(RuntimeError::CommandNotFound { .. })));
        assert!(from_exec("all is well").is_none());
        assert!(matches!(answer("run a command", 400, podman), RuntimeError::CommandNotFound { .. }));
    }

    #[test]
    fn what_leaves_the_node_names_no_address_of_the_home() {
        for (told, kept) in [
            (
                "dial tcp: lookup nas.lan on 10.255.255.53:53: no such host",
                "dial tcp: lookup nas.lan on (address): no such host",
            ),
            ("read udp 172.17.0.2:3333->192.168.1.1:53: i/o timeout", "read udp (address)->(address): i/o timeout"),
            ("dial tcp [fd00::1]:443: connect: refused", "dial tcp (address): connect: refused"),
            ("dial tcp: lookup x on [fe80::1%eth0]:53: no", "dial tcp: lookup x on (address): no"),
            ("nas.lan means 192.168.1.9.", "nas.lan means (address)."),
            ("manifest for a/b:1.2.3 at sha256:abcd not found", "manifest for a/b:1.2.3 at sha256:abcd not found"),
        ] {
            assert_eq!(without_addresses(told, "x"), kept);
        }
        let own = "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused";
        assert_eq!(without_addresses(own, "127.0.0.1:1/x:2"), own, "what the job wrote itself");
    }

    #[test]
    fn registry_answers_tell_not_found_from_not_reached() {
        let pull = |message: &str| from_pull("x/y:1", "amd64", answer("pull", 500, message));
        let missing = pull("manifest for 127.0.0.1:5000/x:1 not found: manifest unknown: manifest unknown");
        assert!(matches!(missing, RuntimeError::ImageNotFound { .. }));
        let private =
            pull("pull access denied for x/y, repository does not exist or may require 'docker login': denied");
        assert!(matches!(private, RuntimeError::ImageNotFound { .. }));
        let busy = pull(
            "toomanyrequests: You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit",
        );
        assert!(matches!(busy, RuntimeError::RegistryBusy { retry_after: None, .. }), "{busy}");
        let down = pull("Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused");
        assert!(matches!(down, RuntimeError::PullFailed { .. }));
        let other = pull("no matching manifest for linux/amd64 in the manifest list entries");
        assert!(matches!(other, RuntimeError::WrongArchitecture { .. }));
    }
}
