//! HTTPS to a coordinator: trust, calls, and errors a person can act on.
//!
//! Invariants
//! - Every connection is TLS and verified; there is no switch to skip that.
//! - With a pinned CA only that CA is trusted, not the system's.
//! - Every call has a deadline; answers are read up to a size limit.
//! - Credentials travel in the `Authorization` header only, never in an address.

pub mod public;

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use url::Url;

use crate::wire::{Problem, Secret};

/// Deadline of an ordinary call.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const JSON_BYTES_MAX: usize = 16 << 20;

/// Makes ring the process's TLS cryptography. Call once before the first connection; further calls do nothing.
pub fn install_crypto_provider() {
    // An error means that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Whom to believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The authorities this machine trusts.
    System,
    /// Only this authority.
    Pinned {
        /// Its certificate as PEM.
        pem: Vec<u8>,
    },
}

/// Why a call did not succeed, in words for people.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The address is not usable.
    #[error("'{url}' is no coordinator address; write it like https://coordinator.example:8443")]
    BadUrl {
        /// As given.
        url: String,
    },
    /// The CA file is no certificate.
    #[error("the CA file holds no certificate that can be read; it must be PEM, as the coordinator's ca.pem is")]
    BadAuthority(#[source] Option<reqwest::Error>),
    /// The HTTPS client could not be set up.
    #[error("HTTPS could not be set up")]
    Setup(#[source] reqwest::Error),
    /// Nobody answers.
    #[error("the coordinator at {url} cannot be reached ({why}); check the address and your network")]
    Unreachable {
        /// Where.
        url: String,
        /// The innermost reason.
        why: String,
    },
    /// Somebody answers whom we do not believe.
    #[error("the certificate of {url} is not to be trusted: {why}")]
    BadCertificate {
        /// Where.
        url: String,
        /// What is wrong with it and what to do.
        why: String,
    },
    /// No answer in time.
    #[error("the coordinator at {url} did not answer in time; it may be overloaded, try again")]
    TimedOut {
        /// Where.
        url: String,
    },
    /// The coordinator said no, and why.
    #[error(transparent)]
    Problem(Box<Problem>),
    /// Something answers that is no coordinator.
    #[error("what answers at {url} is no Fizz coordinator: {what}")]
    Garbage {
        /// Where.
        url: String,
        /// What came.
        what: String,
    },
}

impl HttpError {
    /// The problem's code, when the coordinator itself answered.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::BadUrl { .. }
            | Self::BadAuthority(_)
            | Self::Setup(_)
            | Self::Unreachable { .. }
            | Self::BadCertificate { .. }
            | Self::TimedOut { .. }
            | Self::Garbage { .. } => None,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Garbage { .. } => true,
            Self::Problem(problem) => problem.status >= 500 || matches!(problem.status, 408 | 429),
            Self::BadUrl { .. } | Self::BadAuthority(_) | Self::Setup(_) | Self::BadCertificate { .. } => false,
        }
    }
}

/// A client of one coordinator. Clones share connections.
#[derive(Debug, Clone)]
pub struct ApiClient {
    base: Url,
    /// Whether one authority was given, instead of the machine's.
    pinned: bool,
    trust: Arc<Trust>,
    http: reqwest::Client,
}

/// One call, before it is sent.
#[derive(Debug)]
#[must_use]
pub struct Call {
    url: Url,
    pinned: bool,
    request: reqwest::RequestBuilder,
}

impl ApiClient {
    /// A client for the coordinator at `base`, which must be an `https://` address.
    ///
    /// # Errors
    /// [`HttpError::BadUrl`], [`HttpError::BadAuthority`] or [`HttpError::Setup`]; nothing is sent yet.
    pub fn new(base: &str, trust: &Trust) -> Result<Self, HttpError> {
        let url = Url::parse(base).ok().filter(|u| u.scheme() == "https" && u.has_host());
        let mut base = url.ok_or_else(|| HttpError::BadUrl { url: base.to_owned() })?;
        base.set_path("/");
        base.set_query(None);
        let http = set_up(trust, false)?;
        let pinned = matches!(trust, Trust::Pinned { .. });
        Ok(Self { base, pinned, trust: Arc::new(trust.clone()), http })
    }

