//! One session: the renter's frames in, a command or a copy, its frames out.
//!
//! Invariants
//! - The last frame is an exit code or a sentence.
//! - Nothing is read ahead of whoever takes it: a slow renter slows the command, a slow command the renter.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::{ReachDeps, parcel};
use crate::http::HttpError;
use crate::runtime::{ContainerId, ContainerRuntime, ContainerStatus, Exec, ExecId, ExecSpec, RuntimeError};
use crate::wire::ReachId;
use crate::wire::job::JobSpec;
use crate::wire::logs::LogStream;
use crate::wire::reach::{PendingReach, ReachFrame, ReachKind, ReachWish, decode, encode, encode_frame};

/// Pieces on their way to the coordinator.
const PIECES_MAX: usize = 4;
/// A command that has closed its output has ended after so many looks at it, or is taken to go on in the background.
const LOOKS_MAX: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Exit code of shells for a command that is not there.
const CODE_NOT_FOUND: i32 = 127;
/// Exit code of shells for one that cannot be executed.
const CODE_NOT_EXECUTABLE: i32 = 126;

/// Where answers go; a closed one means that the session is over.
pub(super) type Answers = mpsc::Sender<Bytes>;

/// Why a session ends without an exit code, in words for the renter.
pub(super) type Sentence = String;

/// Holds one session to its end.
pub(super) async fn run(deps: ReachDeps, pending: PendingReach) -> ReachId {
    let id = pending.session_id;
    let input = match deps.client.reach_input(id).await {
        Ok(input) => input,
        Err(error) => {
            tracing::debug!(%error, session = %id, "a session could not be taken up");
            return id;
        }
    };
    tracing::info!(session = %id, lease = %pending.lease_id, "a renter reaches into a running job");
    let (answers, frames) = mpsc::channel(PIECES_MAX);
    let mut input = Input { stream: Box::pin(input), buffer: BytesMut::new(), ended: false };
    let sending = deps.client.reach_output(id, frames);
    let work = async {
        let last = match serve(&deps, &pending, &mut input, &answers).await {
            Ok(code) => ReachFrame::Exit(code),
            Err(why) => ReachFrame::Error(why),
        };
        let mut out = BytesMut::new();
        encode_frame(&last, &mut out);
        // Nobody hears it when this fails.
        let _ = answers.send(out.freeze()).await;
        drop(answers);
    };
    let (sent, ()) = tokio::join!(sending, work);
    if let Err(error) = sent {
        tracing::debug!(%error, session = %id, "a session broke off");
    }
    id
}

/// What the renter sends.
pub(super) struct Input {
    stream: Pin<Box<dyn Stream<Item = Result<Bytes, HttpError>> + Send>>,
    buffer: BytesMut,
    ended: bool,
}

impl Input {
    /// The next frame; the end of the stream is the end of input, and nothing comes after it.
    ///
    /// # Errors
    /// A sentence when the session is broken off.
    pub(super) async fn next(&mut self) -> Result<ReachFrame, Sentence> {
        loop {
            match decode(&mut self.buffer) {
                Ok(Some(ReachFrame::Error(why))) => return Err(why),
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            if self.ended {
                std::future::pending::<()>().await;
            }
            match self.stream.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(error)) => return Err(error.to_string()),
                None => {
                    self.ended = true;
                    return Ok(ReachFrame::InputEnd);
                }
            }
        }
    }
}

