//! The control socket on Linux and macOS: a unix socket of mode 0600 in the state folder.

use std::fs::Permissions;
use std::io::{Error as IoError, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::{Answer, ControlCommand, ControlError, ControlHandle, Request, Snapshot};
use crate::clock::Clock;
use crate::wire::lease::LeasePhase;

/// Longest path a socket can have on every system we run on (macOS has the shorter one).
const SOCKET_PATH_BYTES_MAX: usize = 103;
const REQUEST_BYTES_MAX: u64 = 4096;
const PEERS_MAX: usize = 32;

/// The agent's side. Dropping it removes the socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

/// A view's side: one connection, one request.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Server {
    /// Makes the socket. The caller holds the state folder's lock, so a socket that is there is left over.
    ///
    /// # Errors
    /// [`ControlError::PathTooLong`] or [`ControlError::Io`].
    pub fn bind(socket: &Path) -> Result<Self, ControlError> {
        check_length(socket)?;
        let failed = |source| ControlError::Io { socket: socket.display().to_string(), source };
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(socket).map_err(failed)?;
        let server = Self { listener, path: socket.to_owned() };
        std::fs::set_permissions(socket, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(server)
    }

    /// Answers until it is dropped.
    pub async fn run(self, handle: ControlHandle, clock: Clock) {
        let places = Arc::new(Semaphore::new(PEERS_MAX));
        let mut peers = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) if is_ours(&stream) => {
                        // Without a free place the connection is dropped: the client says that the agent does not answer.
                        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                            let (handle, clock) = (handle.clone(), clock.clone());
                            peers.spawn(async move {
                                let _place = place;
                                if let Err(error) = serve(stream, handle, &clock).await {
                                    tracing::debug!(%error, "a control client went away");
                                }
                            });
                        }
                    }
                    Ok(_) => tracing::warn!("another user tried to use the control socket"),
                    Err(error) => {
                        // Out of file descriptors, most likely; waiting is all that helps.
                        tracing::warn!(%error, "the control socket cannot accept");
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                },
                Some(_) = peers.join_next() => {}
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever comes next removes what is left, so a failure here does not matter.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Same user, or root.
fn is_ours(stream: &UnixStream) -> bool {
    let us = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == us || peer.uid() == 0)
}

async fn serve(stream: UnixStream, mut handle: ControlHandle, clock: &Clock) -> Result<(), IoError> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(REQUEST_BYTES_MAX)).read_line(&mut line).await?;
    let Ok(request) = serde_json::from_str::<Request>(&line) else {
        let why = "this version of the agent does not know that request".to_owned();
        return send(&mut writer, &Answer::Refused { why }).await;
    };
    match request {
        Request::Snapshot => {
            let snapshot = at(handle.snapshots.borrow().clone(), clock.now());
            send(&mut writer, &Answer::Snapshot { snapshot: Box::new(snapshot) }).await
        }
        Request::Watch => loop {
            let snapshot = at(handle.snapshots.borrow_and_update().clone(), clock.now());
            send(&mut writer, &Answer::Snapshot { snapshot: Box::new(snapshot) }).await?;
            if handle.snapshots.changed().await.is_err() {
                return Ok(());
            }
        },
        Request::Drain => {
            let answer = match handle.commands.try_send(ControlCommand::Drain) {
                Ok(()) => Answer::Draining,
                Err(_) => busy(),
            };
            send(&mut writer, &answer).await
        }
        Request::Prove => {
            let answer = prove(&handle).await;
            send(&mut writer, &answer).await
        }
        Request::Earnings => {
            let answer = earnings(&handle).await;
            send(&mut writer, &answer).await
        }
    }
}

/// The snapshot as it is at `now`: what runs has run on since it was taken.
fn at(mut snapshot: Snapshot, now: Timestamp) -> Snapshot {
    let passed = u64::try_from(snapshot.as_of.duration_until(now).as_millis()).unwrap_or(0);
    for lease in snapshot.leases.iter_mut().filter(|lease| lease.phase == LeasePhase::Running) {
        lease.ran_millis = lease.ran_millis.saturating_add(passed);
    }
    snapshot.as_of = now;
    snapshot
}

async fn earnings(handle: &ControlHandle) -> Answer {
    let (reply, answer) = oneshot::channel();
    if handle.commands.try_send(ControlCommand::Earnings(reply)).is_err() {
        return busy();
    }
    match answer.await {
        Ok(reply) => match reply.earnings {
            Some(earnings) => Answer::Earnings { earnings: Box::new(earnings), stale: reply.stale },
            None => Answer::Refused { why: reply.stale.unwrap_or_else(|| "nothing is known yet".to_owned()) },
        },
        Err(_) => busy(),
    }
}

async fn prove(handle: &ControlHandle) -> Answer {
    let (reply, answer) = oneshot::channel();
    if handle.commands.try_send(ControlCommand::Prove(reply)).is_err() {
        return busy();
    }
    match answer.await {
        Ok(Ok(())) => Answer::Asked,
        Ok(Err(why)) => Answer::Refused { why },
        Err(_) => busy(),
    }
}

fn busy() -> Answer {
    Answer::Refused { why: "the agent is stopping or busy; try again".to_owned() }
}

