//! The way to an engine: which address, whether over TLS and with whose certificates, and in which version of its API.
//!
//! Invariants
//! - Over a network an engine is spoken to with TLS only, and believed only with a certificate of the authority that was named for
//!   it: whoever can reach an engine is root on its machine. Loopback is this machine.
//! - Every request names the version of the API it is written in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::{API_DEFAULT_VERSION, BollardRequest, ClientVersion, Docker};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::super::RuntimeError;
use super::{DockerOptions, errors};
use crate::os;

/// Seconds for the beginning of an answer; calls have shorter deadlines of their own.
const ANSWER_SECONDS: u64 = 120;

/// The certificates for an engine behind TLS, PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineTls {
    /// Of the authority that the engine's certificate must come from.
    pub ca: PathBuf,
    /// Ours and its key, where the engine asks who we are.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Where an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: String,
    pub(super) tls: Option<EngineTls>,
}

impl Place {
    /// What was configured, else what Docker's own variables say, else the usual place.
    pub(super) fn find(options: &DockerOptions, env: impl Fn(&str) -> Option<String>) -> Self {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let address =
            options.address.clone().or_else(|| env("DOCKER_HOST")).unwrap_or_else(|| os::ENGINE_ADDRESS.to_owned());
        let by_variable = || {
            env("DOCKER_TLS_VERIFY")?;
            let home = || env("HOME").map(|home| Path::new(&home).join(".docker"));
            let folder = env("DOCKER_CERT_PATH").map(PathBuf::from).or_else(home)?;
            let identity = Some((folder.join("cert.pem"), folder.join("key.pem")));
            Some(EngineTls { ca: folder.join("ca.pem"), identity })
        };
        let tls = if is_network(&address) { options.tls.clone().or_else(by_variable) } else { None };
        Self { address, tls }
    }

    /// Opens the way; nothing is sent yet.
    pub(super) fn open(&self) -> Result<Docker, RuntimeError> {
        let opened = match &self.tls {
            Some(tls) => return self.open_tls(tls),
            None if is_network(&self.address) && !is_loopback(&self.address) => {
                return Err(RuntimeError::EngineTls {
                    detail: format!(
                        "{} would be spoken to in the clear, and whoever listens could be root there; name its authority: \
                         ca = \"ca.pem\" under [engine]",
                        self.address
                    ),
                });
            }
            None => Docker::connect_with_host(&self.address),
        };
        opened.map_err(|error| errors::classify(&self.address, "connect", error))
    }

    fn open_tls(&self, tls: &EngineTls) -> Result<Docker, RuntimeError> {
        let config = tls_config(tls)?;
        let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // A connection for each call, as everywhere in this module: a kept one may be dead by the next call.
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector.wrap_connector(tcp));
        let send = move |request: BollardRequest| {
            let sent = client.request(request);
            Box::pin(async move { sent.await.map_err(bollard::errors::Error::from) })
        };
        let host = self.address.split_once("://").map_or(self.address.as_str(), |(_, host)| host);
        Docker::connect_with_custom_transport(
            send,
            Some(format!("https://{host}")),
            ANSWER_SECONDS,
            API_DEFAULT_VERSION,
        )
        .map_err(|error| errors::classify(&self.address, "connect", error))
    }
}

/// The same engine, spoken to in the newest version of the API that it and we know.
pub(super) fn in_version(docker: Docker, engine: &str) -> Docker {
    let newest = docker.client_version();
    let version = version_of(engine).filter(|version| *version < newest).unwrap_or(newest);
    let prefix = format!("/v{}.{}", version.major_version, version.minor_version);
    docker.with_request_modifier(move |mut request| {
        if let Some(uri) = versioned(request.uri(), &prefix) {
            *request.uri_mut() = uri;
        }
        request
    })
}

fn version_of(text: &str) -> Option<ClientVersion> {
    let (major, minor) = text.split_once('.')?;
    Some(ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? })
}

/// bollard leaves the version out of its requests, which engines take for their newest one.
fn versioned(uri: &http::Uri, prefix: &str) -> Option<http::Uri> {
    let path = uri.path_and_query()?.as_str();
    if path.starts_with("/v1.") {
        return None;
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{prefix}{path}").parse().ok()?);
    http::Uri::from_parts(parts).ok()
}

fn is_network(address: &str) -> bool {
    ["tcp://", "http://", "https://"].iter().any(|scheme| address.starts_with(scheme))
}

fn is_loopback(address: &str) -> bool {
    let url = url::Url::parse(&address.replacen("tcp://", "http://", 1));
    url.is_ok_and(|url| match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    })
}

