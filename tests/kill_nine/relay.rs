//! A relay between agent and coordinator that stops a large upload half-way.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// More than everything but an output comes to, and more than waits on the way: the coordinator has begun to store it.
const UPLOAD_BYTES: usize = 2_500_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// Holds the connection after so many bytes more.
    Armed(usize),
    Holding,
}

pub(crate) struct Relay {
    address: SocketAddr,
    gate: Arc<watch::Sender<Gate>>,
    server: AbortHandle,
}

impl Relay {
    pub(crate) async fn open(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(watch::channel(Gate::Open).0);
        let shared = Arc::clone(&gate);
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(serve(near, to, Arc::clone(&shared)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, gate, server: server.abort_handle() }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Holds the next output half-way.
    pub(crate) fn hold_upload(&self) {
        self.gate.send_replace(Gate::Armed(UPLOAD_BYTES));
    }

    pub(crate) async fn held(&self) {
        let mut gate = self.gate.subscribe();
        let held =
            tokio::time::timeout(crate::process_support::PATIENCE, gate.wait_for(|gate| *gate == Gate::Holding)).await;
        held.expect("the output comes").unwrap();
    }

    /// The connection that is held breaks.
    pub(crate) fn drop_held(&self) {
        self.gate.send_replace(Gate::Open);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(near: TcpStream, to: SocketAddr, gate: Arc<watch::Sender<Gate>>) {
    // Refused while the coordinator is dead: the agent sees a connection that breaks.
    let Ok(far) = TcpStream::connect(to).await else { return };
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    // When one direction ends the connection does.
    tokio::select! {
        () = up(near_read, far_write, &gate) => {}
        () = down(far_read, near_write) => {}
    }
}

async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, gate: &watch::Sender<Gate>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        if holds(gate, count) {
            let _ = gate.subscribe().wait_for(|gate| *gate != Gate::Holding).await;
            return;
        }
    }
}

async fn down(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

/// Whether the upload is to be held after these bytes.
fn holds(gate: &watch::Sender<Gate>, count: usize) -> bool {
    gate.send_if_modified(|gate| {
        if let Gate::Armed(left) = *gate {
            *gate = if count < left { Gate::Armed(left - count) } else { Gate::Holding };
        }
        *gate == Gate::Holding
    })
}
