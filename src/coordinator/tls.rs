//! The coordinator's certificate: from files, or made by its own authority.
//!
//! Invariants
//! - The own authority's key never leaves its file (mode 0600); the server's own key is never written at all.
//! - Own certificates are valid from 48 hours before they are made: a client's clock may be a day off.
//! - A server certificate is replaced long before it expires, without a restart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use super::CoordinatorConfig;
use super::files::{FileError, read_secret, write_public, write_secret};

const BACKDATED: Duration = Duration::from_secs(48 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_DAYS: u32 = 3650;
const SERVER_DAYS: u32 = 90;
const RENEW_DAYS_BEFORE: u32 = 30;

/// Why there is no certificate to serve with.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that the operator named.
    #[error("{} cannot be read; --cert-file and --key-file name the certificate chain and its key, both PEM", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not PEM, or not what it should be.
    #[error("{} holds no {what} in PEM form", path.display())]
    NotPem {
        /// Which file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
    },
    /// Only one of the two files is named.
    #[error(
        "a certificate needs its key: give both --cert-file and --key-file, or neither for the coordinator's own authority"
    )]
    HalfGiven,
    /// A name that no certificate can be made for.
    #[error("a certificate cannot be made for these names: {names}")]
    BadNames {
        /// The names.
        names: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// Certificate making failed.
    #[error("the coordinator's own certificate could not be made")]
    Making(#[source] rcgen::Error),
    /// Key and certificate do not go together, or TLS cannot use them.
    #[error("TLS cannot use the certificate and its key; check that they belong together")]
    Unusable(#[source] rustls::Error),
}

/// Where the certificate comes from.
#[derive(Debug)]
pub(crate) enum CertificateSource {
    /// Files that somebody else renews.
    Files { cert: PathBuf, key: PathBuf },
    /// Our own authority.
    Own(Box<OwnAuthority>),
}

/// An authority for this coordinator alone.
#[derive(Debug)]
pub(crate) struct OwnAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, for clients to pin.
    pub(crate) ca_pem: String,
    names: Vec<String>,
}

/// A certificate ready to serve with.
#[derive(Debug, Clone)]
pub(crate) struct ServerTls {
    /// For rustls.
    pub(crate) config: Arc<ServerConfig>,
    /// When to call [`CertificateSource::issue`] again.
    pub(crate) renew_at: Timestamp,
}

impl CertificateSource {
    /// Finds or makes what the configuration asks for.
    pub(crate) fn open(config: &CoordinatorConfig, now: Timestamp) -> Result<Self, TlsError> {
        match (&config.cert_file, &config.key_file) {
            (Some(cert), Some(key)) => Ok(Self::Files { cert: cert.clone(), key: key.clone() }),
            (None, None) => OwnAuthority::open(config, now).map(|own| Self::Own(Box::new(own))),
            (Some(_), None) | (None, Some(_)) => Err(TlsError::HalfGiven),
        }
    }

    /// The authority to pin; `None` when the certificate comes from files.
    pub(crate) fn ca_pem(&self) -> Option<&str> {
        match self {
            Self::Files { .. } => None,
            Self::Own(own) => Some(&own.ca_pem),
        }
    }

    /// A fresh certificate, or the files as they are now.
    pub(crate) fn issue(&self, now: Timestamp) -> Result<ServerTls, TlsError> {
        match self {
            Self::Files { cert, key } => {
                let tls = from_files(cert, key)?;
                // Files are read again every day, so that a renewed certificate is taken up.
                Ok(ServerTls { config: tls, renew_at: now.checked_add(DAY).unwrap_or(Timestamp::MAX) })
            }
            Self::Own(own) => own.issue(now),
        }
    }
}

impl OwnAuthority {
    fn open(config: &CoordinatorConfig, now: Timestamp) -> Result<Self, TlsError> {
        let (cert_path, key_path) = (config.data_dir.join("ca.pem"), config.data_dir.join("ca.key"));
        let (ca_pem, key) = match read_secret(&key_path)? {
            Some(key_pem) => {
                let key = KeyPair::from_pem(&key_pem).map_err(|_| FileError::Damaged { path: key_path })?;
                let read = |source| TlsError::Unreadable { path: cert_path.clone(), source };
                (fs::read_to_string(&cert_path).map_err(read)?, key)
            }
            None => {
                let key = KeyPair::generate().map_err(TlsError::Making)?;
                let certificate = ca_params(now).self_signed(&key).map_err(TlsError::Making)?;
                // The certificate first: a key without its certificate would be refused at the next start.
                write_public(&cert_path, &certificate.pem())?;
                write_secret(&key_path, &key.serialize_pem())?;
                (certificate.pem(), key)
            }
        };
        let issuer =
            Issuer::from_ca_cert_pem(&ca_pem, key).map_err(|_| FileError::Damaged { path: cert_path.clone() })?;
        Ok(Self { issuer, ca_pem, names: names(config) })
    }

    fn issue(&self, now: Timestamp) -> Result<ServerTls, TlsError> {
        let bad_names = |source| TlsError::BadNames { names: self.names.join(", "), source };
        let mut params = CertificateParams::new(self.names.clone()).map_err(bad_names)?;
        params.distinguished_name = common_name("Fizz coordinator");
        set_validity(&mut params, now, SERVER_DAYS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(TlsError::Making)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(TlsError::Making)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|what| TlsError::Unusable(rustls::Error::General(what.to_owned())))?;
        let renew_at = now.checked_add(DAY * (SERVER_DAYS - RENEW_DAYS_BEFORE)).unwrap_or(Timestamp::MAX);
        Ok(ServerTls { config: server_config(vec![certificate.der().clone()], key)?, renew_at })
    }
}

/// The names that the own certificate is for.
fn names(config: &CoordinatorConfig) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let listen = config.listen.ip();
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    let public = config.public_url.as_ref().and_then(|url| url.host_str());
    names.extend(public.map(|host| host.trim_matches(['[', ']']).to_owned()));
    names.extend(config.hostnames.iter().cloned());
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

fn ca_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("Fizz coordinator's own authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, CA_DAYS);
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From 48 hours before `now` until `days` after it.
fn set_validity(params: &mut CertificateParams, now: Timestamp, days: u32) {
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    params.not_before = now - BACKDATED;
    params.not_after = now + DAY * days;
}

fn from_files(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let read = |path: &Path| fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source });
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(cert)?).filter_map(Result::ok).collect();
    if chain.is_empty() {
        return Err(TlsError::NotPem { path: cert.to_owned(), what: "certificate" });
    }
    let key = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| TlsError::NotPem { path: key.to_owned(), what: "private key" })?;
    server_config(chain, key)
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
