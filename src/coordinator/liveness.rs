//! Heartbeats, in memory: when each node was last heard from, and what it said.
//!
//! Invariants
//! - A heartbeat that is older than the newest of its boot, or of a boot that was followed by another, changes nothing.
//! - A node counts as silent only after it could have been heard for its whole grace: a coordinator that just started
//!   gives every node a fresh one, and so does one whose machine slept.
//! - Losing this memory loses nothing but time: nodes say it all again with their next heartbeat.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::store::LiveRow;
use crate::clock::Steady;
use crate::wire::node::{Heartbeat, NodeState};
use crate::wire::{BootId, Generation, LeaseId, NodeId, Sequence};

/// Earlier boots remembered per node, so that their delayed heartbeats are known as such.
const BOOTS_MAX: usize = 8;
/// Longest reason kept.
const REASON_CHARS_MAX: usize = 300;
/// Heartbeats per second the coordinator wants at most; beyond it the interval stretches.
const HEARTBEATS_PER_SECOND: u32 = 50;

/// Passes come every few seconds; a longer gap than this, and than the grace, means that the machine slept.
const PASS_GAP_MIN: Duration = Duration::from_secs(30);

/// When each node was last heard from, and what it said.
#[derive(Debug, Default)]
pub(crate) struct Liveness(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    watching_since: Option<Steady>,
    looked_at: Option<Steady>,
    nodes: HashMap<NodeId, Heard>,
    missing: HashMap<LeaseId, Steady>,
}

#[derive(Debug)]
struct Heard {
    boot_id: BootId,
    boots_before: VecDeque<BootId>,
    sequence: Sequence,
    state: NodeState,
    reason: Option<String>,
    acted: Generation,
    leases: BTreeSet<LeaseId>,
    at: Timestamp,
    steady: Steady,
    interval: Duration,
    flushed: bool,
}

/// What a heartbeat changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing: it was old.
    Stale,
    /// The node is still there.
    Same,
    /// The node can take leases now and could not before.
    TakesLeases,
}

/// A node as it was last heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The node.
    pub(crate) node_id: NodeId,
    /// Its boot.
    pub(crate) boot_id: BootId,
    /// Newest sequence of that boot.
    pub(crate) sequence: Sequence,
    /// Where it stands.
    pub(crate) state: NodeState,
    /// Why, in its own words.
    pub(crate) reason: Option<String>,
    /// When.
    pub(crate) at: Timestamp,
}

impl Liveness {
    /// From now on nodes can be heard. Only the first call counts.
    pub(crate) fn watch_from(&self, now: Steady) {
        self.lock().watching_since.get_or_insert(now);
    }

    /// A pass over the nodes begins. Where the one before was so long ago that no node could be heard for its grace, every
    /// node gets a fresh one. Returns whether that is so.
    pub(crate) fn look(&self, grace_min: Duration, now: Steady) -> bool {
        let mut inner = self.lock();
        let before = inner.looked_at.replace(now);
        let slept = before.is_some_and(|before| now.since(before) > grace_min.max(PASS_GAP_MIN));
        if slept {
            inner.watching_since = Some(now);
            inner.missing.clear();
        }
        slept
    }

    /// Takes a heartbeat and says when to send the next one.
    pub(crate) fn take(
        &self,
        node_id: NodeId,
        heartbeat: &Heartbeat,
        base: Duration,
        (at, now): (Timestamp, Steady),
    ) -> (Taken, Duration) {
        let mut inner = self.lock();
        let nodes = u32::try_from(inner.nodes.len()).unwrap_or(u32::MAX);
        let interval = base.max((Duration::from_secs(1) / HEARTBEATS_PER_SECOND).saturating_mul(nodes));
        let before = inner.nodes.get(&node_id);
        if before.is_some_and(|b| b.is_newer_than(heartbeat)) {
            return (Taken::Stale, interval);
        }
        let took_leases = before.is_some_and(|b| b.state.takes_leases() && !b.is_silent(Duration::ZERO, now));
        let boots_before = before.map(|b| b.boots_up_to(heartbeat.boot_id)).unwrap_or_default();
        let heard = Heard {
            boot_id: heartbeat.boot_id,
            boots_before,
            sequence: heartbeat.sequence,
            state: heartbeat.state,
            reason: heartbeat.reason.as_ref().map(|r| r.chars().take(REASON_CHARS_MAX).collect()),
            acted: heartbeat.assignment_generation,
            leases: heartbeat.leases.iter().map(|l| l.lease_id).collect(),
            at,
            steady: now,
            interval,
            flushed: false,
        };
        let newly = heard.state.takes_leases() && !took_leases;
        inner.nodes.insert(node_id, heard);
        (if newly { Taken::TakesLeases } else { Taken::Same }, interval)
    }

    /// Whether a node was not heard from for longer than its grace (at least `grace_min`).
    pub(crate) fn is_silent(&self, node_id: NodeId, grace_min: Duration, now: Steady) -> bool {
        let inner = self.lock();
        match (inner.nodes.get(&node_id), inner.watching_since) {
            (Some(heard), Some(since)) => heard.is_silent(grace_min, now) && now.since(since) > heard.grace(grace_min),
            (Some(heard), None) => heard.is_silent(grace_min, now),
            (None, Some(since)) => now.since(since) > grace_min,
            (None, None) => false,
        }
    }

