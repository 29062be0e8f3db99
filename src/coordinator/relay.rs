//! Sessions into running jobs: the renter's end and the node's end meet here, in memory.
//!
//! Invariants
//! - Nothing of a session is stored, and a session never outlives the lease it goes into.
//! - A direction holds a few frames at most: whoever writes waits for whoever reads. No session takes a megabyte.
//! - When one end goes away, the other gets a sentence and its end.
//! - Each of the four ways in is opened once. Both ends must meet at the same coordinator: with several replicas a session works
//!   only where both are sent to the same one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::problem::ApiError;
use crate::wire::reach::{PendingReach, ReachFrame, ReachFrameError, encode_frame, take_whole};
use crate::wire::{AccountId, ErrorCode, JobId, NodeId, ReachId};

/// Pieces that wait in one direction, each of at most one frame's greatest length.
const PIECES_MAX: usize = 4;
/// Sessions into one job at once.
const PER_JOB_MAX: usize = 8;
/// Sessions into one node at once.
const PER_NODE_MAX: usize = 32;
/// Sessions of all at once.
const SESSIONS_MAX: usize = 1000;
/// Time for all four ways to be opened.
const MEET_WITHIN: Duration = Duration::from_secs(30);
/// A session in which nothing moves for so long ends.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Every session there is.
#[derive(Debug, Default)]
pub(crate) struct Relay(Mutex<HashMap<ReachId, Arc<Session>>>);

/// Whose session it is and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// The renter.
    pub(crate) account_id: AccountId,
    /// The job.
    pub(crate) job_id: JobId,
    /// The node that runs it.
    pub(crate) node_id: NodeId,
    /// What the node is told.
    pub(crate) pending: PendingReach,
}

/// One of the two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the renter to the node.
    ToNode,
    /// From the node to the renter.
    ToRenter,
}

#[derive(Debug)]
struct Pipe {
    sender: Mutex<Option<mpsc::Sender<Bytes>>>,
    receiver: Mutex<Option<mpsc::Receiver<Bytes>>>,
}

impl Pipe {
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        Self { sender: Mutex::new(Some(sender)), receiver: Mutex::new(Some(receiver)) }
    }

    fn is_open(&self) -> bool {
        lock(&self.sender).is_none() && lock(&self.receiver).is_none()
    }
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    route: Route,
    to_node: Pipe,
    to_renter: Pipe,
    /// Why it is over; nothing while it goes on or when it ended as it should.
    why: OnceLock<String>,
    over: CancellationToken,
    moved: Notify,
}

impl Relay {
    /// Makes a session and watches over it until it ends. `gone` resolves, with a sentence, when the job can be reached no more.
    ///
    /// # Errors
    /// `too_many_sessions`.
    pub(crate) fn open(
        self: &Arc<Self>,
        route: Route,
        gone: impl Future<Output = String> + Send + 'static,
    ) -> Result<Arc<Session>, ApiError> {
        let id = route.pending.session_id;
        let session = Arc::new(Session {
            route,
            to_node: Pipe::new(),
            to_renter: Pipe::new(),
            why: OnceLock::new(),
            over: CancellationToken::new(),
            moved: Notify::new(),
        });
        {
            let mut sessions = lock(&self.0);
            let count = |same: fn(&Route, &Route) -> bool| {
                sessions.values().filter(|other| same(&other.route, &session.route)).count()
            };
            let (job, node) = (count(|a, b| a.job_id == b.job_id), count(|a, b| a.node_id == b.node_id));
            if job >= PER_JOB_MAX || node >= PER_NODE_MAX || sessions.len() >= SESSIONS_MAX {
                let detail = format!("the most is {PER_JOB_MAX} into one job and {PER_NODE_MAX} into one node");
                return Err(ApiError::new(ErrorCode::TooManySessions, detail));
            }
            sessions.insert(id, Arc::clone(&session));
        }
        let (relay, watched) = (Arc::clone(self), Arc::clone(&session));
        tokio::spawn(async move {
            watched.watch(gone).await;
            lock(&relay.0).remove(&id);
        });
        Ok(session)
    }