    /// The same coordinator over connections of its own, one for each call that is under way: a stream whose reader is slow
    /// holds up nothing else, and nothing is read ahead of that reader.
    ///
    /// # Errors
    /// [`HttpError::Setup`] or [`HttpError::BadAuthority`].
    pub fn apart(&self) -> Result<Self, HttpError> {
        Ok(Self { http: set_up(&self.trust, true)?, ..self.clone() })
    }

    /// The coordinator's address, `https://host:port/`.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Turns an error of a stream that is being read into one a person can act on.
    #[must_use]
    pub fn classify(&self, error: &reqwest::Error) -> HttpError {
        classify(&self.base, self.pinned, error)
    }

    /// Prepares a call of `path`, which starts with `/`.
    pub fn call(&self, method: Method, path: &str) -> Call {
        let mut url = self.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
        url.set_path(path);
        url.set_query(query);
        let request = self.http.request(method, url.clone()).timeout(CALL_TIMEOUT);
        Call { url, pinned: self.pinned, request }
    }

    /// Prepares a GET.
    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// Prepares a POST.
    pub fn post(&self, path: &str) -> Call {
        self.call(Method::POST, path)
    }

    /// Prepares a PUT.
    pub fn put(&self, path: &str) -> Call {
        self.call(Method::PUT, path)
    }

    /// Prepares a DELETE.
    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }
}

impl Call {
    /// Sends a credential with it.
    pub fn bearer(mut self, token: &Secret) -> Self {
        // A credential with bytes no header can carry is sent as none: the answer is 401, which says what to do.
        if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", token.expose())) {
            value.set_sensitive(true);
            self.request = self.request.header(AUTHORIZATION, value);
        }
        self
    }

    /// Sends a header with it.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Another deadline than [`CALL_TIMEOUT`], for the whole call with its answer.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request = self.request.timeout(timeout);
        self
    }

    /// Sends a JSON body with it.
    pub fn json(mut self, body: &impl Serialize) -> Self {
        self.request = self.request.json(body);
        self
    }

    /// Sends a raw body with it.
    pub fn body(mut self, media_type: &'static str, body: impl Into<reqwest::Body>) -> Self {
        self.request = self.request.header(http::header::CONTENT_TYPE, media_type).body(body);
        self
    }

    /// Sends it and reads a JSON answer.
    ///
    /// # Errors
    /// Any [`HttpError`] of the connection; [`HttpError::Problem`] when the coordinator refuses.
    pub async fn receive<T: DeserializeOwned>(self) -> Result<T, HttpError> {
        let (url, pinned) = (self.url.clone(), self.pinned);
        let bytes = read_limited(self.open().await?, &url, pinned).await?;
        serde_json::from_slice(&bytes).map_err(|error| garbage(&url, format!("its answer cannot be read ({error})")))
    }

    /// Sends it; the answer must be a success and its body does not matter.
    ///
    /// # Errors
    /// As [`Call::receive`].
    pub async fn done(self) -> Result<(), HttpError> {
        self.open().await.map(drop)
    }

    /// Sends it and hands over the answer as soon as its head says success; for streams.
    ///
    /// # Errors
    /// As [`Call::receive`].
    pub async fn open(self) -> Result<Response, HttpError> {
        let Self { url, pinned, request } = self;
        let answer = request.send().await.map_err(|error| classify(&url, pinned, &error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        Err(refusal(&url, status, read_limited(answer, &url, pinned).await?))
    }
}

fn set_up(trust: &Trust, apart: bool) -> Result<reqwest::Client, HttpError> {
    let mut builder = reqwest::Client::builder()
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(60))
        .pool_max_idle_per_host(2)
        .user_agent(concat!("fizz/", env!("CARGO_PKG_VERSION")));
    if apart {
        builder = builder.http1_only();
    }
    if let Trust::Pinned { pem } = trust {
        let authorities =
            reqwest::Certificate::from_pem_bundle(pem).map_err(|error| HttpError::BadAuthority(Some(error)))?;
        // A text without any certificate is read as an empty bundle, which would trust nobody at all.
        if authorities.is_empty() {
            return Err(HttpError::BadAuthority(None));
        }
        builder = builder.tls_certs_only(authorities);
    }
    // What is no certificate behind its PEM is found out only here.
    builder.build().map_err(|error| match trust {
        Trust::Pinned { .. } => HttpError::BadAuthority(Some(error)),
        Trust::System => HttpError::Setup(error),
    })
}