fn tls_config(tls: &EngineTls) -> Result<ClientConfig, RuntimeError> {
    let bad = |file: &Path, why: &dyn std::fmt::Display| RuntimeError::EngineTls {
        detail: format!("{} cannot be used ({why}); it must be a PEM file", file.display()),
    };
    let certificates = |file: &Path| {
        let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        read.map_err(|why| bad(file, &why))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca)? {
        roots.add(certificate).map_err(|why| bad(&tls.ca, &why))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| bad(&tls.ca, &why))?
        .with_root_certificates(roots);
    match &tls.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|why| bad(key, &why))?;
            builder.with_client_auth_cert(certificates(cert)?, secret).map_err(|why| bad(key, &why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(address: Option<&str>, tls: Option<EngineTls>, env: &[(&str, &str)]) -> Place {
        let options = DockerOptions { address: address.map(str::to_owned), tls, ..DockerOptions::default() };
        Place::find(&options, |name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_engine_is_where_the_configuration_then_docker_then_custom_says() {
        assert_eq!(find(Some("unix:///a"), None, &[("DOCKER_HOST", "unix:///b")]).address, "unix:///a");
        assert_eq!(find(None, None, &[("DOCKER_HOST", "unix:///b")]).address, "unix:///b");
        assert_eq!(find(None, None, &[("DOCKER_HOST", "")]).address, os::ENGINE_ADDRESS);
        let secure = [("DOCKER_TLS_VERIFY", "1"), ("HOME", "/home/me")];
        assert_eq!(find(Some("tcp://pc:2376"), None, &secure).tls.unwrap().ca, Path::new("/home/me/.docker/ca.pem"));
        let named = [("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/certs")];
        let tls = find(Some("tcp://pc:2376"), None, &named).tls.unwrap();
        assert_eq!(tls.identity, Some(("/certs/cert.pem".into(), "/certs/key.pem".into())));
        assert_eq!(find(None, None, &secure).tls, None, "a socket has no certificate");
    }

    #[test]
    fn an_engine_on_another_machine_is_never_spoken_to_in_the_clear() {
        for address in [
            "tcp://192.168.1.5:2375",
            "http://engine:2375",
            "tcp://[2001:db8::1]:2375",
            "tcp://127.0.0.1.evil.example:2375",
        ] {
            let error = find(Some(address), None, &[]).open().unwrap_err();
            assert!(
                matches!(error, RuntimeError::EngineTls { .. }) && error.to_string().contains("[engine]"),
                "{error}"
            );
        }
        for address in ["tcp://127.0.0.1:2375", "tcp://localhost:2375", "tcp://[::1]:2375"] {
            assert!(find(Some(address), None, &[]).open().is_ok(), "{address}");
        }
    }

    #[test]
    fn requests_name_the_older_of_both_versions() {
        let uri = |text: &str| text.parse::<http::Uri>().unwrap();
        assert_eq!(versioned(&uri("http://h/info?a=b"), "/v1.41"), Some(uri("http://h/v1.41/info?a=b")));
        assert_eq!(versioned(&uri("http://h/v1.40/info"), "/v1.41"), None);
        let parsed = |text: &str| version_of(text).map(|version| (version.major_version, version.minor_version));
        assert_eq!(parsed("1.41"), Some((1, 41)));
        assert_eq!(parsed("new"), None);
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let tls = EngineTls { ca: "/nowhere/ca.pem".into(), identity: None };
        assert!(tls_config(&tls).unwrap_err().to_string().contains("/nowhere/ca.pem"));
        let ca = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        std::fs::write(file.path(), ca.cert.pem()).unwrap();
        let tls =
            EngineTls { ca: file.path().to_owned(), identity: Some(("/nowhere/c".into(), "/nowhere/key".into())) };
        assert!(tls_config(&tls).unwrap_err().to_string().contains("/nowhere/key"));
        assert!(tls_config(&EngineTls { identity: None, ..tls }).is_ok());
    }
}
