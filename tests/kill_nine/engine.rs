//! A unix socket in front of the Docker engine that can be cut, holds a chosen call, and counts what the engine did.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::docker_support::{TestImage, docker};
use crate::process_support::PATIENCE;

const DOCKER: &str = "/var/run/docker.sock";
const HEAD_MAX: usize = 64 << 10;

/// What can be asked of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Image,
    Create,
    Start,
    Archive,
    Remove,
}

/// Where a call is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Before the engine hears of it.
    Question,
    /// When the engine has done it, before the agent hears of that.
    Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Armed(Call, Side),
    Holding,
    Dropped,
}

/// The socket. Everything ends when it is dropped.
pub(crate) struct Engine {
    socket: PathBuf,
    shared: Arc<Shared>,
    server: Mutex<Option<AbortHandle>>,
}

struct Shared {
    gate: watch::Sender<Gate>,
    /// What the engine did: the call and the status of its answer.
    done: Mutex<Vec<(Call, u16)>>,
}

impl Engine {
    pub(crate) fn open(folder: &Path) -> Self {
        let shared = Shared { gate: watch::channel(Gate::Open).0, done: Mutex::default() };
        let engine = Self { socket: folder.join("engine.sock"), shared: Arc::new(shared), server: Mutex::new(None) };
        engine.mend();
        engine
    }

    /// For the agent's configuration.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Nobody listens any more and every connection breaks.
    pub(crate) fn cut(&self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.abort();
        }
        std::fs::remove_file(&self.socket).unwrap();
    }

    /// Listens (again).
    pub(crate) fn mend(&self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        let shared = Arc::clone(&self.shared);
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                // One that breaks is what the test asked for, or its agent was killed.
                connections.spawn(serve(near, Arc::clone(&shared)));
                while connections.try_join_next().is_some() {}
            }
        });
        *self.server.lock().unwrap() = Some(server.abort_handle());
    }

    /// Holds the next such call.
    pub(crate) fn hold(&self, call: Call, side: Side) {
        self.shared.gate.send_replace(Gate::Armed(call, side));
    }

    /// Waits until it is held.
    pub(crate) async fn held(&self) {
        let mut gate = self.shared.gate.subscribe();
        let held = tokio::time::timeout(PATIENCE, gate.wait_for(|gate| *gate == Gate::Holding)).await;
        held.expect("the call comes").unwrap();
    }

    /// The held call goes on.
    pub(crate) fn let_go(&self) {
        self.shared.gate.send_replace(Gate::Open);
    }

    /// The held call breaks off where it is.
    pub(crate) fn drop_held(&self) {
        self.shared.gate.send_replace(Gate::Dropped);
    }

    /// How often the engine did this and answered with this status.
    pub(crate) fn count(&self, call: Call, status: u16) -> usize {
        self.shared.done.lock().unwrap().iter().filter(|done| **done == (call, status)).count()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.abort();
        }
    }
}

impl Shared {
    /// Whether this call is the one to be held here. Only the first one is.
    fn takes(&self, call: Option<Call>, side: Side) -> bool {
        self.gate.send_if_modified(|gate| {
            let taken = call.is_some_and(|call| *gate == Gate::Armed(call, side));
            if taken {
                *gate = Gate::Holding;
            }
            taken
        })
    }

    /// Whether to go on.
    async fn pass(&self, call: Option<Call>, side: Side) -> bool {
        if !self.takes(call, side) {
            return true;
        }
        let mut gate = self.gate.subscribe();
        let decided = gate.wait_for(|gate| *gate != Gate::Holding).await;
        decided.is_ok_and(|gate| *gate == Gate::Open)
    }
}

/// One connection carries one call: the agent's client does not keep any.
async fn serve(mut near: UnixStream, shared: Arc<Shared>) -> std::io::Result<()> {
    let head = read_head(&mut near).await?;
    let call = call_of(&String::from_utf8_lossy(&head));
    if !shared.pass(call, Side::Question).await {
        return Ok(());
    }
    let far = UnixStream::connect(DOCKER).await?;
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    far_write.write_all(&head).await?;
    let up = async move {
        tokio::io::copy(&mut near_read, &mut far_write).await?;
        far_write.shutdown().await
    };
    let down = async move {
        let head = read_head(&mut far_read).await?;
        if let (Some(call), Some(status)) = (call, status_of(&String::from_utf8_lossy(&head))) {
            shared.done.lock().unwrap().push((call, status));
        }
        if !shared.pass(call, Side::Answer).await {
            return Ok(());
        }
        near_write.write_all(&head).await?;
        tokio::io::copy(&mut far_read, &mut near_write).await?;
        near_write.shutdown().await
    };
    // The answer's end is the end; the engine keeps its side open for calls that never come.
    let up = tokio::spawn(up);
    let result = down.await;
    up.abort();
    result
}

/// Everything up to the empty line, and what came with it.
async fn read_head(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < HEAD_MAX {
        if from.read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

fn call_of(head: &str) -> Option<Call> {
    let mut words = head.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let path = target.split('?').next()?;
    match method {
        "GET" if path.contains("/images/") && path.ends_with("/json") => Some(Call::Image),
        "POST" if path.ends_with("/containers/create") => Some(Call::Create),
        "POST" if path.ends_with("/start") => Some(Call::Start),
        "GET" if path.ends_with("/archive") => Some(Call::Archive),
        "DELETE" if path.contains("/containers/") => Some(Call::Remove),
        _ => None,
    }
}

fn status_of(head: &str) -> Option<u16> {
    head.split(' ').nth(1)?.parse().ok()
}

/// An image that all tests here use; removed when the last one lets go of it.
pub(crate) fn shared_image() -> Arc<TestImage> {
    static SHARED: Mutex<std::sync::Weak<TestImage>> = Mutex::new(std::sync::Weak::new());
    let mut shared = SHARED.lock().unwrap();
    shared.upgrade().unwrap_or_else(|| {
        let image = Arc::new(TestImage::new());
        *shared = Arc::downgrade(&image);
        image
    })
}

/// The containers of a node, in every state.
pub(crate) fn containers(node: fizz::wire::NodeId) -> Vec<String> {
    let filter = format!("label={}={node}", fizz::runtime::LABEL_NODE);
    docker(&["ps", "--all", "--quiet", "--filter", &filter]).lines().map(str::to_owned).collect()
}