async fn serve(
    deps: &ReachDeps,
    pending: &PendingReach,
    input: &mut Input,
    answers: &Answers,
) -> Result<i32, Sentence> {
    if !deps.allowed {
        return Err("the owner of this node lets nobody into running jobs (sandbox.interactive = false)".to_owned());
    }
    let lease = deps.journal.lease(pending.lease_id).await.map_err(|error| error.to_string())?;
    let spec = lease.map(|lease| lease.assignment.spec).filter(|spec| spec.interactive);
    let spec = spec.ok_or("this node knows no such job that lets anybody in")?;
    let runtime = deps.runtime.borrow().clone().ok_or("the node's container engine does not answer")?;
    let container = find(deps, runtime.as_ref(), pending, &spec).await?;
    match &pending.what {
        ReachWish::Exec { command, tty, env, workdir } => {
            let exec = ExecSpec {
                command: command.clone(),
                tty: *tty,
                env: env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
                workdir: workdir.clone(),
                mark: pending.session_id.to_string(),
            };
            command_in(&runtime, &container, &exec, input, answers).await
        }
        ReachWish::CopyOut { path } => copy_out(runtime.as_ref(), &container, path, input, answers).await,
        ReachWish::CopyIn { path } => {
            let place = parcel::Place::of(&spec, pending.service.as_deref(), path)?;
            parcel::copy_in(runtime.as_ref(), &container, &place, input).await.map(|()| 0)
        }
        ReachWish::Unknown => Err("this node does not know what is wanted; its owner has to update fizz".to_owned()),
    }
}

async fn find(
    deps: &ReachDeps,
    runtime: &dyn ContainerRuntime,
    pending: &PendingReach,
    spec: &JobSpec,
) -> Result<ContainerId, Sentence> {
    let found = runtime.list(deps.node_id).await.map_err(|error| error.to_string())?;
    let main = spec.services.first().map(|service| service.name.as_str());
    let wanted = pending.service.as_deref().filter(|name| Some(*name) != main);
    let is_meant = |lease, service: Option<&str>| lease == pending.lease_id && service == wanted;
    let container = found.into_iter().find(|container| is_meant(container.lease_id, container.service.as_deref()));
    let container = container.ok_or("the job has no container on this node")?;
    match container.status {
        ContainerStatus::Running { .. } => Ok(container.id),
        ContainerStatus::Paused { .. } => Err("the job is frozen for the owner's sake; it goes on later".to_owned()),
        ContainerStatus::Created | ContainerStatus::Exited(_) => Err("the job's container does not run".to_owned()),
    }
}

/// Runs a command until it has ended and everything it wrote is handed over, or until the session is broken off.
async fn command_in(
    runtime: &Arc<dyn ContainerRuntime>,
    container: &ContainerId,
    spec: &ExecSpec,
    input: &mut Input,
    answers: &Answers,
) -> Result<i32, Sentence> {
    let Exec { id, input: stdin, mut output } = match runtime.exec(container, spec).await {
        Ok(exec) => exec,
        Err(error) => return not_begun(&error, answers).await,
    };
    let mut killer =
        Killer { runtime: Arc::clone(runtime), container: container.clone(), mark: Some(spec.mark.clone()) };
    let handing_over = async {
        while let Some(piece) = output.next().await {
            let (stream, bytes) = match piece {
                Ok(piece) => piece,
                Err(error) => return not_begun(&error, answers).await.map(Some),
            };
            let kind = match stream {
                LogStream::Stdout | LogStream::Notice => ReachKind::Stdout,
                LogStream::Stderr => ReachKind::Stderr,
            };
            answer(answers, kind, &bytes).await?;
        }
        Ok(None)
    };
    let feeding = async {
        match feed(runtime.as_ref(), &id, stdin, input).await {
            Ok(never) => match never {},
            Err(why) => why,
        }
    };
    let ended = tokio::select! {
        handed = handing_over => handed,
        why = feeding => Err(why),
        () = answers.closed() => Err("the renter went away".to_owned()),
    };
    match ended {
        Ok(Some(code)) => Ok(code),
        Ok(None) => {
            // What it left running in the background is the job's own now.
            killer.mark = None;
            exit_code(runtime.as_ref(), &id).await
        }
        Err(why) => Err(why),
    }
}

/// A command that is not there or cannot be executed ends as in a shell: with a sentence and the code that shells have for it.
async fn not_begun(error: &RuntimeError, answers: &Answers) -> Result<i32, Sentence> {
    let code = if matches!(error, RuntimeError::CommandNotFound { .. }) {
        CODE_NOT_FOUND
    } else if matches!(error, RuntimeError::CommandNotExecutable { .. }) {
        CODE_NOT_EXECUTABLE
    } else {
        return Err(error.to_string());
    };
    answer(answers, ReachKind::Stderr, format!("{error}\n").as_bytes()).await?;
    Ok(code)
}

