//! Starting, serving and stopping.
//!
//! Invariants
//! - When [`start`] returns, the coordinator answers; when it fails, nothing of it is left running.
//! - Stopping: `/readyz` says no, waiting calls are released, open requests finish within the deadline, then the background
//!   tasks write down what they hold, then the database is closed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use hyper_util::rt::TokioTimer;
use thiserror::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::files::{FileError, FolderLock, lock_folder, make_private_folder, read_secret, write_secret};
use super::layers::{RateLimits, guard, method_not_allowed, not_found};
use super::liveness::Liveness;
use super::metrics::Metrics;
use super::outputs::Outputs;
use super::relay::Relay;
use super::secrets::{SecretKind, random_bytes, sha256};
use super::store::{Store, StoreError};
use super::tls::{CertificateSource, TlsError};
use super::verify::rounds::Rounds;
use super::wake::Wake;
use super::{App, AppState, CoordinatorConfig, api, janitor, reconcile, verify};
use crate::clock::Clock;
use crate::wire::Secret;

type Handle = axum_server::Handle<SocketAddr>;

const HEADER_TIME_MAX: Duration = Duration::from_secs(15);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// Read ahead of a slow reader at most, and so the most that a request's head may have.
const HTTP1_BUFFER_BYTES: usize = 64 << 10;
const BACKGROUND_STOP_MAX: Duration = Duration::from_secs(10);

/// Why a coordinator does not start, or stopped by itself.
#[derive(Debug, Error)]
pub enum CoordinatorError {
    /// The configuration contradicts itself.
    #[error("the coordinator's configuration is not valid: {what}")]
    Config {
        /// What and how to mend it.
        what: String,
    },
    /// A file of the data folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another program listens there.
    #[error(
        "port {port} on {ip} is taken by another program; see which with `ss -ltnp 'sport = :{port}'`, or choose another \
         with --listen {ip}:{next}",
        ip = address.ip(), port = address.port(), next = address.port().wrapping_add(1).max(1024)
    )]
    PortTaken {
        /// Where.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; choose an address of this machine and a port from 1024 up with --listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server broke.
    #[error("the coordinator's server stopped by itself")]
    Server(#[source] io::Error),
}

/// A coordinator that answers. Dropping it stops it at once, without draining.
#[must_use]
pub struct Running {
    app: App,
    address: SocketAddr,
    ca_pem: Option<String>,
    admin_token: Secret,
    handle: Handle,
    server: AbortOnDropHandle<io::Result<()>>,
    background: JoinSet<()>,
    stop_background: CancellationToken,
    // Declared last, so given up last.
    _lock: FolderLock,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for clients.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.app.public_url
    }

    /// The authority that clients must pin; `None` when the certificate comes from files.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// The operator's credential.
    #[must_use]
    pub fn admin_token(&self) -> &Secret {
        &self.admin_token
    }

    /// The shared state.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Waits until the server stops by itself, which it should not.
    pub async fn failed(&mut self) -> CoordinatorError {
        let ended = (&mut self.server).await;
        CoordinatorError::Server(
            ended
                .map_err(io::Error::other)
                .and_then(|end| end)
                .err()
                .unwrap_or_else(|| io::Error::other("it ended without being asked")),
        )
    }

    /// Drains and stops. Open requests get `deadline` to finish.
    pub async fn shutdown(mut self, deadline: Duration) {
        self.app.stopping.cancel();
        self.handle.graceful_shutdown(Some(deadline));
        let mut again = tokio::time::interval(Duration::from_millis(50));
        let give_up = tokio::time::sleep(deadline.saturating_add(Duration::from_secs(1)));
        tokio::pin!(give_up);
        loop {
            tokio::select! {
                _ = &mut self.server => break,
                () = &mut give_up => break,
                // The wish reaches only who is waiting for it at that moment, so it is repeated.
                _ = again.tick() => self.handle.graceful_shutdown(Some(deadline)),
            }
        }
        self.stop_background.cancel();
        let all_joined = async { while self.background.join_next().await.is_some() {} };
        if tokio::time::timeout(BACKGROUND_STOP_MAX, all_joined).await.is_err() {
            tracing::warn!("background tasks did not end in time and are cut off");
        }
        self.app.store.close().await;
    }
}

/// Runs a coordinator until `shutdown` is cancelled, then drains it. `ready` is called once it answers.
///
/// # Errors
/// [`CoordinatorError`] when it cannot start or its server breaks.
pub async fn serve(
    config: CoordinatorConfig,
    clock: Clock,
    shutdown: CancellationToken,
    ready: impl FnOnce(&Running),
) -> Result<(), CoordinatorError> {
    let deadline = Duration::from_secs(config.drain_deadline_seconds);
    let mut running = start(config, clock).await?;
    ready(&running);
    tokio::select! {
        () = shutdown.cancelled() => {}
        error = running.failed() => return Err(error),
    }
    tracing::info!(deadline_seconds = deadline.as_secs(), "draining");
    running.shutdown(deadline).await;
    tracing::info!("stopped");
    Ok(())
}

