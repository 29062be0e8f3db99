//! Joining a network: by a single-use join token, or by a short code that a person approves.
//!
//! Invariants
//! - Repeating an enrolment finds the same one: the key decides, so a crash in the middle costs nothing.
//! - The node id is in the journal before anybody is told that the node is in.
//! - A coordinator that cannot be reached while a person approves is asked again; nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::CoordinatorAddress;
use super::client::{Client, ClientError};
use super::identity::{Identity, IdentityError, StateLock};
use super::journal::{Journal, JournalError};
use crate::clock::Clock;
use crate::http::HttpError;
use crate::paths::StateDir;
use crate::wire::enroll::{EnrollStatus, PendingEnrollment};
use crate::wire::{NodeId, Secret};

/// Where the journal keeps the node's id.
const NODE_ID: &str = "node_id";
/// Names are cut here, at a character's border.
const NAME_BYTES_MAX: usize = 63;

/// What is needed to join.
#[derive(Debug, Clone)]
pub struct EnrollOptions {
    /// Everything this node owns.
    pub state_dir: StateDir,
    /// Name for people; longer ones are cut at 63 bytes.
    pub name: String,
    /// The network's coordinator.
    pub coordinators: Vec<CoordinatorAddress>,
    /// Joins at once; without it a person has to approve a code.
    pub join_token: Option<Secret>,
}

/// An enrolment under way, with the state folder held.
#[derive(Debug)]
pub struct Enrollment {
    flow: Flow,
    /// Whether the coordinator has been asked if it knows the node that the journal knows.
    checked: bool,
    _lock: Arc<StateLock>,
}

/// What an enrolment has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnrollStep {
    /// A person has to approve this; show code, address and QR picture, then ask for the next step.
    Approve(Box<PendingEnrollment>),
    /// The node is in.
    Enrolled {
        /// Its identifier from now on.
        node_id: NodeId,
        /// Whether it was in before.
        already: bool,
    },
}

/// Why a node did not get in.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// State folder or key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// State database.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Address or CA file.
    #[error(transparent)]
    Address(#[from] HttpError),
    /// The coordinator said no or cannot be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A person said no.
    #[error("the enrolment was denied; if that was a mistake, begin again: `fizz enroll`")]
    Denied,
    /// Nobody approved it in time.
    #[error("the code ran out before anybody approved it; begin again: `fizz enroll`")]
    Expired,
    /// An answer of a later version.
    #[error("the coordinator answers in a way this version does not know; update fizz, then try again")]
    Unknown,
}

impl Enrollment {
    /// Opens the state folder and gets ready; nothing is sent yet.
    ///
    /// # Errors
    /// [`EnrollError`] when the folder, the key, the database or an address cannot be used.
    pub async fn open(options: EnrollOptions, clock: Clock) -> Result<Self, EnrollError> {
        let lock = StateLock::take(&options.state_dir)?;
        let identity = Identity::load_or_create(&options.state_dir, &lock)?;
        let journal = Journal::open(&options.state_dir.journal()).await?;
        let client = Client::new(&options.coordinators, identity, clock)?;
        let flow = Flow::new(client, journal, &options.name, options.join_token);
        Ok(Self { flow, checked: false, _lock: Arc::new(lock) })
    }

    /// Goes on to the next step; [`EnrollStep::Enrolled`] is the last.
    ///
    /// # Errors
    /// [`EnrollError`] when the coordinator refuses or, at the first step, cannot be reached.
    pub async fn next(&mut self) -> Result<EnrollStep, EnrollError> {
        if !self.checked {
            self.flow.forget_if_unknown().await?;
            self.checked = true;
        }
        self.flow.next().await
    }
}

/// The steps themselves, for the agent and for the command line.
#[derive(Debug)]
pub(super) struct Flow {
    client: Client,
    journal: Journal,
    name: String,
    join_token: Option<Secret>,
    pending: Option<PendingEnrollment>,
}

impl Flow {
    pub(super) fn new(client: Client, journal: Journal, name: &str, join_token: Option<Secret>) -> Self {
        Self { client, journal, name: short_name(name), join_token, pending: None }
    }

    pub(super) async fn next(&mut self) -> Result<EnrollStep, EnrollError> {
        if let Some(node_id) = known_node(&self.journal).await? {
            self.client.set_node_id(node_id);
            return Ok(EnrollStep::Enrolled { node_id, already: true });
        }
        let status = match self.pending.clone() {
            None => {
                let request = self.client.identity().enroll_request(&self.name, self.join_token.clone());
                self.client.enroll(&request).await?
            }
            Some(pending) => self.wait(&pending).await?,
        };
        self.take(status).await
    }

    /// A person who enrols again may have another network in mind, or one that has forgotten this node.
    async fn forget_if_unknown(&self) -> Result<(), EnrollError> {
        if let Some(node_id) = known_node(&self.journal).await? {
            self.client.set_node_id(node_id);
            if !self.client.is_known().await? {
                self.journal.set_meta(NODE_ID, None).await?;
            }
        }
        Ok(())
    }

    async fn take(&mut self, status: EnrollStatus) -> Result<EnrollStep, EnrollError> {
        match status {
            EnrollStatus::Approved { node_id } => {
                self.journal.set_meta(NODE_ID, Some(&node_id.to_string())).await?;
                self.client.set_node_id(node_id);
                Ok(EnrollStep::Enrolled { node_id, already: false })
            }
            EnrollStatus::Pending(pending) => {
                self.pending = Some(pending.clone());
                Ok(EnrollStep::Approve(Box::new(pending)))
            }
            EnrollStatus::Denied => {
                self.pending = None;
                Err(EnrollError::Denied)
            }
            EnrollStatus::Expired => {
                self.pending = None;
                Err(EnrollError::Expired)
            }
            EnrollStatus::Unknown => Err(EnrollError::Unknown),
        }
    }

    /// Polls until the enrolment is no longer pending.
    async fn wait(&self, pending: &PendingEnrollment) -> Result<EnrollStatus, EnrollError> {
        let interval = Duration::from_secs(u64::from(pending.poll_interval_seconds.clamp(1, 60)));
        let mut failures = 0;
        let mut wait = interval;
        loop {
            tokio::time::sleep(wait).await;
            match self.client.poll_enrollment(pending.enrollment_id, &pending.poll_token).await {
                Ok(EnrollStatus::Pending(_)) => {
                    failures = 0;
                    wait = interval;
                }
                Ok(status) => return Ok(status),
                Err(error) if is_passing(&error) => {
                    wait = self.client.patience(&error, failures).max(interval);
                    failures += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Resting { .. } => true,
        ClientError::Http(error) => error.is_temporary(),
        ClientError::NoCoordinator | ClientError::NotEnrolled | ClientError::Signing(_) | ClientError::Encoding(_) => {
            false
        }
    }
}

/// The node's id, once it has enrolled.
pub(super) async fn known_node(journal: &Journal) -> Result<Option<NodeId>, JournalError> {
    // A text that is no id is as good as none: enrolling again finds the same node by its key.
    Ok(journal.meta(NODE_ID).await?.and_then(|text| text.parse().ok()))
}

fn short_name(name: &str) -> String {
    let mut name = name.trim();
    while name.len() > NAME_BYTES_MAX {
        let last = name.char_indices().next_back().map_or(0, |(at, _)| at);
        name = &name[..last];
    }
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_between_characters_and_never_empty() {
        assert_eq!(short_name("  attic "), "attic");
        assert_eq!(short_name(" "), "node");
        assert_eq!(short_name(&"ä".repeat(40)), "ä".repeat(31));
    }
}
