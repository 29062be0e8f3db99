//! What this node says that it has: hardware as found, and of it what the engine can really give.

use std::path::Path;

use super::{Driver, measure};
use crate::agent::journal::LeaseRecord;
use crate::agent::machine::Event;
use crate::hardware::cards;
use crate::job::gpus::Gpus;
use crate::job::machine::Stage;
use crate::runtime::ContainerRuntime;
use crate::runtime::gpu::{GpuBinding, GpuCard};
use crate::wire::node::Gpu;

/// Where cards are looked for.
const ROOT: &str = "/";

impl Driver {
    /// Puts the inventory together once engine and benchmarks are known.
    pub(super) async fn describe(&mut self) {
        let (Some(engine), Some(runtime)) = (self.engine.clone(), self.runtime.clone()) else { return };
        if self.bench.is_none() && self.notes.bench_failed.is_none() {
            return;
        }
        let mut gpus = self.bench.as_ref().map(|bench| bench.gpus.clone()).unwrap_or_default();
        let found = cards::look(Path::new(ROOT));
        cards::name_adapters(&mut gpus, &found);
        let bound = bound(&gpus, &found, runtime.as_ref());
        self.gpus.set_cards(bound.clone());
        self.cards = found;
        match measure::describe(engine, gpus, bound.len(), &self.options.offer) {
            Ok(mut inventory) => {
                inventory.offer.isolation = runtime.isolation();
                inventory.offer.internet = self.options.ceiling.network.internet && self.isolation.is_shown();
                let lent = self.options.ceiling.network.domains.iter().map(ToString::to_string);
                let keeps = inventory.offer.internet && self.isolation.keeps_to_domains();
                inventory.offer.domains = keeps.then(|| lent.collect());
                self.notes.offer = Some(inventory.offer.clone());
                self.uploads.send_modify(|uploads| uploads.inventory = Some(inventory));
            }
            Err(error) => self.feed(Event::OfferRefused { why: error.to_string() }).await,
        }
    }

    /// A card that was missing at the start, or is gone: everything about GPUs is found out anew. Cheap when nothing changed.
    pub(super) fn look_for_cards(&mut self) {
        if self.bench.is_none() || self.runtime.is_none() || cards::look(Path::new(ROOT)) == self.cards {
            return;
        }
        tracing::info!("the graphics cards of this machine have changed");
        if let Some(journal) = self.journal.clone() {
            let (source, clock, inbox) = (self.options.benchmark.clone(), self.clock.clone(), self.inbox.clone());
            self.tasks.spawn(measure::measure(source, journal, clock, inbox));
        }
    }
}

/// The GPUs that leases of an earlier start have. One that is over has been given back: its container is gone.
pub(super) fn gpus_of(leases: &[LeaseRecord]) -> Gpus {
    let gpus = Gpus::new(|| cards::look(Path::new(ROOT)));
    for record in leases.iter().filter(|record| record.saved.stage != Stage::Over) {
        gpus.claim(record.assignment.lease_id, &record.saved.gpus);
    }
    gpus
}

/// The hardware GPUs that the engine can hand over, each as exactly itself.
fn bound(gpus: &[Gpu], cards: &[GpuCard], runtime: &dyn ContainerRuntime) -> Vec<GpuBinding> {
    let hardware = gpus.iter().filter(|gpu| gpu.kind.is_hardware());
    let found =
        hardware.filter_map(|gpu| cards.iter().find(|card| gpu.pci_address.as_deref() == Some(card.pci.as_str())));
    found.filter_map(|card| runtime.bind_gpu(card)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::runtime::fake::FakeRuntime;
    use crate::wire::node::GpuKind;

    fn gpu(kind: GpuKind, pci: Option<&str>) -> Gpu {
        Gpu {
            name: "x".into(),
            vendor: "nvidia".into(),
            kind,
            backend: "vulkan".into(),
            driver: "x".into(),
            pci_address: pci.map(str::to_owned),
            uuid: None,
        }
    }

    #[test]
    fn only_hardware_that_the_engine_can_hand_over_is_lent() {
        let runtime = FakeRuntime::new(Clock::system());
        let card = |pci: &str, uuid: Option<&str>| GpuCard {
            pci: pci.into(),
            uuid: uuid.map(str::to_owned),
            render_node: None,
            group: 0,
        };
        let cards = [card("0000:01:00.0", Some("GPU-1")), card("0000:02:00.0", None)];
        let gpus = [
            gpu(GpuKind::Discrete, Some("0000:01:00.0")),
            gpu(GpuKind::Discrete, Some("0000:02:00.0")),
            gpu(GpuKind::Discrete, Some("0000:03:00.0")),
            gpu(GpuKind::Discrete, None),
            gpu(GpuKind::Software, Some("0000:01:00.0")),
        ];
        assert_eq!(bound(&gpus, &cards, &runtime), [GpuBinding::Nvidia { uuid: "GPU-1".into() }]);
    }
}
