//! What the node asks image registries itself, beside the engine's pulls: what a tag means, whether a job may have an image,
//! and who signed it.
//!
//! Follows the distribution specification (<https://github.com/opencontainers/distribution-spec>) and its token
//! authentication (<https://distribution.github.io/distribution/spec/auth/token/>).
//!
//! Invariants
//! - A registry at a private address is not asked, unless the owner named it: image names come from strangers.
//! - A login goes to its registry and to the token server that this registry names, and only over TLS; to this machine itself
//!   plain HTTP will do, as for Docker.
//! - No error text holds a login.

use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::http::public::{Answer, PublicError, PublicHttp, Reach, secret_header};
use crate::runtime::images::cosign::{PAYLOAD_TYPE, SIGNATURE_ANNOTATION, signature_tag};
use crate::runtime::images::{DOCKER_HUB, Reference, is_digest};
use crate::wire::job::RegistryLogin;

/// Where Docker Hub's registry answers.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const DEADLINE: Duration = Duration::from_secs(30);
const TOKEN_BYTES_MAX: usize = 256 << 10;
const MANIFEST_BYTES_MAX: usize = 4 << 20;
const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// So many signatures of an image are looked at.
const SIGNATURES_MAX: usize = 64;

/// Why a registry gives no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RegistryError {
    /// No such image, or not for this login.
    Denied(String),
    /// Not now.
    Busy { detail: String, retry_after: Option<Duration> },
    /// It is where strangers have no business.
    NotPublic(String),
    /// It cannot be asked. The engine may know a way: a proxy, an authority of its own.
    Unreachable(String),
}

/// A signature as the registry keeps it.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) payload: Bytes,
    /// Base64.
    pub(super) signature: String,
}

/// One image and who asks for it.
pub(super) struct Ask<'a> {
    pub(super) image: &'a Reference,
    pub(super) login: Option<&'a RegistryLogin>,
    /// Whether the owner named this registry himself.
    pub(super) trusted: bool,
}

/// The way to registries. Connections are made when they are first needed.
#[derive(Debug)]
pub(super) struct Registries {
    reach: Reach,
    strangers: OnceLock<PublicHttp>,
    named: OnceLock<PublicHttp>,
}

impl Registries {
    pub(super) fn new(reach: Reach) -> Self {
        Self { reach, strangers: OnceLock::new(), named: OnceLock::new() }
    }

    /// The digest of what an image's name means now, if whoever asks may have it.
    pub(super) async fn resolve(&self, ask: &Ask<'_>) -> Result<String, RegistryError> {
        let url = manifest_url(ask.image, ask.image.version())?;
        let answer = self.send(ask, Method::HEAD, &url).await?;
        match ask.image.digest().or_else(|| answer.header(&CONTENT_DIGEST)).filter(|digest| is_digest(digest)) {
            Some(digest) => Ok(digest.to_owned()),
            None => Err(RegistryError::Unreachable("the registry does not tell the image's digest".to_owned())),
        }
    }

