//! A challenge's products, computed in a child process: `fizz prove --child`.
//!
//! Child and parent speak in lines of JSON: [`Order`] in, [`Report`] out, one report for each order. The child makes ready, computes
//! when it is told the seeds, and keeps the results until it is told what to open.
//!
//! Invariants
//! - The parent runs no graphics driver; a child that hangs, crashes or talks too much is killed with everything it started.
//! - The child ends when its standard input closes, which is when the parent is gone.
//! - Every device computes at the same time as the others.

mod child;
mod parts;

use serde::{Deserialize, Serialize};

pub use child::{ProveError, Prover};
pub use parts::serve;

use crate::wire::Digest;
use crate::wire::challenge::{Answer, Opening, Part};

/// What the parent wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Open the devices, compile, take memory.
    Prepare {
        /// What will be computed.
        parts: Vec<Part>,
    },
    /// Compute.
    Compute {
        /// The seed of each part.
        seeds: Vec<Digest>,
    },
    /// Open what was computed.
    Open {
        /// What of it.
        opening: Opening,
    },
}

/// What the child has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// Ready to compute.
    Ready,
    /// Computed.
    Roots {
        /// The commitment to each part's result.
        roots: Vec<Digest>,
    },
    /// Opened.
    Answers {
        /// For each part.
        answers: Vec<Answer>,
    },
    /// It could not be done, and the child ends.
    Failed {
        /// Why, for people.
        why: String,
    },
}