    /// Whether a node was heard from within its grace.
    pub(crate) fn is_online(&self, node_id: NodeId, grace_min: Duration, now: Steady) -> bool {
        self.lock().nodes.get(&node_id).is_some_and(|heard| !heard.is_silent(grace_min, now))
    }

    /// Whether new leases may be placed on a node.
    pub(crate) fn takes_leases(&self, node_id: NodeId, grace_min: Duration, now: Steady) -> bool {
        let inner = self.lock();
        inner.nodes.get(&node_id).is_some_and(|h| h.state.takes_leases() && !h.is_silent(grace_min, now))
    }

    /// How many nodes are online.
    pub(crate) fn count_online(&self, grace_min: Duration, now: Steady) -> usize {
        self.lock().nodes.values().filter(|heard| !heard.is_silent(grace_min, now)).count()
    }

    /// A node as it was last heard since the coordinator started.
    pub(crate) fn seen(&self, node_id: NodeId) -> Option<Seen> {
        self.lock().nodes.get(&node_id).map(|heard| heard.seen(node_id))
    }

    /// Those of `live` that their nodes do not know any more: the node acted on assignments that hold the lease, and for
    /// `patience` has not listed it. Remembers since when, so it must be asked regularly and with all live leases.
    pub(crate) fn forgotten(&self, live: &[LiveRow], patience: Duration, now: Steady) -> Vec<LiveRow> {
        let mut inner = self.lock();
        let missing: Vec<LiveRow> = live.iter().copied().filter(|lease| inner.does_not_list(lease)).collect();
        let still: BTreeSet<LeaseId> = missing.iter().map(|l| l.lease_id).collect();
        inner.missing.retain(|lease, _| still.contains(lease));
        missing
            .into_iter()
            .filter(|lease| now.since(*inner.missing.entry(lease.lease_id).or_insert(now)) > patience)
            .collect()
    }

    /// What was heard since the last call.
    pub(crate) fn unflushed(&self) -> Vec<Seen> {
        let mut inner = self.lock();
        let mut fresh = Vec::new();
        for (node_id, heard) in &mut inner.nodes {
            if !std::mem::replace(&mut heard.flushed, true) {
                fresh.push(heard.seen(*node_id));
            }
        }
        fresh
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn does_not_list(&self, lease: &LiveRow) -> bool {
        self.nodes
            .get(&lease.node_id)
            .is_some_and(|heard| heard.acted >= lease.generation && !heard.leases.contains(&lease.lease_id))
    }
}

impl Heard {
    fn is_newer_than(&self, heartbeat: &Heartbeat) -> bool {
        if heartbeat.boot_id == self.boot_id {
            return heartbeat.sequence <= self.sequence;
        }
        self.boots_before.contains(&heartbeat.boot_id)
    }

    fn is_silent(&self, grace_min: Duration, now: Steady) -> bool {
        now.since(self.steady) > self.grace(grace_min)
    }

    /// Three of the intervals the node was told, and some time for a slow network; never less than `grace_min`. A node that
    /// was told the usual interval has exactly `grace_min`.
    fn grace(&self, grace_min: Duration) -> Duration {
        grace_min.max(self.interval.saturating_mul(3))
    }

    fn boots_up_to(&self, boot_id: BootId) -> VecDeque<BootId> {
        let mut boots = self.boots_before.clone();
        if boot_id != self.boot_id {
            boots.push_back(self.boot_id);
        }
        while boots.len() > BOOTS_MAX {
            boots.pop_front();
        }
        boots
    }