/// Starts a coordinator: folder, keys, database, certificate, listener, background tasks.
///
/// # Errors
/// [`CoordinatorError`], each saying what to do.
pub async fn start(config: CoordinatorConfig, clock: Clock) -> Result<Running, CoordinatorError> {
    config.check().map_err(|what| CoordinatorError::Config { what })?;
    make_private_folder(&config.data_dir)?;
    let lock = lock_folder(&config.data_dir)?;
    let certificates = CertificateSource::open(&config, clock.now())?;
    let tls = certificates.issue(clock.now())?;
    let admin_token = admin_token(&config)?;
    let receipt_key = receipt_key(&config)?;
    let listener = listen(config.listen)?;
    let listen_error = |source| CoordinatorError::Listen { address: config.listen, source };
    let address = listener.local_addr().map_err(listen_error)?;
    let store = Store::open(&config.database_path()).await?;
    let app = Arc::new(AppState {
        public_url: public_url(&config, address)?,
        outputs: Outputs::open(&config)?,
        liveness: Liveness::default(),
        wake: Wake::default(),
        relay: Arc::new(Relay::default()),
        rounds: Rounds::default(),
        examiners: verify::drive::examiners(),
        metrics: Metrics::default(),
        limits: RateLimits::new(&config),
        admin_token_sha256: sha256(admin_token.expose()),
        stopping: CancellationToken::new(),
        store,
        clock,
        config,
        receipt_key,
    });
    let stop_background = CancellationToken::new();
    let mut background = reconcile::spawn_background(&app, &stop_background);
    let ca_pem = certificates.ca_pem().map(str::to_owned);
    let rustls = RustlsConfig::from_config(tls.config);
    background.spawn(janitor::clean(Arc::clone(&app), stop_background.clone()));
    background.spawn(verify::drive::run(Arc::clone(&app), stop_background.clone()));
    let renewal = janitor::renew(certificates, tls.renew_at, rustls.clone(), app.clock.clone());
    let stop = stop_background.clone();
    background.spawn(async move { stop.run_until_cancelled(renewal).await.unwrap_or(()) });
    let handle = Handle::new();
    let server = spawn_server(listener, rustls, handle.clone(), router(&app))
        .map_err(|source| CoordinatorError::Listen { address, source })?;
    tracing::info!(%address, url = %app.public_url, "the coordinator answers");
    Ok(Running { app, address, ca_pem, admin_token, handle, server, background, stop_background, _lock: lock })
}

fn router(app: &App) -> Router {
    let (routes, _document) = api::routes().split_for_parts();
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(app), guard))
        .with_state(Arc::clone(app))
}

fn spawn_server(
    listener: TcpListener,
    rustls: RustlsConfig,
    handle: Handle,
    router: Router,
) -> io::Result<AbortOnDropHandle<io::Result<()>>> {
    let acceptor = RustlsAcceptor::new(rustls).acceptor(NoDelayAcceptor::new());
    let mut server = axum_server::from_tcp(listener)?.acceptor(acceptor).handle(handle);
    let builder = server.http_builder();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME_MAX).max_buf_size(HTTP1_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    Ok(AbortOnDropHandle::new(tokio::spawn(server.serve(service))))
}

fn listen(address: SocketAddr) -> Result<TcpListener, CoordinatorError> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            CoordinatorError::PortTaken { address }
        } else {
            CoordinatorError::Listen { address, source }
        }
    })
}

fn public_url(config: &CoordinatorConfig, address: SocketAddr) -> Result<Url, CoordinatorError> {
    if let Some(url) = &config.public_url {
        return Ok(url.clone());
    }
    if address.ip().is_unspecified() && config.hostnames.is_empty() {
        tracing::warn!("listening on every address without a public_url: other machines will be shown 127.0.0.1");
    }
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    let host = match (config.hostnames.first(), ip) {
        (Some(name), _) => name.clone(),
        (None, IpAddr::V4(v4)) => v4.to_string(),
        (None, IpAddr::V6(v6)) => format!("[{v6}]"),
    };
    Url::parse(&format!("https://{host}:{}", address.port()))
        .map_err(|_| CoordinatorError::Config { what: format!("'{host}' in hostnames is no host name") })
}

/// The operator's token; made at the first start.
fn admin_token(config: &CoordinatorConfig) -> Result<Secret, FileError> {
    let path = config.data_dir.join("admin.token");
    match read_secret(&path)? {
        Some(text) if SecretKind::Admin.claims(text.trim()) => Ok(Secret::new(text.trim())),
        Some(_) => Err(FileError::Damaged { path }),
        None => {
            let token = SecretKind::Admin.generate();
            write_secret(&path, &format!("{}\n", token.expose()))?;
            Ok(token)
        }
    }
}

/// The key that signs receipts; made at the first start.
fn receipt_key(config: &CoordinatorConfig) -> Result<SigningKey, FileError> {
    let path = config.data_dir.join("receipts.key");
    if let Some(pem) = read_secret(&path)? {
        return SigningKey::from_pkcs8_pem(&pem).map_err(|_| FileError::Damaged { path });
    }
    let key = SigningKey::from_bytes(&random_bytes::<32>());
    let pem = key
        .to_pkcs8_pem(ed25519_dalek::pkcs8::spki::der::pem::LineEnding::LF)
        .map_err(|error| FileError::Write { path: path.clone(), source: io::Error::other(error) })?;
    write_secret(&path, &pem)?;
    Ok(key)
}
