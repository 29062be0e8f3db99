//! Whether jobs' networks are shut off from this home: asked when the engine comes up and again and again, told in the offer,
//! and when it no longer holds, what runs on such a network goes.

use super::{Driver, Input};
use crate::job::runner::LeaseCommand;
use crate::runtime::firewall::Verdict;
use crate::wire::job::Reach;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// The newest verdict; none before the first.
    pub(super) verdict: Option<Verdict>,
    /// The newest verdict on jobs that are kept to some domains.
    domains: Option<Verdict>,
    asking: bool,
}

/// The answers.
pub(in crate::agent) struct Verdicts {
    internet: Verdict,
    domains: Verdict,
}

impl Isolation {
    /// Whether jobs may have the internet.
    pub(super) fn is_shown(&self) -> bool {
        self.verdict.as_ref().is_some_and(Verdict::is_isolated)
    }

    /// Whether jobs can be kept to some domains.
    pub(super) fn keeps_to_domains(&self) -> bool {
        self.is_shown() && self.domains.as_ref().is_some_and(Verdict::is_isolated)
    }

    /// What the owner should know.
    pub(super) fn warning(&self) -> Option<String> {
        let verdict = self.verdict.as_ref().filter(|verdict| !verdict.is_isolated())?;
        Some(format!("jobs get no internet here: {}; see `fizz doctor`", verdict.sentence()))
    }
}

impl Driver {
    /// Asks the engine, once at a time. An owner who lends no internet needs no answer, and gets no probe.
    pub(super) fn check_isolation(&mut self) {
        let (Some(runtime), Some(node_id)) = (self.runtime.clone(), self.node_id) else { return };
        if !self.options.ceiling.network.internet || self.isolation.asking {
            return;
        }
        self.isolation.asking = true;
        let inbox = self.inbox.clone();
        self.tasks.spawn(async move {
            let internet = runtime.network_verdict(node_id, Reach::Internet).await;
            let domains = runtime.domains_verdict(node_id).await;
            // A closed inbox is a driver that has ended.
            let _ = inbox.send(Input::Isolation(Verdicts { internet, domains })).await;
        });
    }

    /// Takes the answer.
    pub(super) async fn isolated(&mut self, verdicts: Verdicts) {
        self.isolation.asking = false;
        let is_news = self.isolation.domains.as_ref() != Some(&verdicts.domains);
        if is_news {
            self.domains_shown(&verdicts.domains);
        }
        self.isolation.domains = Some(verdicts.domains);
        let verdict = verdicts.internet;
        if self.isolation.verdict.as_ref() == Some(&verdict) {
            if is_news {
                self.describe().await;
            }
            return;
        }
        if verdict.is_isolated() {
            tracing::info!("jobs may have the internet: it was shown that they cannot reach this home");
        } else {
            let why = verdict.sentence();
            tracing::warn!(why, "jobs get no internet here");
            for lease_id in self.leases.on_networks() {
                let reason = format!("the node can no longer show that its network is shut off: {why}");
                self.leases.tell(lease_id, LeaseCommand::Evict { reason });
            }
        }
        self.isolation.verdict = Some(verdict);
        self.describe().await;
    }

    /// A list of domains that a probe got past keeps nobody; one that could not be tried again keeps on as it did.
    fn domains_shown(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Isolated => tracing::info!("jobs can be kept to some domains"),
            Verdict::NotShown { why } => tracing::info!(why, "no jobs are taken that name domains"),
            Verdict::Reaches { .. } => {
                let why = verdict.sentence();
                tracing::warn!(why, "no jobs are taken that name domains");
                for lease_id in self.leases.kept_to_domains() {
                    let reason = format!("the node can no longer show that it keeps a job to its domains: {why}");
                    self.leases.tell(lease_id, LeaseCommand::Evict { reason });
                }
            }
        }
    }
}
