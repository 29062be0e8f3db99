//! The machine as found: host, graphics adapters, and what of it is lent by default.
//!
//! Invariants
//! - What is reported is what may really be used: limits of a container or virtual machine bound it, not `/proc` alone.
//! - Software adapters are listed and labelled, never counted as GPUs of an offer.
//! - [`inventory`] and [`fingerprint`] touch no graphics driver: adapters are handed in, as a child process listed them
//!   (`bench::list_child`, `bench::run_child`), so that no driver is ever mapped into the agent.

#[cfg(feature = "gpu")]
mod adapters;
pub mod cards;
mod cgroup;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
mod host;
mod offer;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::wire::money::HourlyRate;
use crate::wire::node::{Engine, Gpu, Host, Inventory};

pub use offer::default_offer;

/// What the owner wants to lend; what is not said gets a default, see [`default_offer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferLimits {
    /// Thousandths of CPU cores.
    pub cpu_millis: Option<u32>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Disk in bytes.
    pub disk_bytes: Option<u64>,
    /// Hardware GPUs.
    pub gpus: Option<u32>,
    /// Lowest price for the whole offer.
    pub price_min: HourlyRate,
}

/// Why the machine could not be described, or the offer does not fit it.
#[derive(Debug, Error)]
pub enum HardwareError {
    /// The operating system tells nothing.
    #[error("the operating system does not tell what this machine has")]
    Unreadable(#[source] sysinfo::Error),
    /// The folder of the engine cannot be looked at.
    #[error("the free space at {path} cannot be read")]
    Disk {
        /// Where the engine keeps its data.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// More processor time is offered than there is.
    #[error("the offer lends {asked_millis} thousandths of a core, this machine has {have_millis}; lower offer.cpus")]
    CpuTooLarge {
        /// Offered, in thousandths of a core.
        asked_millis: u32,
        /// There, in thousandths of a core.
        have_millis: u32,
    },
    /// More memory is offered than there is.
    #[error("the offer lends {asked_bytes} bytes of memory, this machine has {have_bytes}; lower offer.memory")]
    MemoryTooLarge {
        /// Offered, in bytes.
        asked_bytes: u64,
        /// There, in bytes.
        have_bytes: u64,
    },
    /// Nothing is left to lend.
    #[error("the offer lends no {what}; raise offer.{key}")]
    Nothing {
        /// What is missing.
        what: &'static str,
        /// The key in the configuration.
        key: &'static str,
    },
}

/// Looks at the host and puts the offer together. `gpus` come from a child process, see [`crate::bench::list_child`].
///
/// `gpus_bound` is how many of them the engine can hand to a container: no other is lent, for a renter would pay for a GPU that the
/// job does not see. Takes milliseconds and starts nothing.
///
/// # Errors
/// When the operating system cannot be asked, or when the owner's limits exceed the machine's CPU or memory.
pub fn inventory(
    engine: Engine,
    gpus: Vec<Gpu>,
    gpus_bound: u32,
    limits: &OfferLimits,
    docker_data_dir: &Path,
) -> Result<Inventory, HardwareError> {
    let machine = host::look(docker_data_dir)?;
    let offer = offer::settle(&machine.host, machine.cpu_millis, gpus_bound, limits)?;
    Ok(Inventory { host: machine.host, gpus, engine, offer })
}

/// The host alone.
///
/// # Errors
/// When the operating system cannot be asked.
pub fn host(docker_data_dir: &Path) -> Result<Host, HardwareError> {
    host::look(docker_data_dir).map(|machine| machine.host)
}

/// SHA-256 (hex) over what decides benchmark results: processor, memory class, adapters with drivers, kernel, and `method`
/// (see [`crate::bench::METHOD`]). Free disk space and the order of the adapters do not matter.
#[must_use]
pub fn fingerprint(host: &Host, gpus: &[Gpu], method: u32) -> String {
    // Rounded up: what the kernel keeps for itself varies a little from boot to boot, just below a whole number.
    let memory_gib = host.memory_bytes.div_ceil(1 << 30);
    let mut adapters: Vec<[&str; 5]> = gpus
        .iter()
        .map(|gpu| {
            let pci_address = gpu.pci_address.as_deref().unwrap_or("");
            [gpu.name.as_str(), gpu.vendor.as_str(), gpu.backend.as_str(), gpu.driver.as_str(), pci_address]
        })
        .collect();
    adapters.sort_unstable();

    let mut hash = Sha256::new();
    let mut field = |text: &str| {
        // The length keeps two neighbouring fields from being read as two others.
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    field("fizz hardware 1");
    field(&method.to_string());
    field(&host.architecture);
    field(&host.cpu_model);
    field(&format!("{} cores, {} threads", host.cpu_cores, host.cpu_threads));
    field(&memory_gib.to_string());
    field(&host.kernel);
    for adapter in adapters {
        adapter.into_iter().for_each(&mut field);
    }
    hex::encode(hash.finalize())
}

/// Size of the disk that holds the engine's folder, or will hold it; nothing when the system does not tell.
#[must_use]
pub fn disk_bytes_total(docker_data_dir: &Path) -> Option<u64> {
    let existing = docker_data_dir.ancestors().find(|ancestor| ancestor.exists())?;
    crate::os::disk_bytes_total(existing).ok()
}

/// What this machine calls itself; `node` when it has no name.
#[must_use]
pub fn host_name() -> String {
    sysinfo::System::host_name().ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "node".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::node::GpuKind;

    fn machine() -> Host {
        Host {
            os: "Debian 12".into(),
            kernel: "6.1.0".into(),
            architecture: "amd64".into(),
            cpu_model: "Example 9000".into(),
            cpu_cores: 8,
            cpu_threads: 16,
            memory_bytes: (16 << 30) - (300 << 20),
            disk_bytes_free: 100 << 30,
        }
    }

    fn card(pci_address: &str) -> Gpu {
        Gpu {
            name: "Example RX".into(),
            vendor: "amd".into(),
            kind: GpuKind::Discrete,
            backend: "vulkan".into(),
            driver: "radv 25.1".into(),
            pci_address: Some(pci_address.into()),
            uuid: None,
        }
    }

    #[test]
    fn the_fingerprint_ignores_adapter_order_free_disk_and_a_few_megabytes() {
        let (first, second) = (card("0000:01:00.0"), card("0000:02:00.0"));
        let before = fingerprint(&machine(), &[first.clone(), second.clone()], 1);
        let later = Host { disk_bytes_free: 1, memory_bytes: (16 << 30) - (310 << 20), ..machine() };
        assert_eq!(before, fingerprint(&later, &[second, first], 1));
        assert_eq!(before.len(), 64);
    }

    #[test]
    fn the_fingerprint_changes_with_driver_kernel_processor_memory_slot_and_method() {
        let before = fingerprint(&machine(), &[card("0000:01:00.0")], 1);
        let newer_driver = Gpu { driver: "radv 25.2".into(), ..card("0000:01:00.0") };
        let others = [
            fingerprint(&machine(), &[newer_driver], 1),
            fingerprint(&machine(), &[card("0000:02:00.0")], 1),
            fingerprint(&machine(), &[], 1),
            fingerprint(&machine(), &[card("0000:01:00.0")], 2),
            fingerprint(&Host { kernel: "6.2.0".into(), ..machine() }, &[card("0000:01:00.0")], 1),
            fingerprint(&Host { cpu_model: "Example 9001".into(), ..machine() }, &[card("0000:01:00.0")], 1),
            fingerprint(&Host { memory_bytes: 32 << 30, ..machine() }, &[card("0000:01:00.0")], 1),
        ];
        assert!(others.iter().all(|other| *other != before));
    }

    #[test]
    fn fields_that_run_together_have_different_fingerprints() {
        let left = Gpu { name: "ab".into(), vendor: "c".into(), ..card("x") };
        let right = Gpu { name: "a".into(), vendor: "bc".into(), ..card("x") };
        assert_ne!(fingerprint(&machine(), &[left], 1), fingerprint(&machine(), &[right], 1));
    }
}