async fn read_limited(mut answer: Response, url: &Url, pinned: bool) -> Result<Bytes, HttpError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| classify(url, pinned, &error))? {
        if body.len() + chunk.len() > JSON_BYTES_MAX {
            return Err(garbage(url, "its answer is endless".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn refusal(url: &Url, status: StatusCode, body: Bytes) -> HttpError {
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => HttpError::Problem(Box::new(problem)),
        Err(_) => garbage(url, format!("it answers {status} without saying why")),
    }
}

fn garbage(url: &Url, what: String) -> HttpError {
    HttpError::Garbage { url: origin(url), what }
}

/// Scheme, host and port: what a person needs, without paths and queries.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Turns the client's error into one a person can act on. `pinned`: one authority was given, instead of the machine's.
fn classify(url: &Url, pinned: bool, error: &reqwest::Error) -> HttpError {
    if let Some(why) = certificate_error(pinned, error) {
        return HttpError::BadCertificate { url: origin(url), why };
    }
    if error.is_timeout() {
        return HttpError::TimedOut { url: origin(url) };
    }
    let mut innermost: &dyn StdError = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    HttpError::Unreachable { url: origin(url), why: innermost.to_string() }
}

fn certificate_error(pinned: bool, error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(rustls::Error::InvalidCertificate(kind)) = find_rustls(current) {
            return Some(certificate_words(pinned, kind));
        }
        next = current.source();
    }
    None
}

/// io::Error hides what it wraps from `source()`, so look inside it too.
fn find_rustls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    let inner = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    find_rustls(inner)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls may add kinds; each has words of its own")]
fn certificate_words(pinned: bool, kind: &rustls::CertificateError) -> String {
    use rustls::CertificateError as E;
    match kind {
        E::Expired | E::ExpiredContext { .. } => {
            "it has expired, or this machine's clock is ahead; check the clock with `date`, then tell the operator"
                .into()
        }
        E::NotValidYet | E::NotValidYetContext { .. } => {
            "it is not valid yet, so this machine's clock is probably behind; check it with `date`".into()
        }
        E::UnknownIssuer if pinned => "the authority given with --ca-file, FIZZ_CA_FILE or fizz.toml did not sign it; \
             copy the coordinator's ca.pem again"
            .into(),
        E::UnknownIssuer => {
            "nobody this machine trusts has signed it; give the coordinator's ca.pem with --ca-file or FIZZ_CA_FILE"
                .into()
        }
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            "it is for another name; use the address that the coordinator's operator gave you".into()
        }
        other => format!("{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any authority at all, as PEM.
    fn authority() -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem().into_bytes()
    }

    fn client_with(base: &str, pem: &[u8]) -> Result<ApiClient, HttpError> {
        install_crypto_provider();
        ApiClient::new(base, &Trust::Pinned { pem: pem.to_vec() })
    }

    fn client(base: &str) -> Result<ApiClient, HttpError> {
        client_with(base, &authority())
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused_at_once() {
        let cut = String::from_utf8(authority()).unwrap().replace("-----END CERTIFICATE-----", "");
        let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for bad in [&b""[..], b"no certificate", cut.as_bytes(), garbage] {
            let error = client_with("https://a", bad).unwrap_err();
            assert!(matches!(error, HttpError::BadAuthority(_)), "{error:?}");
            assert!(!error.is_temporary());
        }
    }

    #[test]
    fn an_unknown_issuer_is_told_by_whom_this_machine_was_to_trust() {
        let kind = rustls::CertificateError::UnknownIssuer;
        let pinned = certificate_words(true, &kind);
        assert!(pinned.contains("did not sign it; copy the coordinator's ca.pem again"), "{pinned}");
        let system = certificate_words(false, &kind);
        assert!(system.contains("give the coordinator's ca.pem with --ca-file"), "{system}");
    }

    #[test]
    fn only_https_addresses_are_accepted() {
        for bad in ["http://127.0.0.1", "coordinator.example", "", "https://", "ftp://x"] {
            assert!(matches!(client(bad), Err(HttpError::BadUrl { .. })), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable_and_temporary() {
        let client = client("https://127.0.0.1:1").unwrap();
        let error = client.get("/healthz").done().await.unwrap_err();
        assert!(matches!(error, HttpError::Unreachable { .. }), "{error}");
        assert!(error.is_temporary());
        assert!(error.to_string().contains("https://127.0.0.1:1"), "{error}");
    }
}