    fn seen(&self, node_id: NodeId) -> Seen {
        Seen {
            node_id,
            boot_id: self.boot_id,
            sequence: self.sequence,
            state: self.state,
            reason: self.reason.clone(),
            at: self.at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::JobId;
    use crate::wire::lease::LeasePhase;
    use crate::wire::node::LeaseReport;

    const GRACE: Duration = Duration::from_secs(105);
    const BASE: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> (Timestamp, Steady) {
        (
            Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap(),
            Steady::from_start(Duration::from_secs(seconds)),
        )
    }

    fn id<T: From<uuid::Uuid>>(n: u8) -> T {
        uuid::Uuid::from_bytes([n; 16]).into()
    }

    fn beat(boot: u8, sequence: u64, state: NodeState) -> Heartbeat {
        Heartbeat {
            boot_id: id(boot),
            sequence: Sequence(sequence),
            state,
            reason: None,
            assignment_generation: Generation(0),
            leases: Vec::new(),
        }
    }

    #[test]
    fn an_older_heartbeat_changes_nothing_even_from_an_earlier_boot() {
        let (liveness, node) = (Liveness::default(), id(1));
        let take = |boot, sequence, state, now| liveness.take(node, &beat(boot, sequence, state), BASE, at(now)).0;
        assert_eq!(take(1, 5, NodeState::Idle, 10), Taken::TakesLeases);
        assert_eq!(take(1, 4, NodeState::Paused, 11), Taken::Stale);
        assert_eq!(take(1, 5, NodeState::Paused, 12), Taken::Stale);
        assert_eq!(take(2, 1, NodeState::Draining, 13), Taken::Same);
        assert_eq!(take(1, 9, NodeState::Idle, 14), Taken::Stale);
        assert!(!liveness.takes_leases(node, GRACE, at(14).1));
        assert_eq!(liveness.seen(node).unwrap().at, at(13).0);
    }

    #[test]
    fn a_node_is_silent_after_its_grace_and_a_fresh_coordinator_waits_as_long() {
        let (liveness, node, unheard) = (Liveness::default(), id(1), id(2));
        liveness.watch_from(at(1_000).1);
        liveness.watch_from(at(2_000).1);
        liveness.take(node, &beat(1, 1, NodeState::Idle), BASE, at(1_050));
        assert!(!liveness.is_silent(node, GRACE, at(1_155).1));
        assert!(liveness.is_silent(node, GRACE, at(1_156).1));
        assert!(!liveness.is_silent(unheard, GRACE, at(1_105).1));
        assert!(liveness.is_silent(unheard, GRACE, at(1_106).1));
        assert!(!liveness.is_online(unheard, GRACE, at(1_001).1), "a node that was never heard is not online");
    }

    #[test]
    fn a_coordinator_that_slept_gives_every_node_a_fresh_grace() {
        let (liveness, node, unheard) = (Liveness::default(), id(1), id(2));
        liveness.watch_from(at(1_000).1);
        liveness.take(node, &beat(1, 1, NodeState::Idle), BASE, at(1_000));
        for awake in (1_000..=1_100).step_by(5) {
            assert!(!liveness.look(GRACE, at(awake).1));
        }
        assert!(liveness.look(GRACE, at(9_000).1), "asleep from 1100 to 9000");
        assert!(!liveness.is_silent(node, GRACE, at(9_105).1) && !liveness.is_silent(unheard, GRACE, at(9_105).1));
        assert!(
            !liveness.takes_leases(node, GRACE, at(9_000).1),
            "nothing is placed on a node before it is heard again"
        );
        assert!(!liveness.look(GRACE, at(9_105).1), "a gap of a grace is none to sleep in");
        assert!(liveness.is_silent(node, GRACE, at(9_106).1) && liveness.is_silent(unheard, GRACE, at(9_106).1));
    }

    #[test]
    fn the_interval_stretches_with_the_number_of_nodes_and_the_grace_with_it() {
        let liveness = Liveness::default();
        let mut told = Duration::ZERO;
        for n in 0..10_000_u32 {
            let node = NodeId::from(uuid::Uuid::from_u128(n.into()));
            told = liveness.take(node, &beat(1, 1, NodeState::Idle), BASE, at(1)).1;
        }
        assert!(told > Duration::from_secs(199) && told <= Duration::from_secs(200), "{told:?}");
        let last = NodeId::from(uuid::Uuid::from_u128(9_999));
        assert!(!liveness.is_silent(last, GRACE, at(1 + 590).1));
        assert!(liveness.is_silent(last, GRACE, at(1 + 601).1));
    }

    #[test]
    fn a_lease_the_node_should_know_and_does_not_list_is_forgotten_after_a_while() {
        let (liveness, node) = (Liveness::default(), id(1));
        let lease = LiveRow { lease_id: id(7), job_id: id::<JobId>(8), node_id: node, generation: Generation(3) };
        let forgotten = |now| liveness.forgotten(&[lease], GRACE, at(now).1);
        let mut heartbeat = beat(1, 1, NodeState::Idle);
        heartbeat.assignment_generation = Generation(2);
        liveness.take(node, &heartbeat, BASE, at(1));
        assert!(forgotten(1).is_empty() && forgotten(500).is_empty(), "the node has not heard of it yet");
        (heartbeat.sequence, heartbeat.assignment_generation) = (Sequence(2), Generation(3));
        liveness.take(node, &heartbeat, BASE, at(501));
        assert!(forgotten(501).is_empty() && forgotten(600).is_empty());
        assert_eq!(forgotten(607), [lease]);
        heartbeat.sequence = Sequence(3);
        heartbeat.leases = vec![LeaseReport { lease_id: lease.lease_id, phase: LeasePhase::Running }];
        liveness.take(node, &heartbeat, BASE, at(608));
        assert!(forgotten(608).is_empty());
    }

    #[test]
    fn each_heartbeat_is_flushed_once() {
        let (liveness, node) = (Liveness::default(), id(1));
        liveness.take(node, &beat(1, 1, NodeState::Idle), BASE, at(1));
        assert_eq!(liveness.unflushed().len(), 1);
        assert_eq!(liveness.unflushed().len(), 0);
        liveness.take(node, &beat(1, 2, NodeState::Idle), BASE, at(2));
        assert_eq!(liveness.unflushed()[0].sequence, Sequence(2));
    }
}
