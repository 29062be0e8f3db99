//! What a node fetches for a job: its inputs, and its image with a login. Passwords come from files, never from the command line.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::cli::errors::{CliError, Exit};
use crate::runtime::images::{DOCKER_HUB, ImageName};
use crate::wire::Secret;
use crate::wire::job::{InputSpec, RegistryLogin};

/// Largest file with logins.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What `docker login` calls Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// `URL#sha256=HEX:/path`.
///
/// # Errors
/// A sentence with what is missing.
pub fn parse_input(text: &str) -> Result<InputSpec, String> {
    let shape = || "write it like https://example.org/a.bin#sha256=HEX:/work/a.bin".to_owned();
    let (url, rest) = text.split_once("#sha256=").ok_or_else(shape)?;
    let (sha256, path) = rest.split_once(':').ok_or_else(shape)?;
    if !(url.starts_with("https://") || url.starts_with("http://")) {
        return Err(format!("'{url}' is no https:// or http:// address; {}", shape()));
    }
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("a SHA-256 has 64 hex digits; `sha256sum FILE` prints it".to_owned());
    }
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(format!("'{path}' is no absolute path of a file; {}", shape()));
    }
    let (url, path) = (url.to_owned(), path.to_owned());
    Ok(InputSpec { url, sha256: sha256.to_ascii_lowercase(), path, bytes_max: None, executable: false })
}

/// The login for `image`, out of a file with `USER:PASSWORD`, or where `docker login` keeps it; none when neither is asked for.
///
/// # Errors
/// When the file cannot be used, or holds no login for this image's registry.
pub fn login(image: &str, file: Option<&Path>, as_docker: bool) -> Result<Option<RegistryLogin>, CliError> {
    if let Some(file) = file {
        let text = read(file)?;
        let login = text.trim().split_once(':').and_then(|(user, password)| made(user, password));
        let wrong = || config(format!("the file {} must hold one line: USER:PASSWORD", file.display()));
        return login.map(Some).ok_or_else(wrong);
    }
    if !as_docker {
        return Ok(None);
    }
    let file = docker_config().ok_or_else(|| config("there is no home folder to find Docker's logins in"))?;
    from_docker(image, &file, &read(&file)?).map(Some)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: std::collections::HashMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
}

fn from_docker(image: &str, file: &Path, text: &str) -> Result<RegistryLogin, CliError> {
    let unreadable = || config(format!("{} cannot be read as Docker's configuration", file.display()));
    let found: DockerConfig = serde_json::from_str(text).map_err(|_| unreadable())?;
    let registry = match ImageName::parse(image) {
        Ok(ImageName::Reference(reference)) => reference.registry().to_owned(),
        Ok(ImageName::Id(_)) | Err(_) => return Err(config(format!("'{image}' is in no registry"))),
    };
    let mut keys = vec![registry.clone(), format!("https://{registry}"), format!("https://{registry}/v2/")];
    if registry == DOCKER_HUB {
        keys.push(DOCKER_HUB_KEY.to_owned());
    }
    let pair = keys.iter().find_map(|key| found.auths.get(key)).map(|auth| auth.auth.as_str()).unwrap_or_default();
    let decoded = STANDARD.decode(pair).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    decoded.split_once(':').and_then(|(user, password)| made(user, password)).ok_or_else(|| {
        config(format!("{} holds no login for {registry}", file.display())).next(
            "log in with `docker login`; where Docker keeps logins elsewhere, use --registry-login-file FILE instead",
        )
    })
}

fn made(user: &str, password: &str) -> Option<RegistryLogin> {
    let usable = !user.is_empty() && !password.is_empty() && !password.contains(['\n', '\r']);
    usable.then(|| RegistryLogin { username: user.to_owned(), password: Secret::new(password) })
}

fn docker_config() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let usual = || std::env::home_dir().map(|home| home.join(".docker"));
    folder.or_else(usual).map(|folder| folder.join("config.json"))
}

fn read(file: &Path) -> Result<String, CliError> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| config(format!("the file {} cannot be read", file.display())).because(error))?;
    Ok(text)
}

fn config(sentence: impl Into<String>) -> CliError {
    CliError::new(Exit::Config, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_names_where_from_what_and_where_to() {
        let sha256 = "0A".repeat(32);
        let input = parse_input(&format!("https://example.org/a?b=c:d#sha256={sha256}:/work/a:b")).unwrap();
        assert_eq!((input.url.as_str(), input.path.as_str()), ("https://example.org/a?b=c:d", "/work/a:b"));
        assert_eq!(input.sha256, "0a".repeat(32));
        for (bad, word) in [
            ("https://example.org/a".to_owned(), "write it like"),
            (format!("https://example.org/a#sha256={sha256}"), "write it like"),
            ("https://example.org/a#sha256=00:/a".to_owned(), "64 hex digits"),
            (format!("ftp://example.org/a#sha256={sha256}:/a"), "no https://"),
            (format!("https://example.org/a#sha256={sha256}:a"), "no absolute path"),
        ] {
            assert!(parse_input(&bad).unwrap_err().contains(word), "{bad}");
        }
    }

    #[test]
    fn a_login_comes_from_a_file_and_its_errors_never_show_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("login");
        std::fs::write(&file, "me:se:same\n").unwrap();
        let found = login("alpine", Some(&file), false).unwrap().unwrap();
        assert_eq!((found.username.as_str(), found.password.expose()), ("me", "se:same"));
        std::fs::write(&file, "sesame\n").unwrap();
        let error = login("alpine", Some(&file), false).unwrap_err().to_string();
        assert!(error.contains("USER:PASSWORD") && !error.contains("sesame"), "{error}");
        assert_eq!(login("alpine", None, false).unwrap(), None);
    }

    #[test]
    fn dockers_own_logins_are_found_by_registry() {
        let auth = |text: &str| STANDARD.encode(text);
        let text = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": auth("hub:one")}, "ghcr.io": {"auth": auth("me:two")}, "kept.example": {},
        }, "credsStore": "desktop"})
        .to_string();
        let find = |image: &str| from_docker(image, Path::new("config.json"), &text);
        assert_eq!(find("alpine").unwrap().password.expose(), "one");
        assert_eq!(find("ghcr.io/me/x:1").unwrap().password.expose(), "two");
        for image in ["kept.example/x", "other.example/x", &"a".repeat(64)] {
            let error = find(image).unwrap_err().to_string();
            assert!(!error.contains("one") && !error.contains("two"), "{error}");
        }
    }
}
