//! Which lease has which of the node's GPUs. Pure but for the lock around it.
//!
//! Invariants
//! - No card is with two leases at once, also when cards come and go in between.
//! - What a lease has it keeps until it gives it back: asking again gives the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::runtime::gpu::{GpuBinding, GpuCard};
use crate::wire::LeaseId;

/// The node's GPUs. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Gpus(Arc<Mutex<Pool>>, Look);

/// How the machine's own cards are looked at, without any container.
#[derive(Debug, Clone, Copy)]
struct Look(fn() -> Vec<GpuCard>);

impl Default for Look {
    fn default() -> Self {
        Self(Vec::new)
    }
}

#[derive(Debug, Default)]
struct Pool {
    cards: Vec<GpuBinding>,
    taken: BTreeMap<LeaseId, Vec<GpuBinding>>,
}

impl Gpus {
    /// GPUs of a machine whose cards `look` finds; it may block.
    #[must_use]
    pub fn new(look: fn() -> Vec<GpuCard>) -> Self {
        Self(Arc::default(), Look(look))
    }

    /// The machine's own cards at this moment. Blocks.
    #[must_use]
    pub fn on_the_machine(&self) -> Vec<GpuCard> {
        (self.1.0)()
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are there now. A card that is gone stays with the lease that has it, which notices by itself.
    pub fn set_cards(&self, cards: Vec<GpuBinding>) {
        self.pool().cards = cards;
    }

    /// Gives a lease `count` free cards, or what it has already. `None` when not as many are free.
    #[must_use]
    pub fn take(&self, lease_id: LeaseId, count: u32) -> Option<Vec<GpuBinding>> {
        let mut pool = self.pool();
        if let Some(has) = pool.taken.get(&lease_id) {
            return Some(has.clone());
        }
        let count = usize::try_from(count).ok()?;
        let free = pool.cards.iter().filter(|card| !pool.taken.values().flatten().any(|other| same_card(other, card)));
        let chosen: Vec<GpuBinding> = free.take(count).cloned().collect();
        if chosen.len() < count {
            return None;
        }
        pool.taken.insert(lease_id, chosen.clone());
        Some(chosen)
    }

    /// A lease of an earlier start has these.
    pub fn claim(&self, lease_id: LeaseId, cards: &[GpuBinding]) {
        if !cards.is_empty() {
            self.pool().taken.insert(lease_id, cards.to_vec());
        }
    }

    /// A lease is over and its container removed.
    pub fn give_back(&self, lease_id: LeaseId) {
        self.pool().taken.remove(&lease_id);
    }
}

/// By what stays the same of a card: the number of a render node may be another's after a start.
fn same_card(a: &GpuBinding, b: &GpuBinding) -> bool {
    match (a, b) {
        (GpuBinding::Nvidia { uuid: a }, GpuBinding::Nvidia { uuid: b }) => a == b,
        (GpuBinding::RenderNode { pci: a, .. }, GpuBinding::RenderNode { pci: b, .. }) => a == b,
        (GpuBinding::Nvidia { .. }, GpuBinding::RenderNode { .. })
        | (GpuBinding::RenderNode { .. }, GpuBinding::Nvidia { .. }) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lease(n: u8) -> LeaseId {
        uuid::Uuid::from_bytes([n; 16]).into()
    }

    fn card(n: u8) -> GpuBinding {
        if n.is_multiple_of(2) {
            GpuBinding::Nvidia { uuid: format!("GPU-{n}") }
        } else {
            GpuBinding::RenderNode {
                path: format!("/dev/dri/renderD{n}"),
                pci: format!("0000:{n:02x}:00.0"),
                group: 44,
            }
        }
    }

    #[test]
    fn a_lease_keeps_its_card_over_restarts_and_nobody_else_gets_it() {
        let gpus = Gpus::default();
        gpus.claim(lease(1), &[card(2)]);
        gpus.set_cards(vec![card(2), card(3)]);
        assert_eq!(gpus.take(lease(2), 2), None);
        assert_eq!(gpus.take(lease(2), 1), Some(vec![card(3)]));
        assert_eq!(gpus.take(lease(1), 1), Some(vec![card(2)]));
        gpus.give_back(lease(1));
        assert_eq!(gpus.take(lease(3), 1), Some(vec![card(2)]));
    }

    #[derive(Debug, Clone)]
    enum Doing {
        Take(u8, u32),
        GiveBack(u8),
        Cards(Vec<u8>),
    }

    fn doing() -> impl Strategy<Value = Doing> {
        prop_oneof![
            (0u8..6, 0u32..4).prop_map(|(l, n)| Doing::Take(l, n)),
            (0u8..6).prop_map(Doing::GiveBack),
            prop::collection::vec(0u8..8, 0..8).prop_map(Doing::Cards),
        ]
    }

    proptest! {
        #[test]
        fn no_card_is_ever_with_two_leases(steps in prop::collection::vec(doing(), 0..60)) {
            let gpus = Gpus::default();
            for step in steps {
                match step {
                    Doing::Take(l, n) => {
                        let had = gpus.pool().taken.get(&lease(l)).cloned();
                        let got = gpus.take(lease(l), n);
                        if let Some(had) = had {
                            prop_assert_eq!(got, Some(had));
                        } else if let Some(got) = got {
                            prop_assert_eq!(got.len(), usize::try_from(n).unwrap());
                        }
                    }
                    Doing::GiveBack(l) => gpus.give_back(lease(l)),
                    Doing::Cards(mut cards) => {
                        cards.sort_unstable();
                        cards.dedup();
                        gpus.set_cards(cards.into_iter().map(card).collect());
                    }
                }
                let pool = gpus.pool();
                let all: Vec<_> = pool.taken.values().flatten().collect();
                let mut once = all.clone();
                once.sort();
                once.dedup();
                prop_assert_eq!(once.len(), all.len());
            }
        }
    }
}