    /// What waits for `node_id` to take it up.
    pub(crate) fn pending(&self, node_id: NodeId) -> Vec<PendingReach> {
        let sessions = lock(&self.0);
        let waits = |session: &&Arc<Session>| {
            session.route.node_id == node_id
                && !session.over.is_cancelled()
                && lock(&session.to_node.receiver).is_some()
        };
        sessions.values().filter(waits).map(|session| session.route.pending.clone()).collect()
    }

    /// The renter's own session into that job.
    ///
    /// # Errors
    /// `session_over`, also when there never was one.
    pub(crate) fn of_renter(&self, account: AccountId, job: JobId, id: ReachId) -> Result<Arc<Session>, ApiError> {
        self.find(id, |route| route.account_id == account && route.job_id == job)
    }

    /// A session into one of the node's leases.
    ///
    /// # Errors
    /// `session_over`, also when there never was one.
    pub(crate) fn of_node(&self, node: NodeId, id: ReachId) -> Result<Arc<Session>, ApiError> {
        self.find(id, |route| route.node_id == node)
    }

    fn find(&self, id: ReachId, is_callers: impl Fn(&Route) -> bool) -> Result<Arc<Session>, ApiError> {
        let found = lock(&self.0).get(&id).filter(|session| is_callers(&session.route)).cloned();
        found.ok_or_else(|| ApiError::new(ErrorCode::SessionOver, format!("there is no session {id}")))
    }
}

impl Session {
    /// Takes in everything that one end writes, at the pace at which the other reads. Comes back when the body has ended.
    ///
    /// # Errors
    /// `conflict` when this way was opened before, `session_over`, `invalid_request` for what is no frames.
    pub(crate) async fn write<S, E>(&self, way: Way, body: S) -> Result<(), ApiError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::fmt::Display,
    {
        let sender = lock(&self.pipe(way).sender).take().ok_or_else(opened_before)?;
        self.moved.notify_one();
        let mut guard = EndGuard { session: self, why: Some(lost(way)) };
        let mut body = std::pin::pin!(body);
        let mut buffer = BytesMut::new();
        loop {
            let chunk = tokio::select! {
                chunk = body.next() => chunk,
                () = self.over.cancelled() => {
                    guard.why = None;
                    return self.refusal();
                }
            };
            match chunk {
                Some(Ok(chunk)) => buffer.extend_from_slice(&chunk),
                None if buffer.is_empty() => break,
                None | Some(Err(_)) => return Err(ApiError::new(ErrorCode::InvalidRequest, lost(way))),
            }
            while let Some(frames) = take_whole(&mut buffer).map_err(|error| garbage(&mut guard, error))? {
                self.moved.notify_one();
                tokio::select! {
                    sent = sender.send(frames) => if sent.is_err() {
                        // Nobody wants it any more: the command has ended, or the session is about to.
                        guard.why = None;
                        return self.refusal();
                    },
                    () = self.over.cancelled() => break,
                }
            }
        }
        guard.why = None;
        drop(sender);
        match way {
            // The renter may say everything at once and go on reading.
            Way::ToNode => Ok(()),
            // The node's word is the last one, and it is heard before the session ends.
            Way::ToRenter => {
                self.over.cancelled().await;
                Ok(())
            }
        }
    }

    /// Everything the other end writes, until the session is over; then why, if it ended before its time.
    ///
    /// # Errors
    /// `conflict` when this way was opened before.
    pub(crate) fn read(
        self: &Arc<Self>,
        way: Way,
    ) -> Result<impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + use<>, ApiError> {
        let receiver = lock(&self.pipe(way).receiver).take().ok_or_else(opened_before)?;
        self.moved.notify_one();
        let reader = Reader { session: Arc::clone(self), way, receiver, ended: false };
        Ok(futures_util::stream::unfold(reader, |mut reader| async move {
            let piece = reader.next().await?;
            Some((Ok(piece), reader))
        }))
    }

