//! How an adapter fares: temperature, power, clock and what holds it back, from NVIDIA's management library where that is there, and from
//! Linux's hwmon for AMD and Intel. Only the benchmark child comes here, for a vendor's library is mapped into the process.
//!
//! Invariants
//! - What cannot be read is absent; no adapter is measured less for it.
//! - A reading belongs to the adapter of its PCI address.

mod nvml;

use std::path::Path;

use crate::os;
use crate::wire::bench::GpuHealth;

/// A file of hwmon holds one number.
const FILE_BYTES_MAX: u64 = 64;

/// Reads what there is of the adapter at this PCI address.
pub(super) fn read(pci_address: &str) -> Option<GpuHealth> {
    nvml::read(nvml::LIBRARY, pci_address).or_else(|| hwmon(Path::new("/sys/bus/pci/devices"), pci_address))
}

/// hwmon's sensors below a device of `devices`.
fn hwmon(devices: &Path, pci_address: &str) -> Option<GpuHealth> {
    // An address is a name of a folder here; one with a slash in it would lead elsewhere.
    if pci_address.contains('/') {
        return None;
    }
    let sensors = std::fs::read_dir(devices.join(pci_address).join("hwmon")).ok()?.flatten().next()?.path();
    let number = |name: &str| -> Option<f64> {
        os::read_start(&sensors.join(name), FILE_BYTES_MAX)?
            .trim()
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
    };
    let health = GpuHealth {
        temperature_celsius: number("temp1_input").map(|thousandths| thousandths / 1e3),
        power_watts: number("power1_average").or_else(|| number("power1_input")).map(|millionths| millionths / 1e6),
        clock_hertz: number("freq1_input"),
        held_back_by: Vec::new(),
    };
    (health != GpuHealth::default()).then_some(health)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hwmons_sensors_are_read_in_their_units_and_belong_to_their_slot() {
        let devices = tempfile::tempdir().unwrap();
        let sensors = devices.path().join("0000:03:00.0/hwmon/hwmon4");
        std::fs::create_dir_all(&sensors).unwrap();
        for (name, text) in
            [("temp1_input", "61000\n"), ("power1_average", "187000000\n"), ("freq1_input", "2450000000\n")]
        {
            std::fs::write(sensors.join(name), text).unwrap();
        }
        let health = hwmon(devices.path(), "0000:03:00.0").unwrap();
        assert_eq!((health.temperature_celsius, health.power_watts), (Some(61.0), Some(187.0)));
        assert_eq!(health.clock_hertz, Some(2.45e9));
        assert_eq!(hwmon(devices.path(), "0000:04:00.0"), None);
        assert_eq!(hwmon(devices.path(), "../0000:03:00.0"), None);
    }

    #[test]
    fn sensors_that_say_nonsense_or_nothing_are_absent() {
        let devices = tempfile::tempdir().unwrap();
        let sensors = devices.path().join("0000:03:00.0/hwmon/hwmon0");
        std::fs::create_dir_all(&sensors).unwrap();
        assert_eq!(hwmon(devices.path(), "0000:03:00.0"), None);
        std::fs::write(sensors.join("temp1_input"), "hot\n").unwrap();
        std::fs::write(sensors.join("power1_average"), "NaN\n").unwrap();
        assert_eq!(hwmon(devices.path(), "0000:03:00.0"), None);
        std::fs::write(sensors.join("power1_input"), "1500000").unwrap();
        assert_eq!(hwmon(devices.path(), "0000:03:00.0").unwrap().power_watts, Some(1.5));
    }
}
