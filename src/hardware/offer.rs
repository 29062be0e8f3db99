//! What of the machine is lent. Pure.
//!
//! Defaults leave the owner a usable machine:
//! - CPU: every hardware thread but one; of a single thread, half.
//! - Memory: all but 2 GiB or a quarter, whichever is more; on small machines at least a quarter is lent.
//! - Disk: half of what is free, and 10 GiB stay free.
//! - GPUs: every hardware adapter, never a software one, once a container can be given one ([`GPUS_REACH_CONTAINERS`]).
//!
//! More CPU or memory than the machine has is an error, for it cannot become true. Disk and GPUs come and go (a full disk, an
//! external card), so an offer of more is cut to what is there.

use super::{HardwareError, OfferLimits};
use crate::wire::money::HourlyRate;
use crate::wire::node::{Gpu, Host, Offer};

const GIB: u64 = 1 << 30;

/// Whether the container runtime can hand a GPU to a job. Until it can, none is lent, whatever the owner asks for: a renter
/// would pay for a GPU that the job does not see.
const GPUS_REACH_CONTAINERS: bool = false;

/// The offer of an owner who set nothing but a price.
#[must_use]
pub fn default_offer(host: &Host, gpus: &[Gpu], price_min: HourlyRate) -> Offer {
    defaults(host, host.cpu_threads.saturating_mul(1000), gpus, price_min)
}

fn defaults(host: &Host, cpu_millis: u32, gpus: &[Gpu], price_min: HourlyRate) -> Offer {
    let memory_kept = (2 * GIB).max(host.memory_bytes / 4);
    Offer {
        cpu_millis: if cpu_millis > 1000 { cpu_millis - 1000 } else { cpu_millis / 2 },
        memory_bytes: host.memory_bytes.saturating_sub(memory_kept).max(host.memory_bytes / 4),
        disk_bytes: (host.disk_bytes_free / 2).min(host.disk_bytes_free.saturating_sub(10 * GIB)),
        gpus: if GPUS_REACH_CONTAINERS { hardware_gpus(gpus) } else { 0 },
        price_min,
        internet: false,
        isolation: Vec::new(),
    }
}

fn hardware_gpus(gpus: &[Gpu]) -> u32 {
    u32::try_from(gpus.iter().filter(|gpu| gpu.kind.is_hardware()).count()).unwrap_or(u32::MAX)
}

