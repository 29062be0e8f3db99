//! Which queued job goes to which node, at which price, and for the others one sentence on why they wait.
//!
//! Invariants
//! - No node is promised more than it lends: every placement is taken off its free capacity before the next job is looked at.
//! - Nodes that take no leases (paused, draining, silent) get none.
//! - No job is placed above the price it pays.
//! - Jobs are served in the order given (oldest first); one that fits nowhere does not hold up the ones behind it.
//! - The choice among nodes that fit: cheapest, then least recently used, then by identifier, so that it is always the same.

use jiff::{SignedDuration, Timestamp};

use crate::wire::challenge::ProofState;
use crate::wire::domain::{DomainPattern, within};
use crate::wire::job::{Isolation, NetworkSpec, Reach, Requirements, Resources};
use crate::wire::node::Offer;
use crate::wire::{HourlyRate, JobId, NodeId};

/// Seconds a node rests from a job that failed on it, doubled with each of the job's leases.
const RETRY_SECONDS: i64 = 5;

/// A node as matching sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The node.
    pub node_id: NodeId,
    /// Processor architecture as Docker names it.
    pub architecture: String,
    /// Newest benchmark score.
    pub score: Option<u32>,
    /// What it lends in all.
    pub offer: Offer,
    /// What of it live leases use.
    pub used: Resources,
    /// How far its hardware is believed.
    pub proof: ProofState,
    /// Whether it is online and in a state that takes leases.
    pub takes_leases: bool,
    /// When it last got a lease.
    pub leased_at: Option<Timestamp>,
}

/// A job that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The job.
    pub job_id: JobId,
    /// What it needs.
    pub resources: Resources,
    /// What the node must have beyond that.
    pub requirements: Requirements,
    /// What its containers may reach.
    pub network: NetworkSpec,
    /// What it pays at most.
    pub price_max: HourlyRate,
    /// Nodes it failed on, with the time of the newest failure.
    pub failed_on: Vec<(NodeId, Timestamp)>,
    /// Leases it has had.
    pub lease_count: u32,
    /// How the newest of them failed, as half a sentence.
    pub last_failure: Option<String>,
}

/// A job that goes to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The job.
    pub job_id: JobId,
    /// The node.
    pub node_id: NodeId,
    /// What an hour costs.
    pub rate: HourlyRate,
}

/// A job that goes on waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The job.
    pub job_id: JobId,
    /// One sentence for the renter.
    pub why: String,
}

/// What one pass decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matching {
    /// Jobs that found a node.
    pub placed: Vec<Placement>,
    /// Jobs that did not.
    pub waiting: Vec<Waiting>,
}

/// One pass over `jobs`, oldest first.
#[must_use]
pub fn run(mut nodes: Vec<Node>, jobs: &[Job], now: Timestamp) -> Matching {
    let mut matching = Matching::default();
    for job in jobs {
        match choose(&nodes, job, now) {
            Ok((index, rate)) => {
                if let Some(node) = nodes.get_mut(index) {
                    node.take(&job.resources, now);
                    matching.placed.push(Placement { job_id: job.job_id, node_id: node.node_id, rate });
                }
            }
            Err(why) => matching.waiting.push(Waiting { job_id: job.job_id, why: job.told(why) }),
        }
    }
    matching
}

/// What an hour of `resources` costs on a node: its price times the largest share taken of anything it lends, rounded up.
/// `None` when the node does not lend that much.
#[must_use]
pub fn rate(offer: &Offer, resources: &Resources) -> Option<HourlyRate> {
    let shares = [
        (u64::from(resources.cpu_millis), u64::from(offer.cpu_millis)),
        (resources.memory_bytes, offer.memory_bytes),
        (resources.disk_bytes, offer.disk_bytes),
        (u64::from(resources.gpus), u64::from(offer.gpus)),
    ];
    let mut micros = 1;
    for (asked, lent) in shares {
        if asked > lent {
            return None;
        }
        if lent > 0 {
            let price = i128::from(offer.price_min.micros());
            let part = (price * i128::from(asked) + i128::from(lent) - 1) / i128::from(lent);
            micros = micros.max(i64::try_from(part).ok()?);
        }
    }
    HourlyRate::try_from(micros).ok()
}

impl Node {
    /// Whether `asked` fits beside what is in use.
    #[must_use]
    pub fn has_free(&self, asked: &Resources) -> bool {
        let fits = |used: u64, asked: u64, lent: u64| used.saturating_add(asked) <= lent;
        fits(self.used.cpu_millis.into(), asked.cpu_millis.into(), self.offer.cpu_millis.into())
            && fits(self.used.memory_bytes, asked.memory_bytes, self.offer.memory_bytes)
            && fits(self.used.disk_bytes, asked.disk_bytes, self.offer.disk_bytes)
            && fits(self.used.gpus.into(), asked.gpus.into(), self.offer.gpus.into())
    }

