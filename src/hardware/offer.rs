//! What of the machine is lent. Pure.
//!
//! Defaults leave the owner a usable machine:
//! - CPU: every hardware thread but one; of a single thread, half.
//! - Memory: all but 2 GiB or a quarter, whichever is more; on small machines at least a quarter is lent.
//! - Disk: half of what is free, and 10 GiB stay free.
//! - GPUs: every one that the container engine can hand over, and no other.
//!
//! More CPU or memory than the machine has is an error, for it cannot become true. Disk and GPUs come and go (a full disk, an
//! external card), so an offer of more is cut to what is there.

use super::{HardwareError, OfferLimits};
use crate::wire::money::HourlyRate;
use crate::wire::node::{Host, Offer};

const GIB: u64 = 1 << 30;

/// The offer of an owner who set nothing but a price.
#[must_use]
pub fn default_offer(host: &Host, gpus_bound: u32, price_min: HourlyRate) -> Offer {
    defaults(host, host.cpu_threads.saturating_mul(1000), gpus_bound, price_min)
}

fn defaults(host: &Host, cpu_millis: u32, gpus: u32, price_min: HourlyRate) -> Offer {
    let memory_kept = (2 * GIB).max(host.memory_bytes / 4);
    Offer {
        cpu_millis: if cpu_millis > 1000 { cpu_millis - 1000 } else { cpu_millis / 2 },
        memory_bytes: host.memory_bytes.saturating_sub(memory_kept).max(host.memory_bytes / 4),
        disk_bytes: (host.disk_bytes_free / 2).min(host.disk_bytes_free.saturating_sub(10 * GIB)),
        gpus,
        price_min,
        internet: false,
        domains: None,
        isolation: Vec::new(),
    }
}

/// The owner's limits over the defaults, checked against the machine. `cpu_millis` is what may be used of the processor.
pub(super) fn settle(host: &Host, cpu_millis: u32, gpus: u32, limits: &OfferLimits) -> Result<Offer, HardwareError> {
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

    fn nothing_said() -> OfferLimits {
        OfferLimits { cpu_millis: None, memory_bytes: None, disk_bytes: None, gpus: None, price_min: HourlyRate::MIN }
    }

    #[test]
    fn the_owner_keeps_a_core_a_quarter_of_the_memory_and_half_the_disk() {
        let offer = settle(&machine(16, 32 * GIB, 200 * GIB), 16_000, 0, &nothing_said()).unwrap();
        assert_eq!((offer.cpu_millis, offer.memory_bytes, offer.disk_bytes), (15_000, 24 * GIB, 100 * GIB));
    }

    #[test]
    fn a_small_machine_still_lends_something() {
        let offer = settle(&machine(1, 2 * GIB, 12 * GIB), 1_000, 0, &nothing_said()).unwrap();
        assert_eq!((offer.cpu_millis, offer.memory_bytes, offer.disk_bytes), (500, GIB / 2, 2 * GIB));
    }

    #[test]
    fn no_more_gpus_are_lent_than_can_be_given_to_a_container() {
        for (bound, asked, lent) in [(2, None, 2), (2, Some(4), 2), (2, Some(1), 1), (0, Some(4), 0)] {
            let limits = OfferLimits { gpus: asked, ..nothing_said() };
            assert_eq!(settle(&machine(4, 8 * GIB, 50 * GIB), 4_000, bound, &limits).unwrap().gpus, lent);
        }
    }

    #[test]
    fn more_cpu_or_memory_than_there_is_is_refused_with_the_key_to_change() {
        let host = machine(4, 8 * GIB, 50 * GIB);
        let cpu = settle(&host, 4_000, 0, &OfferLimits { cpu_millis: Some(4_001), ..nothing_said() }).unwrap_err();
        assert!(cpu.to_string().contains("lower offer.cpus"), "{cpu}");
        let memory =
            settle(&host, 4_000, 0, &OfferLimits { memory_bytes: Some(9 * GIB), ..nothing_said() }).unwrap_err();
        assert!(memory.to_string().contains("lower offer.memory"), "{memory}");
        let nothing = settle(&host, 4_000, 0, &OfferLimits { cpu_millis: Some(0), ..nothing_said() }).unwrap_err();
        assert!(nothing.to_string().contains("raise offer.cpus"), "{nothing}");
    }

    #[test]
    fn a_disk_that_filled_up_cuts_the_offer() {
        let asked = OfferLimits { disk_bytes: Some(100 * GIB), ..nothing_said() };
        assert_eq!(settle(&machine(4, 8 * GIB, 30 * GIB), 4_000, 0, &asked).unwrap().disk_bytes, 30 * GIB);
    }

    proptest! {
        #[test]
        fn the_default_never_exceeds_the_machine(threads in 1u32..512, memory in 1u64 << 20..1 << 44, disk in 0u64..1 << 50) {
            let offer = settle(&machine(threads, memory, disk), threads * 1000, 0, &nothing_said()).unwrap();
            prop_assert!(offer.cpu_millis > 0 && offer.cpu_millis < threads * 1000);
            prop_assert!(offer.memory_bytes > 0 && offer.memory_bytes < memory);
            prop_assert!(offer.disk_bytes <= disk / 2);
        }
    }
}
