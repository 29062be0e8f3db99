//! What the owner sees and asks for: one snapshot of the agent, over a socket that only this user (and root) may use.
//!
//! Protocol: one JSON line as request, JSON lines as answer. `snapshot`, `drain`, `earnings` and `prove` answer once, `watch` answers
//! each time something changes.
//!
//! Invariants
//! - Every view (CLI, tray, dashboard) shows this snapshot and nothing of its own.
//! - The socket is made with mode 0600, and every peer's user id is checked besides.
//! - A peer that does not read cannot hold anything up: it only misses what lies between.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use crate::job::runner::LeaseSnapshot;
use crate::wire::NodeId;
use crate::wire::account::Earnings;
use crate::wire::bench::GpuResult;
use crate::wire::challenge::Proof;
use crate::wire::node::{NodeState, Offer};

#[cfg_attr(unix, path = "control/unix.rs")]
#[cfg_attr(not(unix), path = "control/windows.rs")]
mod system;

pub use system::{Client, Server};

/// The agent as its owner sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of the agent.
    pub version: String,
    /// Process id of the agent.
    pub pid: u32,
    /// The node, once it has enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// Name for people.
    pub name: String,
    /// Where the agent stands.
    pub state: NodeState,
    /// Why it stands there, one sentence, when that is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What heals itself or works on, but somebody should know: a clock that is off, a benchmark that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The connection to the coordinator.
    pub coordinator: Link,
    /// Newest hardware score; absent while unmeasured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<u32>,
    /// Adapters as measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuResult>,
    /// How far the coordinator believes this machine's hardware; absent until it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// What is lent; absent until the inventory is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// What runs here.
    pub leases: Vec<LeaseSnapshot>,
    /// Newest earnings that the coordinator told; absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earnings: Option<Earnings>,
    /// When this was true, by this machine's clock.
    pub as_of: Timestamp,
}

/// The connection to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The address in use; empty when none is configured.
    pub url: String,
    /// How it stands.
    #[serde(flatten)]
    pub state: LinkState,
}

/// How the connection stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "link", rename_all = "snake_case")]
pub enum LinkState {
    /// Not tried yet.
    Connecting,
    /// The coordinator answers.
    Connected {
        /// Since when.
        since: Timestamp,
    },
    /// It does not.
    Unreachable {
        /// Since when.
        since: Timestamp,
        /// What is wrong and what to do.
        why: String,
    },
}

/// What a client may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Request {
    /// The snapshot, once: [`Answer::Snapshot`].
    Snapshot,
    /// The snapshot now and after every change: [`Answer::Snapshot`], again and again.
    Watch,
    /// Finish or hand back every lease, then stop: [`Answer::Draining`].
    Drain,
    /// Fresh earnings from the coordinator: [`Answer::Earnings`].
    Earnings,
    /// A challenge soon, please: [`Answer::Asked`].
    Prove,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Answer {
    /// The agent as it is.
    Snapshot {
        /// It.
        snapshot: Box<Snapshot>,
    },
    /// The coordinator was asked.
    Asked,
    /// The drain has begun; `watch` shows how it goes.
    Draining,
    /// What the node earned.
    Earnings {
        /// It; the newest known when the coordinator cannot be asked.
        earnings: Box<Earnings>,
        /// Why it is not fresh.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stale: Option<String>,
    },
    /// It cannot be done.
    Refused {
        /// Why, for people.
        why: String,
    },
}

/// What the server passes on to the agent's driver.
#[derive(Debug)]
pub enum ControlCommand {
    /// Begin to drain.
    Drain,
    /// Ask the coordinator what the node earned.
    Earnings(oneshot::Sender<EarningsReply>),
    /// Ask the coordinator for a challenge.
    Prove(oneshot::Sender<Result<(), String>>),
}

/// Answer of the driver to [`ControlCommand::Earnings`].
#[derive(Debug, Clone, PartialEq)]
pub struct EarningsReply {
    /// The newest earnings known.
    pub earnings: Option<Earnings>,
    /// Why they are not fresh.
    pub stale: Option<String>,
}

/// The server's ends of what it shares with the driver.
#[derive(Debug, Clone)]
pub struct ControlHandle {
    /// The newest snapshot.
    pub snapshots: watch::Receiver<Snapshot>,
    /// Where commands go.
    pub commands: mpsc::Sender<ControlCommand>,
}

/// Why the control socket did not do it.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no agent runs here ({socket} does not answer); start it: `fizz up`")]
    NotRunning {
        /// The socket.
        socket: String,
    },
    /// The agent belongs to somebody else.
    #[error("the agent at {socket} belongs to another user; use its account, or sudo")]
    NotAllowed {
        /// The socket.
        socket: String,
    },
    /// The path is longer than a socket's may be.
    #[error("the path {socket} is too long for a socket; choose a shorter state folder: FIZZ_STATE_DIR=/path")]
    PathTooLong {
        /// The socket.
        socket: String,
    },
    /// The system failed.
    #[error("the control socket {socket} failed")]
    Io {
        /// The socket.
        socket: String,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The answer makes no sense; another version of fizz?
    #[error("the agent's answer cannot be read; is another version of fizz running? Restart it: `fizz up`")]
    BadAnswer(#[source] serde_json::Error),
    /// The agent went away in the middle.
    #[error("the agent stopped while it was asked")]
    Closed,
    /// Not on this system yet.
    #[error("the control socket does not exist on this system yet")]
    NotYet,
}

/// A snapshot of an agent that has just begun.
#[must_use]
pub fn first_snapshot(name: &str, url: &str, now: Timestamp) -> Snapshot {
    Snapshot {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        node_id: None,
        name: name.to_owned(),
        state: NodeState::Enrolling,
        why: None,
        warnings: Vec::new(),
        coordinator: Link { url: url.to_owned(), state: LinkState::Connecting },
        score: None,
        gpus: Vec::new(),
        proof: None,
        offer: None,
        leases: Vec::new(),
        earnings: None,
        as_of: now,
    }
}