    fn take(&mut self, asked: &Resources, now: Timestamp) {
        self.used = add(&self.used, asked);
        self.leased_at = Some(now);
    }
}

/// The sum of what two leases use.
#[must_use]
pub fn add(a: &Resources, b: &Resources) -> Resources {
    Resources {
        cpu_millis: a.cpu_millis.saturating_add(b.cpu_millis),
        memory_bytes: a.memory_bytes.saturating_add(b.memory_bytes),
        disk_bytes: a.disk_bytes.saturating_add(b.disk_bytes),
        gpus: a.gpus.saturating_add(b.gpus),
    }
}

/// Narrows the nodes down requirement by requirement; where nothing is left, that requirement is why the job waits.
fn choose(nodes: &[Node], job: &Job, now: Timestamp) -> Result<(usize, HourlyRate), String> {
    let candidates = suitable(nodes, job)?;
    let affordable = within_price(&candidates, job)?;
    let fresh: Vec<_> = affordable.iter().copied().filter(|c| job.failed_at(c.node.node_id).is_none()).collect();
    let pool = if fresh.is_empty() { rested(&affordable, job, now)? } else { fresh };
    let free = pool.iter().filter(|c| c.node.has_free(&job.resources));
    let best = free.min_by_key(|c| (c.rate, c.node.leased_at, c.node.node_id));
    best.map(|c| (c.index, c.rate)).ok_or_else(|| match pool.len() {
        1 => "the only node that fits is busy with other jobs".to_owned(),
        count => format!("all {count} nodes that fit are busy with other jobs"),
    })
}

#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    index: usize,
    node: &'a Node,
    rate: HourlyRate,
}

fn suitable<'a>(nodes: &'a [Node], job: &Job) -> Result<Vec<Candidate<'a>>, String> {
    let wanted = &job.requirements;
    let mut left: Vec<(usize, &Node)> = nodes.iter().enumerate().filter(|(_, n)| n.takes_leases).collect();
    if left.is_empty() {
        return Err("no node is online and takes jobs".to_owned());
    }
    if let Some(node_id) = wanted.node_id {
        left.retain(|(_, n)| n.node_id == node_id);
        if left.is_empty() {
            return Err(format!("the node it asks for, {node_id}, is not online or takes no jobs"));
        }
    }
    if let Some(architecture) = &wanted.architecture {
        left.retain(|(_, n)| n.architecture == *architecture);
        if left.is_empty() {
            return Err(format!("no node online has the processor architecture {architecture}"));
        }
    }
    believed(&mut left, wanted)?;
    if let Some(score_min) = wanted.score_min {
        let best = left.iter().filter_map(|(_, n)| n.score).max();
        left.retain(|(_, n)| n.score.is_some_and(|s| s >= score_min));
        if left.is_empty() {
            let best = best.map_or_else(|| "none has a score".to_owned(), |s| format!("the best has {s}"));
            return Err(format!("no node online has a hardware score of {score_min}; {best}"));
        }
    }
    shut_in(&mut left, job)?;
    let fits = |(index, node): &(usize, &'a Node)| {
        rate(&node.offer, &job.resources).map(|rate| Candidate { index: *index, node, rate })
    };
    let candidates: Vec<_> = left.iter().filter_map(fits).collect();
    if candidates.is_empty() { Err(too_small(&left, &job.resources)) } else { Ok(candidates) }
}

/// Keeps the nodes whose hardware is believed as far as it has to be.
fn believed(left: &mut Vec<(usize, &Node)>, wanted: &Requirements) -> Result<(), String> {
    left.retain(|(_, n)| n.proof != ProofState::Suspended);
    if left.is_empty() {
        return Err("no node online passes its challenges".to_owned());
    }
    left.retain(|(_, n)| !wanted.proven || n.proof == ProofState::Proven);
    if left.is_empty() { Err("no node online has proven its hardware lately".to_owned()) } else { Ok(()) }
}

/// Keeps the nodes that separate the job from their owners as well as it asks, and let it as far out as it asks.
fn shut_in(left: &mut Vec<(usize, &Node)>, job: &Job) -> Result<(), String> {
    if let Some(wanted) = job.requirements.isolation {
        left.retain(|(_, n)| gives(&n.offer, wanted));
        if left.is_empty() {
            return Err(format!("no node online gives {}", isolation_in_words(wanted)));
        }
    }
    left.retain(|(_, n)| reaches(&n.offer, &job.network));
    if left.is_empty() {
        return Err("no node online lets jobs reach the internet".to_owned());
    }
    if job.network.domains.is_empty() {
        return Ok(());
    }
    left.retain(|(_, n)| n.offer.domains.is_some());
    if left.is_empty() {
        return Err("no node online can keep a job to some domains".to_owned());
    }
    left.retain(|(_, n)| keeps_to(&n.offer, &job.network));
    if left.is_empty() { Err("no node online lends all the domains that it names".to_owned()) } else { Ok(()) }
}

