//! Joining: enrolment by join token or device code, and signed sessions.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ids::{EnrollmentId, NodeId};
use super::keys::{Nonce, PublicKey, Secret, Signature};

/// `POST /v1/enrollments`. Repeating it with the same key finds the same enrolment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrollRequest {
    /// The node's identity.
    pub public_key: PublicKey,
    /// Name for people, usually the host name, up to 63 characters.
    pub name: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Single-use join token; a device code is given out without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_token: Option<Secret>,
    /// Signature over [`super::signed::enroll_message`]: the sender holds the private key.
    pub proof: Signature,
}

/// Answer to an enrolment and to each poll of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum EnrollStatus {
    /// The node is in.
    Approved {
        /// Its identifier from now on.
        node_id: NodeId,
    },
    /// A person has to approve the code.
    Pending(PendingEnrollment),
    /// A person said no.
    Denied,
    /// The code ran out; enrol again.
    Expired,
    /// A status this build does not know.
    #[serde(other)]
    Unknown,
}

/// What the owner needs in order to approve a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PendingEnrollment {
    /// The enrolment to poll.
    pub enrollment_id: EnrollmentId,
    /// Short code for people: eight letters in two groups, `BCDF-GHJK`.
    pub user_code: String,
    /// Page where the code is typed.
    pub verification_url: String,
    /// The same page with the code filled in, for the QR picture.
    pub verification_url_complete: String,
    /// Authorises the polls.
    pub poll_token: Secret,
    /// When the code runs out.
    pub expires_at: Timestamp,
    /// Seconds between polls.
    pub poll_interval_seconds: u32,
}

/// `POST /v1/enrollments/{id}/poll`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrollPoll {
    /// From [`PendingEnrollment`].
    pub poll_token: Secret,
}

/// A device-code enrolment as its owner sees it: `GET /v1/account/enrollments/{user_code}`, and the answer to
/// `POST …/approve` and `POST …/deny`. The code is accepted in any case, with or without its dash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrollmentView {
    /// The code, `BCDF-GHJK`.
    pub user_code: String,
    /// The machine's own name.
    pub node_name: String,
    /// Version of its agent.
    pub agent_version: String,
    /// When the code runs out.
    pub expires_at: Timestamp,
    /// What was decided.
    pub decision: EnrollDecision,
    /// The node, once approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
}

/// What an owner decided about an enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnrollDecision {
    /// Nothing yet.
    Pending,
    /// The machine is in.
    Approved,
    /// The machine stays out.
    Denied,
    /// A decision this build does not know.
    #[serde(other)]
    Unknown,
}

/// `POST /v1/sessions/nonce`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NonceRequest {
    /// Who asks.
    pub node_id: NodeId,
}

/// A number to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NonceGrant {
    /// Accepted once.
    pub nonce: Nonce,
    /// When it stops being accepted.
    pub expires_at: Timestamp,
    /// The coordinator's clock; the node signs this time, so its own clock does not matter.
    pub server_time: Timestamp,
}

/// `POST /v1/sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionRequest {
    /// Who asks.
    pub node_id: NodeId,
    /// From [`NonceGrant`].
    pub nonce: Nonce,
    /// Version of the agent.
    pub agent_version: String,
    /// Signature over [`super::signed::session_message`].
    pub signature: Signature,
}

/// A session: a bearer token that lives an hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionGrant {
    /// Sent as `Authorization: Bearer …`.
    pub token: Secret,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The coordinator's clock.
    pub server_time: Timestamp,
}