/// Ends a command when the session lets go of it, also when its task is cut off.
struct Killer {
    runtime: Arc<dyn ContainerRuntime>,
    container: ContainerId,
    mark: Option<String>,
}

impl Drop for Killer {
    fn drop(&mut self) {
        let Some(mark) = self.mark.take() else { return };
        let (runtime, container) = (Arc::clone(&self.runtime), self.container.clone());
        let Ok(here) = tokio::runtime::Handle::try_current() else { return };
        here.spawn(async move {
            match runtime.exec_kill(&container, &mark).await {
                // It has gone with its container.
                Ok(()) | Err(RuntimeError::NoSuchContainer) => {}
                Err(error) => tracing::debug!(%error, "the command of a session could not be ended"),
            }
        });
    }
}

/// Hands input to a command. Goes on after the end of input: only a session that is broken off ends it.
async fn feed(
    runtime: &dyn ContainerRuntime,
    exec: &ExecId,
    stdin: Pin<Box<dyn AsyncWrite + Send>>,
    input: &mut Input,
) -> Result<std::convert::Infallible, Sentence> {
    let mut stdin = Some(stdin);
    loop {
        match input.next().await? {
            ReachFrame::Input(bytes) => {
                if let Some(open) = &mut stdin
                    && async {
                        open.write_all(&bytes).await?;
                        open.flush().await
                    }
                    .await
                    .is_err()
                {
                    // It reads no more; what it has to say is still worth hearing.
                    stdin = None;
                }
            }
            ReachFrame::Resize(size) => {
                // A terminal that is gone needs no size.
                let _ = runtime.exec_resize(exec, size).await;
            }
            ReachFrame::InputEnd => {
                if let Some(mut open) = stdin.take() {
                    let _ = open.shutdown().await;
                    // Kept until the end: some engines take a dropped stream for a client that is gone.
                    let held = open;
                    let why = wait_for_break(input).await;
                    drop(held);
                    return Err(why);
                }
                return Err(wait_for_break(input).await);
            }
            ReachFrame::Stdout(_) | ReachFrame::Stderr(_) | ReachFrame::Exit(_) | ReachFrame::Error(_) => {
                return Err("the renter sent what only a node sends".to_owned());
            }
        }
    }
}

/// After the end of input only a word that the session is broken off can come; its stream simply ends when all is well.
async fn wait_for_break(input: &mut Input) -> Sentence {
    loop {
        if let Err(why) = input.next().await {
            return why;
        }
    }
}

async fn exit_code(runtime: &dyn ContainerRuntime, exec: &ExecId) -> Result<i32, Sentence> {
    for _ in 0..LOOKS_MAX {
        match runtime.exec_code(exec).await {
            Ok(Some(code)) => return Ok(code),
            Ok(None) => tokio::time::sleep(LOOK_EVERY).await,
            Err(error) => return Err(format!("how the command ended is not known: {error}")),
        }
    }
    Err("the command closed its output and goes on in the background".to_owned())
}

async fn copy_out(
    runtime: &dyn ContainerRuntime,
    container: &ContainerId,
    path: &str,
    input: &mut Input,
    answers: &Answers,
) -> Result<i32, Sentence> {
    let mut pieces = runtime.archive(container, path);
    let copying = async {
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| error.to_string())?;
            answer(answers, ReachKind::Stdout, &piece).await?;
        }
        Ok(0)
    };
    tokio::select! {
        copied = copying => copied,
        why = wait_for_break(input) => Err(why),
    }
}

/// Hands bytes over in pieces of a frame each.
async fn answer(answers: &Answers, kind: ReachKind, bytes: &[u8]) -> Result<(), Sentence> {
    for piece in bytes.chunks(crate::wire::reach::REACH_FRAME_BYTES_MAX) {
        let mut out = BytesMut::with_capacity(piece.len() + crate::wire::reach::REACH_HEADER_BYTES);
        encode(kind, piece, &mut out);
        answers.send(out.freeze()).await.map_err(|_| "the renter went away".to_owned())?;
    }
    Ok(())
}