/// The owner's limits over the defaults, checked against the machine. `cpu_millis` is what may be used of the processor.
pub(super) fn settle(host: &Host, cpu_millis: u32, gpus: &[Gpu], limits: &OfferLimits) -> Result<Offer, HardwareError> {
    let usual = defaults(host, cpu_millis, gpus, limits.price_min);
    let offer = Offer {
        cpu_millis: limits.cpu_millis.unwrap_or(usual.cpu_millis),
        memory_bytes: limits.memory_bytes.unwrap_or(usual.memory_bytes),
        disk_bytes: limits.disk_bytes.map_or(usual.disk_bytes, |bytes| bytes.min(host.disk_bytes_free)),
        gpus: limits.gpus.map_or(usual.gpus, |gpus| gpus.min(usual.gpus)),
        price_min: limits.price_min,
        ..usual
    };
    if offer.cpu_millis > cpu_millis {
        return Err(HardwareError::CpuTooLarge { asked_millis: offer.cpu_millis, have_millis: cpu_millis });
    }
    if offer.memory_bytes > host.memory_bytes {
        return Err(HardwareError::MemoryTooLarge { asked_bytes: offer.memory_bytes, have_bytes: host.memory_bytes });
    }
    if offer.cpu_millis == 0 {
        return Err(HardwareError::Nothing { what: "processor time", key: "cpus" });
    }
    if offer.memory_bytes == 0 {
        return Err(HardwareError::Nothing { what: "memory", key: "memory" });
    }
    Ok(offer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::node::GpuKind;

    fn machine(threads: u32, memory_bytes: u64, disk_bytes_free: u64) -> Host {
        Host {
            os: "Debian 12".into(),
            kernel: "6.1.0".into(),
            architecture: "amd64".into(),
            cpu_model: "Example 9000".into(),
            cpu_cores: threads,
            cpu_threads: threads,
            memory_bytes,
            disk_bytes_free,
        }
    }

    fn adapter(kind: GpuKind) -> Gpu {
        Gpu {
            name: "Example".into(),
            vendor: "amd".into(),
            kind,
            backend: "vulkan".into(),
            driver: "x".into(),
            pci_address: None,
            uuid: None,
        }
    }

    fn nothing_said() -> OfferLimits {
        OfferLimits { cpu_millis: None, memory_bytes: None, disk_bytes: None, gpus: None, price_min: HourlyRate::MIN }
    }

    #[test]
    fn the_owner_keeps_a_core_a_quarter_of_the_memory_and_half_the_disk() {
        let offer = settle(&machine(16, 32 * GIB, 200 * GIB), 16_000, &[], &nothing_said()).unwrap();
        assert_eq!((offer.cpu_millis, offer.memory_bytes, offer.disk_bytes), (15_000, 24 * GIB, 100 * GIB));
    }

    #[test]
    fn a_small_machine_still_lends_something() {
        let offer = settle(&machine(1, 2 * GIB, 12 * GIB), 1_000, &[], &nothing_said()).unwrap();
        assert_eq!((offer.cpu_millis, offer.memory_bytes, offer.disk_bytes), (500, GIB / 2, 2 * GIB));
    }

    #[test]
    fn software_adapters_are_never_counted() {
        let gpus = [GpuKind::Software, GpuKind::Discrete, GpuKind::Unknown, GpuKind::Integrated].map(adapter);
        assert_eq!(hardware_gpus(&gpus), 2);
        assert_eq!(hardware_gpus(&gpus[..1]), 0);
    }

    #[test]
    fn no_more_gpus_are_lent_than_can_be_given_to_a_container() {
        let gpus = [GpuKind::Discrete, GpuKind::Software].map(adapter);
        let lent = if GPUS_REACH_CONTAINERS { 1 } else { 0 };
        for asked in [None, Some(4)] {
            let limits = OfferLimits { gpus: asked, ..nothing_said() };
            let offer = settle(&machine(4, 8 * GIB, 50 * GIB), 4_000, &gpus, &limits).unwrap();
            assert_eq!(offer.gpus, lent);
        }
    }

    #[test]
    fn more_cpu_or_memory_than_there_is_is_refused_with_the_key_to_change() {
        let host = machine(4, 8 * GIB, 50 * GIB);
        let cpu = settle(&host, 4_000, &[], &OfferLimits { cpu_millis: Some(4_001), ..nothing_said() }).unwrap_err();
        assert!(cpu.to_string().contains("lower offer.cpus"), "{cpu}");
        let memory =
            settle(&host, 4_000, &[], &OfferLimits { memory_bytes: Some(9 * GIB), ..nothing_said() }).unwrap_err();
        assert!(memory.to_string().contains("lower offer.memory"), "{memory}");
        let nothing = settle(&host, 4_000, &[], &OfferLimits { cpu_millis: Some(0), ..nothing_said() }).unwrap_err();
        assert!(nothing.to_string().contains("raise offer.cpus"), "{nothing}");
    }

    #[test]
    fn a_disk_that_filled_up_cuts_the_offer() {
        let asked = OfferLimits { disk_bytes: Some(100 * GIB), ..nothing_said() };
        assert_eq!(settle(&machine(4, 8 * GIB, 30 * GIB), 4_000, &[], &asked).unwrap().disk_bytes, 30 * GIB);
    }

    proptest! {
        #[test]
        fn the_default_never_exceeds_the_machine(threads in 1u32..512, memory in 1u64 << 20..1 << 44, disk in 0u64..1 << 50) {
            let offer = settle(&machine(threads, memory, disk), threads * 1000, &[], &nothing_said()).unwrap();
            prop_assert!(offer.cpu_millis > 0 && offer.cpu_millis < threads * 1000);
            prop_assert!(offer.memory_bytes > 0 && offer.memory_bytes < memory);
            prop_assert!(offer.disk_bytes <= disk / 2);
        }
    }
}
