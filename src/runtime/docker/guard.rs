//! Keeps the rules in place and the proof fresh: nobody gets a network before both are.
//!
//! Invariants
//! - A verdict is remembered for exactly these rules, as the kernel lists them, on exactly these surroundings. When either has
//!   changed, the rules are set again and the probe runs again.
//! - Where the rules cannot be read, a verdict is good for one network only: whoever is about to make one probes again.
//! - One probe at a time.

use tokio::sync::Mutex;

use super::super::firewall::surroundings::Surroundings;
use super::super::firewall::{NetworkPolicy, NftError, Verdict, nft, rules};
use super::super::{LABEL_LEASE, LABEL_NODE, RuntimeError};
use super::DockerRuntime;
use super::probes::Verdicts;
use crate::wire::NodeId;
use crate::wire::job::Reach;

/// What is known about the wall.
#[derive(Debug, Default)]
pub(super) struct Guard {
    pub(super) policy: NetworkPolicy,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The rules as given and as the kernel lists them since.
    rules: Option<(String, String)>,
    /// Where and when the verdicts were found.
    shown: Option<(Circumstances, Verdicts)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Circumstances {
    around: Surroundings,
    /// The listing; absent where the rules cannot be read.
    listing: Option<String>,
}

impl Guard {
    pub(super) fn new(policy: NetworkPolicy) -> Self {
        Self { policy, known: Mutex::default() }
    }
}

impl DockerRuntime {
    /// The verdict on networks of this reach. `about_to_use`: a network is about to be made.
    pub(super) async fn verdict(&self, node_id: NodeId, reach: Reach, about_to_use: bool) -> Verdict {
        let policy = &self.guard.policy;
        if reach != Reach::None && !policy.internet {
            return Verdict::NotShown {
                why: "the owner does not lend the internet: [network] internet = false".to_owned(),
            };
        }
        if reach != Reach::None && !policy.domains.is_empty() {
            return Verdict::NotShown {
                why: "this version of fizz cannot keep jobs to [network] domains, so it gives them no internet"
                    .to_owned(),
            };
        }
        let verdicts = match self.verdicts(node_id, about_to_use).await {
            Ok(verdicts) => verdicts,
            Err(error) => Verdicts::not_shown(&format!("the probe could not run: {error}")),
        };
        if reach == Reach::None { verdicts.private } else { verdicts.internet }
    }

    /// Removes the rules, unless a network of ours, of whichever agent, is left.
    pub(super) async fn withdraw_rules(&self) {
        let mut known = self.guard.known.lock().await;
        // Whoever set none has none to take away.
        if known.rules.is_none() {
            return;
        }
        match self.labelled_networks(&[LABEL_LEASE]).await {
            Ok(left) if left.is_empty() => {
                *known = Known::default();
                if let Err(error) = nft::apply(&rules::removal()).await {
                    tracing::warn!(%error, "the firewall rules stay; remove them: `fizz firewall remove`");
                }
            }
            Ok(_) => tracing::info!("the firewall rules stay while jobs have networks"),
            Err(error) => tracing::debug!(%error, "the firewall rules stay"),
        }
    }

    /// Removes everything that probes left on this engine, whichever agent made it.
    ///
    /// # Errors
    /// When the engine does not do it.
    pub async fn remove_probes(&self) -> Result<(), RuntimeError> {
        self.sweep_probes(LABEL_NODE).await?;
        self.remove_probe_images().await
    }

    /// Removes what is left of this node's probes that were broken off.
    pub(super) async fn remove_broken_probes(&self, node_id: NodeId) -> Result<(), RuntimeError> {
        // None is under way while this is held.
        let _known = self.guard.known.lock().await;
        self.sweep_probes(&format!("{LABEL_NODE}={node_id}")).await
    }

    async fn verdicts(&self, node_id: NodeId, about_to_use: bool) -> Result<Verdicts, RuntimeError> {
        let mut known = self.guard.known.lock().await;
        let around = Surroundings::read();
        let rules = keep(&mut known, &self.guard.policy, &around).await;
        let circumstances = Circumstances { around, listing: rules.as_ref().ok().cloned() };
        if let Some((then, verdicts)) = &known.shown
            && *then == circumstances
            && (circumstances.listing.is_some() || !about_to_use)
        {
            return Ok(verdicts.clone());
        }
        known.shown = None;
        let rules = rules.map(drop);
        let verdicts = self.probe(node_id, &self.guard.policy, &circumstances.around, &rules).await?;
        tracing::info!(
            private = verdicts.private.sentence(),
            internet = verdicts.internet.sentence(),
            "probed isolation"
        );
        known.shown = Some((circumstances, verdicts.clone()));
        Ok(verdicts)
    }
}

/// Sets the rules unless they are in place, and answers with the kernel's listing of them.
async fn keep(known: &mut Known, policy: &NetworkPolicy, around: &Surroundings) -> Result<String, NftError> {
    let script = rules::script(policy, around);
    let listed = nft::listing().await?;
    if let Some((given, listing)) = &known.rules
        && *given == script
        && listed.as_ref() == Some(listing)
    {
        return Ok(listing.clone());
    }
    if known.rules.is_some() {
        tracing::warn!("the firewall rules were changed or are out of date; they are set again");
    }
    // Rules that somebody took away may have been away while a probe ran.
    (known.rules, known.shown) = (None, None);
    nft::apply(&script).await?;
    let listing =
        nft::listing().await?.ok_or_else(|| NftError::Failed { detail: "the rules vanished at once".to_owned() })?;
    known.rules = Some((script, listing.clone()));
    Ok(listing)
}
