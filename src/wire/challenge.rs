//! Proof of compute: what a node is asked to compute, what it commits to, what it is then asked, and what it answers.
//!
//! The order is the proof: the node says that it is ready (`POST /v1/challenges/{id}/ready`, held until all of its owner's nodes
//! are) and is told the nonce; it computes and commits to the results (`POST …/commit`), timed by the coordinator; only then it is
//! told what to open, and opens it (`POST …/reveal`). `proof` has the mathematics.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ids::ChallengeId;
use super::keys::{Digest, Nonce};

/// A challenge that waits for the node. Part of `Assignments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PendingChallenge {
    /// Which.
    pub challenge_id: ChallengeId,
    /// What will be computed, each part on a device of its own and all at the same time; a part's place is its number.
    pub parts: Vec<Part>,
}

/// What one device computes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// On what.
    pub device: Device,
    /// Rows and columns of the matrices: a multiple of 256, from 256 to 32768.
    pub size: u32,
}

/// A device of the node, as its benchmark report names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Device {
    /// The processor.
    Cpu,
    /// A graphics adapter.
    Gpu {
        /// Its name.
        name: String,
        /// Its PCI address, where the backend tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pci_address: Option<String>,
    },
    /// A device this build does not know.
    #[serde(other)]
    Unknown,
}

/// Answer to `POST /v1/challenges/{id}/ready`: the clock of the coordinator runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Go {
    /// What nobody knew before; the matrices come from it.
    pub nonce: Nonce,
    /// Milliseconds until the commitment has to be at the coordinator.
    pub millis_max: u64,
}

/// `POST /v1/challenges/{id}/commit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Commit {
    /// The Merkle root of each part's result, in their order.
    pub roots: Vec<Digest>,
}

/// Answer to [`Commit`]: what to open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Opening {
    /// The random vector comes from it.
    pub vector_seed: Digest,
    /// The rows to open of each part, in the parts' order.
    pub rows: Vec<Vec<u32>>,
}

/// `POST /v1/challenges/{id}/reveal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reveal {
    /// For each part, in their order.
    pub answers: Vec<Answer>,
}

/// What one device's result is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// The result times the vector: numbers below 2⁶¹ − 1, eight bytes each, the lowest first.
    pub product: Blob,
    /// The opened rows, in the order they were asked for.
    pub rows: Vec<RevealedRow>,
}

/// A row of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevealedRow {
    /// Its elements: signed, four bytes each, the highest first.
    pub elements: Blob,
    /// The digest beside it on every level of the tree, from the row up.
    pub path: Vec<Digest>,
}

/// Answer to [`Reveal`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// Whether the node did what it was asked.
    pub passed: bool,
    /// What was wrong, one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What that makes of the node.
    pub proof: Proof,
}

/// How far a node's hardware is believed. Part of `HeartbeatAck` and `NodeView`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Proof {
    /// In a word.
    pub state: ProofState,
    /// When the node last passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_at: Option<Timestamp>,
    /// Challenges in a row that it did not pass.
    #[serde(default)]
    pub misses: u32,
    /// What was wrong with the newest of them and what to do, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How far a node's hardware is believed, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProofState {
    /// Not challenged yet, or the hardware changed since.
    Unproven,
    /// It passed its newest challenge.
    Proven,
    /// It did not pass its newest challenge.
    Doubted,
    /// It did not pass several in a row: it gets no jobs until it passes one.
    Suspended,
    /// A state this build does not know.
    #[serde(other)]
    Unknown,
}

/// Bytes that travel as unpadded URL-safe base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct Blob(pub Vec<u8>);

impl TryFrom<String> for Blob {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        URL_SAFE_NO_PAD.decode(text).map(Self)
    }
}

impl From<Blob> for String {
    fn from(blob: Blob) -> Self {
        URL_SAFE_NO_PAD.encode(blob.0)
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}
