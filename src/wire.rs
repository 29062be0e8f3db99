//! Wire protocol v1: every message that crosses the network between node, coordinator and renter.
//!
//! Invariants
//! - This module imports nothing else of Fizz; both sides meet here and only here.
//! - Unknown fields are ignored and unknown enum values become an explicit `Unknown`, so an old reader understands a new writer.
//! - Money is [`Amount`] (micro-USD, integer); sizes are bytes, durations name their unit last, instants are RFC 3339 in UTC.
//! - The types cannot express privileged mode, host mounts, host namespaces, devices or capabilities: what cannot be said
//!   cannot be asked for.
//! - Newtypes check their range both when made and when read from JSON.

pub mod account;
pub mod bench;
pub mod challenge;
pub mod domain;
pub mod enroll;
pub mod error;
pub mod figures;
pub mod ids;
pub mod job;
pub mod keys;
pub mod lease;
pub mod logs;
pub mod money;
pub mod node;
pub mod reach;
pub mod signed;

pub use error::{ErrorCode, Problem};
pub use ids::{AccountId, BootId, ChallengeId, EnrollmentId, Generation, JobId, LeaseId, NodeId, ReachId, Sequence};
pub use keys::{Digest, Nonce, PublicKey, Secret, Signature};
pub use money::{Amount, HourlyRate};

/// The protocol version this build speaks, and the path prefix of every call.
pub const PROTOCOL_VERSION: &str = "v1";

/// Media type of [`Problem`] bodies (RFC 9457).
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// Media type of framed log bodies, see [`logs`].
pub const LOG_MEDIA_TYPE: &str = "application/vnd.fizz.log-frames";

/// Media type of the streams of [`reach`].
pub const REACH_MEDIA_TYPE: &str = "application/vnd.fizz.reach-frames";

/// Header that makes `POST /v1/jobs` and other creating calls safe to repeat.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";
