//! Servers that are no good coordinator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum_server::tls_rustls::RustlsConfig;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A TLS server on loopback with a CA of its own.
pub(crate) struct BadServer {
    pub(crate) url: String,
    pub(crate) ca_pem: Vec<u8>,
    _task: JoinSet<()>,
}

/// Until when its certificate is valid.
pub(crate) enum Validity {
    Now,
    Past,
}

/// Answers every call with this.
pub(crate) async fn answering(status: StatusCode, body: &'static str, validity: Validity) -> BadServer {
    let (ca_pem, config) = certificate(&validity);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(move || async move { (status, body) });
    let server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(Arc::new(config))).unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        server.serve(app.into_make_service()).await.unwrap();
    });
    BadServer { url, ca_pem, _task: task }
}

fn certificate(validity: &Validity) -> (Vec<u8>, rustls::ServerConfig) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    if matches!(validity, Validity::Past) {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    }
    let cert = params.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    (ca_cert.pem().into_bytes(), config)
}

/// A relay on loopback that holds every piece back for a while, and can be cut like a cable.
pub(crate) struct Relay {
    pub(crate) url: String,
    address: SocketAddr,
    to: SocketAddr,
    delay: Duration,
    task: JoinSet<()>,
}

pub(crate) async fn relay(to: SocketAddr, delay: Duration) -> Relay {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut relay = Relay { url: format!("https://{address}"), address, to, delay, task: JoinSet::new() };
    relay.listen(listener);
    relay
}

impl Relay {
    /// Nothing passes any more, and what was connected is cut off.
    pub(crate) async fn cut(&mut self) {
        self.task.shutdown().await;
    }

    pub(crate) async fn mend(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.listen(listener);
    }

    fn listen(&mut self, listener: TcpListener) {
        let (to, delay) = (self.to, self.delay);
        self.task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(async move {
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                    tokio::join!(pass(near_read, far_write, delay), pass(far_read, near_write, delay));
                });
            }
        });
    }
}

async fn pass(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, delay: Duration) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        tokio::time::sleep(delay).await;
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