async fn send(writer: &mut OwnedWriteHalf, answer: &Answer) -> Result<(), IoError> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

impl Client {
    /// Connects to the agent behind `socket`.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`], [`ControlError::NotAllowed`], [`ControlError::PathTooLong`] or [`ControlError::Io`].
    pub async fn connect(socket: &Path) -> Result<Self, ControlError> {
        check_length(socket)?;
        let name = socket.display().to_string();
        let stream = UnixStream::connect(socket).await.map_err(|source| {
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
                ControlError::NotRunning { socket: name }
            } else if source.kind() == ErrorKind::PermissionDenied {
                ControlError::NotAllowed { socket: name }
            } else {
                ControlError::Io { socket: name, source }
            }
        })?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: BufReader::new(reader), writer })
    }

    /// Asks. Read what comes with [`Client::next`].
    ///
    /// # Errors
    /// [`ControlError::Closed`] when the agent is gone.
    pub async fn send(&mut self, request: Request) -> Result<(), ControlError> {
        let mut line = serde_json::to_vec(&request).map_err(ControlError::BadAnswer)?;
        line.push(b'\n');
        self.writer.write_all(&line).await.map_err(|_| ControlError::Closed)
    }

    /// The next answer.
    ///
    /// # Errors
    /// [`ControlError::Closed`] when none follows, [`ControlError::BadAnswer`] when it cannot be read.
    pub async fn next(&mut self) -> Result<Answer, ControlError> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).await.map_err(|_| ControlError::Closed)?;
        if read == 0 {
            return Err(ControlError::Closed);
        }
        serde_json::from_str(&line).map_err(ControlError::BadAnswer)
    }

    /// Connects, asks and reads one answer.
    ///
    /// # Errors
    /// As [`Client::connect`], [`Client::send`] and [`Client::next`].
    pub async fn ask(socket: &Path, request: Request) -> Result<Answer, ControlError> {
        let mut client = Self::connect(socket).await?;
        client.send(request).await?;
        client.next().await
    }
}

fn check_length(socket: &Path) -> Result<(), ControlError> {
    if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(ControlError::PathTooLong { socket: socket.display().to_string() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, watch};

    use super::super::{EarningsReply, first_snapshot};
    use super::*;
    use crate::wire::node::NodeState;

    struct Bench {
        socket: PathBuf,
        snapshots: watch::Sender<super::super::Snapshot>,
        commands: mpsc::Receiver<ControlCommand>,
        _dir: tempfile::TempDir,
        _task: JoinSet<()>,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let server = Server::bind(&socket).unwrap();
        let (snapshots, receiver) = watch::channel(first_snapshot("attic", "https://a", Timestamp::UNIX_EPOCH));
        let (sender, commands) = mpsc::channel(4);
        let handle = ControlHandle { snapshots: receiver, commands: sender };
        let mut task = JoinSet::new();
        task.spawn(server.run(handle, Clock::manual(Timestamp::UNIX_EPOCH)));
        Bench { socket, snapshots, commands, _dir: dir, _task: task }
    }

    #[tokio::test]
    async fn a_snapshot_comes_over_a_socket_nobody_else_may_open() {
        let bench = bench();
        let mode = std::fs::metadata(&bench.socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let Answer::Snapshot { snapshot } = Client::ask(&bench.socket, Request::Snapshot).await.unwrap() else {
            panic!("no snapshot")
        };
        assert_eq!(snapshot.name, "attic");
    }

    #[tokio::test]
    async fn watching_shows_every_later_state() {
        let bench = bench();
        let mut client = Client::connect(&bench.socket).await.unwrap();
        client.send(Request::Watch).await.unwrap();
        assert!(matches!(client.next().await.unwrap(), Answer::Snapshot { .. }));
        bench.snapshots.send_modify(|s| s.state = NodeState::Idle);
        let Answer::Snapshot { snapshot } = client.next().await.unwrap() else { panic!("no snapshot") };
        assert_eq!(snapshot.state, NodeState::Idle);
    }

    #[tokio::test]
    async fn drain_and_earnings_reach_the_driver() {
        let mut bench = bench();
        assert_eq!(Client::ask(&bench.socket, Request::Drain).await.unwrap(), Answer::Draining);
        assert!(matches!(bench.commands.recv().await, Some(ControlCommand::Drain)));
        let asked = Client::ask(&bench.socket, Request::Earnings);
        let answered = async {
            let Some(ControlCommand::Earnings(reply)) = bench.commands.recv().await else { panic!("not asked") };
            reply.send(EarningsReply { earnings: None, stale: Some("it is night".to_owned()) }).unwrap();
        };
        let (answer, ()) = tokio::join!(asked, answered);
        assert_eq!(answer.unwrap(), Answer::Refused { why: "it is night".to_owned() });
    }

    #[tokio::test]
    async fn without_an_agent_the_error_says_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = Client::connect(&dir.path().join("control.sock")).await.unwrap_err();
        assert!(error.to_string().contains("fizz up"), "{error}");
        let long = dir.path().join("x".repeat(120));
        assert!(Client::connect(&long).await.unwrap_err().to_string().contains("FIZZ_STATE_DIR"));
    }
}
