//! HTTP to places that strangers name: public addresses only, so that nobody reaches the owner's home through us.
//!
//! Invariants
//! - A name is resolved here, its addresses are checked, and the connection goes to exactly those: no rebinding.
//! - The system's proxy is not used; it could reach what we may not.
//! - Redirects are never followed by the client: each hop is a request of its own, checked like the first, at most
//!   [`REDIRECTS_MAX`], and a credential goes to its own origin only.
//! - Nothing waits for ever: connecting and every piece of an answer have a deadline.

mod addresses;

use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode};
use thiserror::Error;
use url::{Host, Url};

/// Most redirects that are followed.
pub const REDIRECTS_MAX: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence within an answer.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How far requests may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses only.
    Public,
    /// This address and no other; for tests.
    Only(IpAddr),
    /// Everywhere: for addresses that the owner named himself.
    Anywhere,
}

impl Reach {
    fn includes(self, address: IpAddr) -> bool {
        match self {
            Self::Public => addresses::is_strangers(address),
            Self::Only(other) => address == other,
            Self::Anywhere => true,
        }
    }
}

/// A client for addresses that strangers name. Clones share connections.
#[derive(Debug, Clone)]
pub struct PublicHttp {
    client: reqwest::Client,
    reach: Reach,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum PublicError {
    /// The address is no `http://` or `https://` address.
    #[error("'{url}' is no http or https address")]
    BadUrl {
        /// As given, shortened.
        url: String,
    },
    /// It leads to where strangers have no business. Where exactly is not said: it would tell strangers what names mean in this
    /// home.
    #[error("{host} is not a public address")]
    NotPublic {
        /// The host in the address.
        host: String,
    },
    /// Nobody answers.
    #[error("{host} cannot be reached: {why}")]
    Unreachable {
        /// The host in the address.
        host: String,
        /// The innermost reason.
        why: String,
    },
    /// It leads from one place to the next without end.
    #[error("{host} redirects more than {REDIRECTS_MAX} times")]
    TooManyRedirects {
        /// The host of the first address.
        host: String,
    },
    /// More came than was wanted.
    #[error("{host} answers with more than {bytes_max} bytes")]
    TooLarge {
        /// The host in the address.
        host: String,
        /// The limit.
        bytes_max: usize,
    },
    /// HTTPS could not be set up.
    #[error("HTTPS could not be set up")]
    Setup(#[source] reqwest::Error),
}

/// One answer, its body still to be read.
#[derive(Debug)]
pub struct Answer {
    response: Response,
}

impl PublicHttp {
    /// A client that goes so far.
    ///
    /// # Errors
    /// [`PublicError::Setup`].
    pub fn new(reach: Reach) -> Result<Self, PublicError> {
        super::install_crypto_provider();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_MAX)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(Duration::from_secs(10))
            .dns_resolver(Arc::new(CheckedResolver { reach }))
            .user_agent(concat!("fizz/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(PublicError::Setup)?;
        Ok(Self { client, reach })
    }

    /// One request and its answer, whatever the status; redirects are answers.
    ///
    /// # Errors
    /// [`PublicError`].
    pub async fn once(&self, method: Method, url: &Url, headers: HeaderMap) -> Result<Answer, PublicError> {
        let host = self.checked_host(url)?;
        let request = self.client.request(method, url.clone()).headers(headers);
        let response = request.send().await.map_err(|error| classify(&host, &error))?;
        Ok(Answer { response })
    }

    /// A request whose redirects are followed; each hop is checked like the first.
    ///
    /// # Errors
    /// [`PublicError`].
    pub async fn follow(&self, method: Method, url: &Url, mut headers: HeaderMap) -> Result<Answer, PublicError> {
        let mut at = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.once(method.clone(), &at, headers.clone()).await?;
            let Some(next) = answer.redirect(&at) else { return Ok(answer) };
            if next.origin() != at.origin() {
                headers.remove(AUTHORIZATION);
            }
            at = next;
        }
        Err(PublicError::TooManyRedirects { host: host_of(url) })
    }

    /// Literal addresses do not pass the resolver and are checked here.
    fn checked_host(&self, url: &Url) -> Result<String, PublicError> {
        let bad = || PublicError::BadUrl { url: url.as_str().chars().take(200).collect() };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad());
        }
        let address = match url.host().ok_or_else(bad)? {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
        };
        let host = host_of(url);
        match address {
            Some(address) if !self.reach.includes(address) => Err(PublicError::NotPublic { host }),
            Some(_) | None => Ok(host),
        }
    }
}

impl Answer {
    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// One of its headers, where it is text.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// How many bytes are announced.
    #[must_use]
    pub fn bytes_announced(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next piece of its body; nothing at the end.
    ///
    /// # Errors
    /// [`PublicError::Unreachable`] when it breaks off.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, PublicError> {
        let host = self.response.url().host_str().unwrap_or_default().to_owned();
        self.response.chunk().await.map_err(|error| classify(&host, &error))
    }

    /// Its whole body, up to a limit.
    ///
    /// # Errors
    /// [`PublicError::TooLarge`], or that it breaks off.
    pub async fn whole(mut self, bytes_max: usize) -> Result<Bytes, PublicError> {
        let mut body = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            if body.len() + piece.len() > bytes_max {
                return Err(PublicError::TooLarge { host: host_of(self.response.url()), bytes_max });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    /// Where it leads to, if it is a redirect.
    fn redirect(&self, from: &Url) -> Option<Url> {
        let follows = matches!(self.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let target = self.header(&LOCATION).filter(|_| follows)?;
        from.join(target).ok()
    }
}

/// Whether an address on the web names, in figures or as this very machine, what strangers have no business with, wherever it is tried. Names are another
/// matter: what they mean depends on who asks.
#[must_use]
pub fn names_private_address(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    match url.host() {
        Some(Host::Ipv4(address)) => !addresses::is_public(address.into()),
        Some(Host::Ipv6(address)) => !addresses::is_public(address.into()),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// A header of a request; nothing when the value cannot be one.
#[must_use]
pub fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// Finds our own refusal in what the client says, else its innermost reason. Addresses are left out: they may hold secrets.
fn classify(host: &str, error: &reqwest::Error) -> PublicError {
    let mut innermost: &(dyn StdError + 'static) = error;
    loop {
        if let Some(Refused { address }) = innermost.downcast_ref() {
            // For the owner's own log.
            tracing::info!(host, %address, "an address that a stranger named is not public");
            return PublicError::NotPublic { host: host.to_owned() };
        }
        match innermost.source() {
            Some(source) => innermost = source,
            None => break,
        }
    }
    let why = if error.is_timeout() { "no answer in time".to_owned() } else { innermost.to_string() };
    PublicError::Unreachable { host: host.to_owned(), why }
}

/// Why a name is not resolved.
#[derive(Debug, Error)]
#[error("{address} is not a public address")]
struct Refused {
    address: IpAddr,
}

/// Resolves as the system does and lets nothing through that strangers may not reach. One bad address refuses the name:
/// who mixes public and private ones is up to something.
#[derive(Debug)]
struct CheckedResolver {
    reach: Reach,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.reach;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if let Some(bad) = found.iter().find(|found| !reach.includes(found.ip())) {
                return Err(Refused { address: bad.ip() }.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
