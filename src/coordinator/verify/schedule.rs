//! Who is challenged now.
//!
//! Invariants
//! - A node with a lease, one that does not say that it is free, and one that has used up its hour, is not challenged.
//! - When one node of an owner is due, all of the owner's free nodes are challenged with it, at the same moment.
//! - Within an hour no node computes for longer than [`HOUR_MILLIS_MAX`] for challenges.

use std::collections::BTreeMap;

use crate::wire::{AccountId, NodeId};

/// Milliseconds of computing for challenges in any hour.
pub const HOUR_MILLIS_MAX: u64 = 10_000;

/// A node that could be challenged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node_id: NodeId,
    /// Its owner.
    pub account_id: AccountId,
    /// Whether its time has come.
    pub due: bool,
    /// Whether it is idle by its own word and by ours, and listens.
    pub free: bool,
    /// Milliseconds it has computed for challenges within the last hour.
    pub spent_millis: u64,
    /// Milliseconds of computing that the next challenge is planned at.
    pub cost_millis: u64,
}

impl Candidate {
    /// Whether the challenge fits into the hour. One that would not fit into an empty hour may have the whole of it.
    const fn fits(&self) -> bool {
        self.spent_millis == 0 || self.spent_millis.saturating_add(self.cost_millis) <= HOUR_MILLIS_MAX
    }
}

/// The nodes to challenge, those of one owner together. An owner who waits for the hour of one node waits with all of them: a
/// node that is left out could lend its card to the others.
#[must_use]
pub fn rounds(candidates: &[Candidate]) -> Vec<Vec<NodeId>> {
    let mut owners: BTreeMap<AccountId, Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates.iter().filter(|candidate| candidate.free) {
        owners.entry(candidate.account_id).or_default().push(candidate);
    }
    let ripe = |nodes: &Vec<&Candidate>| nodes.iter().any(|node| node.due) && nodes.iter().all(|node| node.fits());
    let ripe = owners.into_values().filter(ripe);
    ripe.map(|nodes| nodes.into_iter().map(|node| node.node_id).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id<T: From<uuid::Uuid>>(number: u8) -> T {
        uuid::Uuid::from_bytes([number; 16]).into()
    }

    fn node(number: u8, owner: u8) -> Candidate {
        let (node_id, account_id) = (id(number), id(owner));
        Candidate { node_id, account_id, due: false, free: true, spent_millis: 0, cost_millis: 6_000 }
    }

    #[test]
    fn all_free_nodes_of_an_owner_are_challenged_together_and_nobody_elses() {
        let nodes =
            [Candidate { due: true, ..node(1, 1) }, node(2, 1), node(3, 2), Candidate { free: false, ..node(4, 1) }];
        assert_eq!(rounds(&nodes), [vec![id::<NodeId>(1), id(2)]]);
        assert!(rounds(&nodes[1..]).is_empty(), "nobody is due");
    }

    #[test]
    fn a_node_that_is_busy_or_paused_is_never_challenged() {
        assert!(rounds(&[Candidate { due: true, free: false, ..node(1, 1) }]).is_empty());
    }

    #[test]
    fn ten_seconds_an_hour_are_not_passed_and_an_owner_waits_with_all_nodes() {
        let due = Candidate { due: true, ..node(1, 1) };
        assert!(rounds(&[Candidate { spent_millis: 4_001, ..due }]).is_empty());
        assert_eq!(rounds(&[Candidate { spent_millis: 4_000, ..due }]).len(), 1);
        assert!(rounds(&[due, Candidate { spent_millis: 4_001, ..node(2, 1) }]).is_empty());
        assert_eq!(
            rounds(&[Candidate { cost_millis: 60_000, ..due }]).len(),
            1,
            "a very slow node has one challenge an hour"
        );
    }

    #[test]
    fn whatever_the_durations_no_hour_has_more_than_ten_seconds() {
        for millis in [500, 1_700, 2_500, 3_300, 5_000, 6_500, 9_999] {
            // Due all the time, asked every second for three hours; each challenge takes all it may.
            let mut done: Vec<u64> = Vec::new();
            for second in 0..3 * 3_600u64 {
                let recent = done.iter().filter(|at| second - **at < 3_600).count() as u64;
                let asked = Candidate { due: true, spent_millis: recent * millis, cost_millis: millis, ..node(1, 1) };
                if !rounds(&[asked]).is_empty() {
                    done.push(second);
                }
                let recent = done.iter().filter(|at| second - **at < 3_600).count() as u64;
                assert!(recent * millis <= HOUR_MILLIS_MAX, "{millis}");
            }
            assert!(!done.is_empty());
        }
    }
}