/// A reach that this build does not know is more than none.
fn reaches(offer: &Offer, network: &NetworkSpec) -> bool {
    offer.internet || network.reach == Reach::None
}

/// Whether a job can be kept to the domains it names, and the owner lends all of them.
fn keeps_to(offer: &Offer, network: &NetworkSpec) -> bool {
    let Some(lent) = &offer.domains else { return network.domains.is_empty() };
    let read = |list: &[String]| list.iter().filter_map(|domain| domain.parse().ok()).collect::<Vec<DomainPattern>>();
    let (asked, readable) = (read(&network.domains), read(lent));
    let whole = asked.len() == network.domains.len() && (lent.is_empty() || !readable.is_empty());
    whole && within(&asked, &readable).is_ok()
}

/// Whether a job that needs `wanted` can have it or better; a node that names none gives plain containers.
fn gives(offer: &Offer, wanted: Isolation) -> bool {
    let plain = offer.isolation.is_empty() && Isolation::Container.satisfies(wanted);
    plain || offer.isolation.iter().any(|here| here.satisfies(wanted))
}

/// Whether a node that may have changed its offer since it was chosen still shuts the job in as it asks.
#[must_use]
pub fn still_shuts_in(offer: &Offer, requirements: &Requirements, network: &NetworkSpec) -> bool {
    let apart = requirements.isolation.is_none_or(|wanted| gives(offer, wanted));
    apart && reaches(offer, network) && keeps_to(offer, network)
}

const fn isolation_in_words(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Container => "plain containers",
        Isolation::UserNamespace => "user namespace isolation",
        Isolation::Gvisor => "gVisor isolation",
        Isolation::Kata => "Kata isolation",
        Isolation::Unknown => "the isolation it asks for",
    }
}

/// Names the resource that no node lends enough of; where each alone would do, says so.
fn too_small(nodes: &[(usize, &Node)], asked: &Resources) -> String {
    let most = |lent: fn(&Offer) -> u64| nodes.iter().map(|(_, n)| lent(&n.offer)).max().unwrap_or(0);
    let cpu = most(|o| o.cpu_millis.into());
    let memory = most(|o| o.memory_bytes);
    let disk = most(|o| o.disk_bytes);
    let gpus = most(|o| o.gpus.into());
    if u64::from(asked.cpu_millis) > cpu {
        return format!(
            "it asks for {} CPU cores and no node online lends more than {}",
            cores(asked.cpu_millis.into()),
            cores(cpu)
        );
    }
    if asked.memory_bytes > memory {
        return format!(
            "it asks for {} MiB of memory and no node online lends more than {} MiB",
            asked.memory_bytes >> 20,
            memory >> 20
        );
    }
    if asked.disk_bytes > disk {
        return format!(
            "it asks for {} MiB of disk and no node online lends more than {} MiB",
            asked.disk_bytes >> 20,
            disk >> 20
        );
    }
    if u64::from(asked.gpus) > gpus {
        return format!("it asks for {} GPUs and no node online lends more than {gpus}", asked.gpus);
    }
    "no single node online lends all that it asks for together".to_owned()
}

fn cores(millis: u64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000).trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn within_price<'a>(candidates: &[Candidate<'a>], job: &Job) -> Result<Vec<Candidate<'a>>, String> {
    let affordable: Vec<_> = candidates.iter().copied().filter(|c| c.rate <= job.price_max).collect();
    if affordable.is_empty() {
        let cheapest = candidates.iter().map(|c| c.rate).min().unwrap_or(HourlyRate::MAX);
        return Err(format!("the cheapest fitting node asks {cheapest}, the job pays at most {}", job.price_max));
    }
    Ok(affordable)
}

/// Nodes the job failed on that may try again: only when there is no other, and only after a rest.
fn rested<'a>(affordable: &[Candidate<'a>], job: &Job, now: Timestamp) -> Result<Vec<Candidate<'a>>, String> {
    let rest = SignedDuration::from_secs(RETRY_SECONDS << job.lease_count.saturating_sub(1).min(10));
    let is_rested = |c: &Candidate<'_>| job.failed_at(c.node.node_id).is_none_or(|at| now.duration_since(at) >= rest);
    let rested: Vec<_> = affordable.iter().copied().filter(is_rested).collect();
    if rested.is_empty() {
        return Err(format!("the next try comes within {} s", rest.as_secs()));
    }
    Ok(rested)
}

impl Job {
    /// Why it waits; of a job that has failed before, first how, for that is what its renter can do something about.
    fn told(&self, why: String) -> String {
        match &self.last_failure {
            Some(failure) => format!("queued again: {failure}; {why}"),
            None => why,
        }
    }

    fn failed_at(&self, node_id: NodeId) -> Option<Timestamp> {
        self.failed_on.iter().filter(|(node, _)| *node == node_id).map(|(_, at)| *at).max()
    }
}

#[cfg(test)]
mod tests;
