//! Keeps the rules in place and the proof fresh: nobody gets a network before both are.
//!
//! Invariants
//! - A verdict is remembered for exactly these rules, as the kernel lists them, on exactly these surroundings. When either has
//!   changed, or the rules were set again, the probe runs again.
//! - Where the rules cannot be read, a verdict is good for one network only: whoever is about to make one probes again.
//! - One probe at a time. While networks of ours are there, rules that somebody takes away are back within seconds, probe or not.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Mutex;

use super::super::firewall::surroundings::Surroundings;
use super::super::firewall::{NetworkPolicy, NftError, Verdict, nft, rules};
use super::super::network::NetworkId;
use super::super::{LABEL_LEASE, LABEL_NODE, RuntimeError};
use super::DockerRuntime;
use super::gates::{self, Gates};
use super::probes::Verdicts;
use crate::wire::NodeId;
use crate::wire::job::Reach;

/// So often the rules are looked at while networks of ours are there: a few milliseconds of one core each time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many verdicts are asked for before a list of domains that could not be shown to keep is tried again: the line may have
/// been down.
const ASKED_AGAIN: u32 = 16;

/// The wall and what is known of it. Locks are taken in the order of the fields.
#[derive(Debug, Default)]
pub(super) struct Guard {
    pub(super) policy: NetworkPolicy,
    rules: Mutex<Rules>,
    pub(super) gates: Mutex<Gates>,
    /// Networks of ours that were seen and not removed since.
    networks: std::sync::Mutex<HashSet<NetworkId>>,
    watches: AtomicBool,
}

#[derive(Debug, Default)]
struct Rules {
    /// As given and as the kernel lists them since.
    held: Option<(String, String)>,
    /// How often they were set.
    times: u64,
}

/// What was shown of one engine; another one, or the same one opened again, is to be shown again.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Where and when the verdicts were found.
    found: Option<(Circumstances, Verdicts)>,
    asked: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Circumstances {
    around: Surroundings,
    /// The listing and how often it was set; absent where the rules cannot be read.
    rules: Option<(String, u64)>,
}

impl Guard {
    pub(super) fn new(policy: NetworkPolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// A network of ours is there: from now on the rules are watched.
    pub(super) fn seen(self: &Arc<Self>, network: &NetworkId) {
        self.networks().insert(network.clone());
        if !self.watches.swap(true, Ordering::Relaxed) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
    }

    /// A network is gone, and its way out with it.
    pub(super) async fn gone(&self, network: &NetworkId) {
        self.networks().remove(network);
        self.gates.lock().await.close(Some(network)).await;
        gates::sweep().await;
    }

    fn networks(&self) -> MutexGuard<'_, HashSet<NetworkId>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the rules unless they are in place, and answers with the kernel's listing of them and how often they were set.
    async fn keep(&self, around: &Surroundings) -> Result<(String, u64), NftError> {
        let mut rules = self.rules.lock().await;
        let script = rules::script(&self.policy, around);
        let listed = nft::listing().await?;
        if let Some((given, listing)) = &rules.held
            && *given == script
            && listed.as_ref() == Some(listing)
        {
            return Ok((listing.clone(), rules.times));
        }
        if rules.held.is_some() {
            tracing::warn!("the firewall rules were changed or are out of date; they are set again");
        }
        // Rules that somebody took away may have been away while a probe ran.
        rules.held = None;
        rules.times += 1;
        nft::apply(&format!("{script}{}", self.gates.lock().await.doors())).await?;
        let vanished = || NftError::Failed { detail: "the rules vanished at once".to_owned() };
        let listing = nft::listing().await?.ok_or_else(vanished)?;
        rules.held = Some((script, listing.clone()));
        Ok((listing, rules.times))
    }

    /// Sets right what somebody changed, if there is anything to guard.
    async fn look(&self) {
        if self.networks().is_empty() || self.rules.lock().await.times == 0 {
            return;
        }
        let kept = self.keep(&Surroundings::read()).await.map(drop);
        let kept = kept.and(self.gates.lock().await.keep().await);
        if let Err(error) = kept {
            tracing::debug!(%error, "the firewall rules cannot be looked at");
        }
    }
}

async fn watch(guard: Weak<Guard>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(guard) = guard.upgrade() else { return };
        guard.look().await;
    }
}

impl DockerRuntime {
    /// The verdict on networks of this reach. `about_to_use`: a network is about to be made.
    pub(super) async fn verdict(&self, node_id: NodeId, reach: Reach, about_to_use: bool) -> Verdict {
        if reach == Reach::None {
            return self.verdicts(node_id, about_to_use).await.private;
        }
        if !self.guard.policy.domains.is_empty() {
            return self.verdict_on_domains(node_id, about_to_use).await;
        }
        match self.no_internet() {
            Some(no) => no,
            None => self.verdicts(node_id, about_to_use).await.internet,
        }
    }

    /// The verdict on networks that reach some domains of the internet.
    pub(super) async fn verdict_on_domains(&self, node_id: NodeId, about_to_use: bool) -> Verdict {
        if let Some(no) = self.no_internet() {
            return no;
        }
        let verdicts = self.verdicts(node_id, about_to_use).await;
        if verdicts.internet.is_isolated() { verdicts.domains } else { verdicts.internet }
    }

    fn no_internet(&self) -> Option<Verdict> {
        let why = "the owner does not lend the internet: [network] internet = false";
        (!self.guard.policy.internet).then(|| Verdict::NotShown { why: why.to_owned() })
    }

    /// Removes the rules, unless a network of ours, of whichever agent, is left.
    pub(super) async fn withdraw_rules(&self) {
        let mut rules = self.guard.rules.lock().await;
        // Whoever set none has none to take away.
        if rules.held.is_none() {
            return;
        }
        match self.labelled_networks(&[LABEL_LEASE]).await {
            Ok(left) if left.is_empty() => {
                *rules = Rules::default();
                gates::sweep().await;
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
        let _shown = self.shown.lock().await;
        self.guard.gates.lock().await.close(None).await;
        self.sweep_probes(&format!("{LABEL_NODE}={node_id}")).await
    }

    async fn verdicts(&self, node_id: NodeId, about_to_use: bool) -> Verdicts {
        match self.look_or_probe(node_id, about_to_use).await {
            Ok(verdicts) => verdicts,
            Err(error) => Verdicts::not_shown(&format!("the probe could not run: {error}")),
        }
    }

    async fn look_or_probe(&self, node_id: NodeId, about_to_use: bool) -> Result<Verdicts, RuntimeError> {
        let mut shown = self.shown.lock().await;
        let around = Surroundings::read();
        let rules = self.guard.keep(&around).await;
        let circumstances = Circumstances { around, rules: rules.as_ref().ok().cloned() };
        shown.asked = shown.asked.wrapping_add(1);
        let again = shown.asked.is_multiple_of(ASKED_AGAIN);
        if let Some((then, verdicts)) = &shown.found
            && *then == circumstances
            && (circumstances.rules.is_some() || !about_to_use)
            && !(again && circumstances.rules.is_some() && verdicts.domains_wait())
        {
            return Ok(verdicts.clone());
        }
        shown.found = None;
        let rules = rules.map(drop);
        let verdicts = self.probe(node_id, &self.guard.policy, &circumstances.around, &rules).await?;
        tracing::info!(
            private = verdicts.private.sentence(),
            internet = verdicts.internet.sentence(),
            domains = verdicts.domains.sentence(),
            "probed isolation"
        );
        shown.found = Some((circumstances, verdicts.clone()));
        Ok(verdicts)
    }
}