    /// The signatures that are kept beside an image's digest; none when there are none.
    pub(super) async fn signatures(&self, ask: &Ask<'_>, digest: &str) -> Result<Vec<Signature>, RegistryError> {
        let url = manifest_url(ask.image, &signature_tag(digest))?;
        let answer = match self.send(ask, Method::GET, &url).await {
            Ok(answer) => answer,
            Err(RegistryError::Denied(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let bytes = answer.whole(MANIFEST_BYTES_MAX).await.map_err(of_http)?;
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for layer in manifest.layers.into_iter().take(SIGNATURES_MAX) {
            let Some(signature) = layer.annotations.get(SIGNATURE_ANNOTATION) else { continue };
            if layer.media_type == PAYLOAD_TYPE && is_digest(&layer.digest) {
                let payload = self.blob(ask, &layer.digest).await?;
                found.extend(payload.map(|payload| Signature { payload, signature: signature.clone() }));
            }
        }
        Ok(found)
    }

    async fn blob(&self, ask: &Ask<'_>, digest: &str) -> Result<Option<Bytes>, RegistryError> {
        let url = registry_url(ask.image, &format!("blobs/{digest}"))?;
        let answer = match self.send(ask, Method::GET, &url).await {
            Ok(answer) => answer,
            Err(RegistryError::Denied(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = match answer.whole(PAYLOAD_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(PublicError::TooLarge { .. }) => return Ok(None),
            Err(error) => return Err(of_http(error)),
        };
        let is_it = format!("sha256:{}", hex::encode(Sha256::digest(&bytes))) == digest;
        Ok(is_it.then_some(bytes))
    }

    /// Asks, with a token or login where the registry wants one.
    async fn send(&self, ask: &Ask<'_>, method: Method, url: &Url) -> Result<Answer, RegistryError> {
        let http = self.http(ask.trusted)?;
        let talk = async {
            let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(MANIFEST_TYPES))]);
            let first = http.follow(method.clone(), url, headers.clone()).await.map_err(of_http)?;
            if first.status() != http::StatusCode::UNAUTHORIZED {
                return accepted(first);
            }
            let challenge = first.header(&WWW_AUTHENTICATE).unwrap_or_default().to_owned();
            if let Some(authorization) = authorization(&http, ask, &challenge).await? {
                headers.insert(AUTHORIZATION, authorization);
            }
            accepted(http.follow(method, url, headers).await.map_err(of_http)?)
        };
        let late = || RegistryError::Unreachable(format!("no answer within {} s", DEADLINE.as_secs()));
        tokio::time::timeout(DEADLINE, talk).await.map_err(|_| late())?
    }

    fn http(&self, trusted: bool) -> Result<PublicHttp, RegistryError> {
        let made = if trusted { made_once(&self.named, Reach::Anywhere) } else { self.strangers() };
        made.map_err(of_http)
    }

    /// For addresses that strangers name.
    pub(super) fn strangers(&self) -> Result<PublicHttp, PublicError> {
        made_once(&self.strangers, self.reach)
    }
}

fn made_once(cell: &OnceLock<PublicHttp>, reach: Reach) -> Result<PublicHttp, PublicError> {
    if let Some(http) = cell.get() {
        return Ok(http.clone());
    }
    let made = PublicHttp::new(reach)?;
    Ok(cell.get_or_init(|| made).clone())
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: std::collections::HashMap<String, String>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

/// What to answer to a registry's challenge; nothing when there is nothing to say.
async fn authorization(
    http: &PublicHttp,
    ask: &Ask<'_>,
    challenge: &str,
) -> Result<Option<HeaderValue>, RegistryError> {
    let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Ok(ask.login.and_then(basic));
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let unusable = || RegistryError::Unreachable("the registry asks for a login in a way that is not known".to_owned());
    let mut realm = parameter(parameters, "realm").and_then(|realm| Url::parse(&realm).ok()).ok_or_else(unusable)?;
    {
        let mut query = realm.query_pairs_mut();
        if let Some(service) = parameter(parameters, "service") {
            query.append_pair("service", &service);
        }
        query.append_pair("scope", &format!("repository:{}:pull", ask.image.repository()));
    }
    let mut headers = HeaderMap::new();
    let private = realm.scheme() == "https" || realm.host_str().is_some_and(is_this_machine);
    if let Some(login) = ask.login.filter(|_| private).and_then(basic) {
        headers.insert(AUTHORIZATION, login);
    }
    let answer = accepted(http.follow(Method::GET, &realm, headers).await.map_err(of_http)?)?;
    let bytes = answer.whole(TOKEN_BYTES_MAX).await.map_err(of_http)?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| unusable())?;
    Ok(secret_header(&format!("Bearer {}", token.token)))
}

fn basic(login: &RegistryLogin) -> Option<HeaderValue> {
    let pair = format!("{}:{}", login.username, login.password.expose());
    secret_header(&format!("Basic {}", STANDARD.encode(pair)))
}

/// The value of `name="…"` in a challenge.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    while let Some((key, after)) = rest.split_once('=') {
        let quoted = after.strip_prefix('"').and_then(|after| after.split_once('"'));
        let (value, next) = quoted.unwrap_or_else(|| after.split_once(',').unwrap_or((after, "")));
        if key.trim_matches([' ', ',']).eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = next;
    }
    None
}

fn accepted(answer: Answer) -> Result<Answer, RegistryError> {
    let status = answer.status();
    match status.as_u16() {
        200..=299 => Ok(answer),
        401 => Err(RegistryError::Denied("the registry asks for a login that may have it".to_owned())),
        403 => Err(RegistryError::Denied("the registry does not give it to this login".to_owned())),
        404 => Err(RegistryError::Denied("the registry has no such image".to_owned())),
        429 => {
            let seconds = answer.header(&RETRY_AFTER).and_then(|text| text.trim().parse().ok());
            let retry_after = seconds.map(Duration::from_secs);
            Err(RegistryError::Busy { detail: "it answers 429 Too Many Requests".to_owned(), retry_after })
        }
        _ => Err(RegistryError::Unreachable(format!("the registry answers {status}"))),
    }
}

fn of_http(error: PublicError) -> RegistryError {
    match error {
        error @ PublicError::NotPublic { .. } => RegistryError::NotPublic(format!(
            "{error}, and this node's owner has not named that registry in images.allow"
        )),
        error @ (PublicError::BadUrl { .. }
        | PublicError::Unreachable { .. }
        | PublicError::TooManyRedirects { .. }
        | PublicError::TooLarge { .. }
        | PublicError::Setup(_)) => RegistryError::Unreachable(error.to_string()),
    }
}

fn manifest_url(image: &Reference, version: &str) -> Result<Url, RegistryError> {
    registry_url(image, &format!("manifests/{version}"))
}

fn registry_url(image: &Reference, path: &str) -> Result<Url, RegistryError> {
    let host = if image.registry() == DOCKER_HUB { DOCKER_HUB_HOST } else { image.registry() };
    let scheme = if is_this_machine(host) { "http" } else { "https" };
    Url::parse(&format!("{scheme}://{host}/v2/{}/{path}", image.repository()))
        .map_err(|_| RegistryError::Unreachable(format!("'{host}' is no host")))
}

/// Whether a host (with or without port) is this machine's loopback, which Docker talks to without TLS.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    name == "localhost"
        || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_in_any_order_and_with_commas_inside() {
        let text = r#"realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        assert_eq!(parameter(text, "realm").as_deref(), Some("https://auth.example/token"));
        assert_eq!(parameter(text, "scope").as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(parameter(text, "service").as_deref(), Some("registry.example"));
        assert_eq!(parameter("service=x, realm=y", "realm").as_deref(), Some("y"));
        assert_eq!(parameter(text, "nothing"), None);
    }

    #[test]
    fn only_this_machine_is_asked_without_tls() {
        let url = |image: &str| manifest_url(&Reference::parse(image).unwrap(), "1").unwrap().to_string();
        assert_eq!(url("alpine"), "https://registry-1.docker.io/v2/library/alpine/manifests/1");
        assert_eq!(url("127.0.0.1:5000/a"), "http://127.0.0.1:5000/v2/a/manifests/1");
        assert_eq!(url("localhost:5000/a"), "http://localhost:5000/v2/a/manifests/1");
        assert_eq!(url("127.0.0.1.evil.example/a"), "https://127.0.0.1.evil.example/v2/a/manifests/1");
        assert_eq!(url("192.168.1.2:5000/a"), "https://192.168.1.2:5000/v2/a/manifests/1");
    }

    #[tokio::test]
    async fn a_registry_in_the_home_is_not_asked_for_strangers() {
        let registries = Registries::new(Reach::Public);
        for image in ["192.168.1.1:8123/x", "127.0.0.1:5000/x", "localhost:1/x", "[::1]:5000/x"] {
            let image = Reference::parse(image).unwrap();
            let error = registries.resolve(&Ask { image: &image, login: None, trusted: false }).await.unwrap_err();
            assert!(matches!(error, RegistryError::NotPublic(_)), "{image}: {error:?}");
        }
        let image = Reference::parse("127.0.0.1:1/x").unwrap();
        let error = registries.resolve(&Ask { image: &image, login: None, trusted: true }).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unreachable(_)), "{error:?}");
    }

    /// Answers one connection after the other and says what was asked.
    async fn server(answers: Vec<String>) -> (Reference, tokio::task::JoinHandle<Vec<String>>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                asked.push(String::from_utf8(head).unwrap());
                let answer = answer.replace("SELF", &address.to_string());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (Reference::parse(&format!("{address}/a/b:1")).unwrap(), task)
    }

    fn answer(head: &str, body: &str) -> String {
        format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn a_token_is_fetched_with_the_jobs_login_and_the_login_goes_nowhere_else() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let (image, asked) = server(vec![
            answer("401 X\r\nwww-authenticate: Bearer realm=\"http://SELF/token\",service=\"s\",scope=\"x\"", ""),
            answer("200 OK", "{\"token\": \"abc\"}"),
            answer(&format!("200 OK\r\ndocker-content-digest: {digest}"), ""),
        ])
        .await;
        let login = RegistryLogin { username: "me".into(), password: crate::wire::Secret::new("sesame") };
        let registries = Registries::new(Reach::Only("127.0.0.1".parse().unwrap()));
        let ask = Ask { image: &image, login: Some(&login), trusted: false };
        assert_eq!(registries.resolve(&ask).await.unwrap(), digest);
        let asked = asked.await.unwrap();
        assert!(asked[0].starts_with("HEAD /v2/a/b/manifests/1 ") && !asked[0].contains("authorization"));
        assert!(asked[1].starts_with("GET /token?service=s&scope=repository%3Aa%2Fb%3Apull "), "{}", asked[1]);
        assert!(asked[1].contains(&format!("Basic {}", STANDARD.encode("me:sesame"))));
        assert!(asked[2].contains("Bearer abc") && !asked[2].contains("Basic"));
    }

    #[tokio::test]
    async fn a_registry_that_has_had_enough_says_when_to_come_back() {
        for (head, wait) in
            [("429 X\r\nretry-after: 17", Some(17)), ("429 X", None), ("429 X\r\nretry-after: soon", None)]
        {
            let (image, _asked) = server(vec![answer(head, "")]).await;
            let registries = Registries::new(Reach::Only("127.0.0.1".parse().unwrap()));
            let error = registries.resolve(&Ask { image: &image, login: None, trusted: false }).await.unwrap_err();
            let RegistryError::Busy { retry_after, .. } = error else { panic!("{error:?}") };
            assert_eq!(retry_after, wait.map(Duration::from_secs), "{head}");
        }
    }
}