    fn pipe(&self, way: Way) -> &Pipe {
        match way {
            Way::ToNode => &self.to_node,
            Way::ToRenter => &self.to_renter,
        }
    }

    /// Ends it before its time, with a sentence for both ends.
    pub(crate) fn break_off(&self, why: impl Into<String>) {
        if !self.over.is_cancelled() {
            // A reason that is there already came first.
            let _ = self.why.set(why.into());
            self.over.cancel();
        }
    }

    fn refusal(&self) -> Result<(), ApiError> {
        match self.why.get() {
            Some(why) => Err(ApiError::new(ErrorCode::SessionOver, why.clone())),
            None => Ok(()),
        }
    }

    /// Ends the session when its ends do not meet, when nothing moves any more and when the job is gone.
    async fn watch(&self, gone: impl Future<Output = String>) {
        let moves = async {
            loop {
                let open = self.to_node.is_open() && self.to_renter.is_open();
                let patience = if open { IDLE_MAX } else { MEET_WITHIN };
                if tokio::time::timeout(patience, self.moved.notified()).await.is_err() {
                    return self.why_still();
                }
            }
        };
        let why = tokio::select! {
            () = self.over.cancelled() => return,
            why = moves => why,
            why = gone => why,
        };
        self.break_off(why);
    }

    fn why_still(&self) -> String {
        if lock(&self.to_node.receiver).is_some() {
            return "the node did not answer in time; it may be away, see `fizz job show`".to_owned();
        }
        if self.to_node.is_open() && self.to_renter.is_open() {
            let minutes = IDLE_MAX.as_secs() / 60;
            return format!("nothing moved in the session for {minutes} minutes, so it was ended");
        }
        "one end of the session did not open all of its streams".to_owned()
    }
}

/// Breaks the session off when its holder vanishes, as a handler does whose caller hangs up.
struct EndGuard<'a> {
    session: &'a Session,
    why: Option<String>,
}

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        if let Some(why) = self.why.take() {
            self.session.break_off(why);
        }
    }
}

/// The reading end of one direction.
struct Reader {
    session: Arc<Session>,
    way: Way,
    receiver: mpsc::Receiver<Bytes>,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let piece = tokio::select! {
            biased;
            piece = self.receiver.recv() => piece,
            () = self.session.over.cancelled() => None,
        };
        if piece.is_some() {
            self.session.moved.notify_one();
            return piece;
        }
        match self.way {
            // Everything the node had to say was handed on.
            Way::ToRenter => self.session.over.cancel(),
            // The renter has said everything; the node goes on until its command ends or the session is broken off.
            Way::ToNode => self.session.over.cancelled().await,
        }
        self.ended = true;
        let why = self.session.why.get()?;
        let mut last = BytesMut::new();
        encode_frame(&ReachFrame::Error(why.clone()), &mut last);
        Some(last.freeze())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // A node reads input for as long as its command wants any; that it is gone shows where it writes.
        if !self.ended && self.way == Way::ToRenter {
            self.session.break_off(lost(Way::ToNode));
        }
    }
}

/// Whoever writes this way is gone.
fn lost(way: Way) -> String {
    match way {
        Way::ToNode => "the renter went away".to_owned(),
        Way::ToRenter => "the node went away; the job may go on there or elsewhere, see `fizz job show`".to_owned(),
    }
}

fn opened_before() -> ApiError {
    ApiError::new(ErrorCode::Conflict, "this stream of the session was opened before")
}

fn garbage(guard: &mut EndGuard<'_>, error: ReachFrameError) -> ApiError {
    guard.why = Some(format!("one end of the session sent something else than frames ({error})"));
    ApiError::new(ErrorCode::InvalidRequest, error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
