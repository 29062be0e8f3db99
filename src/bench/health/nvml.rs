//! NVIDIA's management library (NVML), loaded when the program runs; absent is fine.
//!
//! Names, numbers and units are those of NVIDIA's "NVML API Reference Guide".

use std::ffi::{CString, c_char, c_int, c_uint, c_ulonglong, c_void};

use libloading::{Library, Symbol};

use crate::wire::bench::GpuHealth;

/// What the driver installs.
pub(super) const LIBRARY: &str = if cfg!(windows) { "nvml.dll" } else { "libnvidia-ml.so.1" };

const SUCCESS: c_int = 0;
const TEMPERATURE_GPU: c_uint = 0;
const CLOCK_SM: c_uint = 1;
/// `nvmlClocksThrottleReason…`, for people. Idle and limits that the owner set are no trouble and not named.
const REASONS: [(c_ulonglong, &str); 5] = [
    (0x04, "its power limit"),
    (0x08, "a slow-down of the hardware"),
    (0x20, "its temperature"),
    (0x40, "its temperature (hardware)"),
    (0x80, "the power supply"),
];

type Device = *mut c_void;
type NoArguments = unsafe extern "C" fn() -> c_int;
type HandleByPci = unsafe extern "C" fn(*const c_char, *mut Device) -> c_int;
type Number = unsafe extern "C" fn(Device, *mut c_uint) -> c_int;
type NumberOfKind = unsafe extern "C" fn(Device, c_uint, *mut c_uint) -> c_int;
type Reasons = unsafe extern "C" fn(Device, *mut c_ulonglong) -> c_int;

/// Reads what there is of the card at this PCI address; nothing without the library or without such a card.
pub(super) fn read(library: &str, pci_address: &str) -> Option<GpuHealth> {
    let address = CString::new(pci_address).ok()?;
    // SAFETY: loading runs the library's own initialisers. It is the driver's, found as the system finds libraries, in a process that
    // already runs the same driver's graphics code and that nothing depends on.
    let library = unsafe { Library::new(library) }.ok()?;
    // SAFETY: each symbol has the type that NVIDIA's reference gives it.
    unsafe {
        let start: Symbol<'_, NoArguments> = library.get(b"nvmlInit_v2\0").ok()?;
        let stop: Symbol<'_, NoArguments> = library.get(b"nvmlShutdown\0").ok()?;
        if start() != SUCCESS {
            return None;
        }
        let health = device(&library, &address).and_then(|device| health(&library, device));
        stop();
        health
    }
}

/// # Safety
/// The library is started.
unsafe fn device(library: &Library, address: &CString) -> Option<Device> {
    let mut device: Device = std::ptr::null_mut();
    // SAFETY: the type is NVIDIA's; the text ends with a zero and outlives the call, which writes one pointer.
    unsafe {
        let find: Symbol<'_, HandleByPci> = library.get(b"nvmlDeviceGetHandleByPciBusId_v2\0").ok()?;
        (find(address.as_ptr(), &raw mut device) == SUCCESS && !device.is_null()).then_some(device)
    }
}

/// # Safety
/// The library is started, and `device` is a handle of it.
unsafe fn health(library: &Library, device: Device) -> Option<GpuHealth> {
    let mut number: c_uint = 0;
    let mut reasons: c_ulonglong = 0;
    let mut health = GpuHealth::default();
    // SAFETY: the types are NVIDIA's, the handle is the caller's promise, and each call writes one number.
    unsafe {
        if let Ok(temperature) = library.get::<NumberOfKind>(b"nvmlDeviceGetTemperature\0")
            && temperature(device, TEMPERATURE_GPU, &raw mut number) == SUCCESS
        {
            health.temperature_celsius = Some(f64::from(number));
        }
        if let Ok(power) = library.get::<Number>(b"nvmlDeviceGetPowerUsage\0")
            && power(device, &raw mut number) == SUCCESS
        {
            health.power_watts = Some(f64::from(number) / 1e3);
        }
        if let Ok(clock) = library.get::<NumberOfKind>(b"nvmlDeviceGetClockInfo\0")
            && clock(device, CLOCK_SM, &raw mut number) == SUCCESS
        {
            health.clock_hertz = Some(f64::from(number) * 1e6);
        }
        if let Ok(throttled) = library.get::<Reasons>(b"nvmlDeviceGetCurrentClocksThrottleReasons\0")
            && throttled(device, &raw mut reasons) == SUCCESS
        {
            let named = REASONS.into_iter().filter(|(bit, _)| reasons & bit != 0);
            health.held_back_by = named.map(|(_, reason)| reason.to_owned()).collect();
        }
    }
    (health != GpuHealth::default()).then_some(health)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_the_library_has_no_reading() {
        assert_eq!(read("/nowhere/libnvidia-ml.so.1", "0000:01:00.0"), None);
    }

    /// A library with NVML's names that knows one card, at 0000:01:00.0.
    #[cfg(target_os = "linux")]
    const LIKE_NVML: &str = r#"
        #include <string.h>
        static int started;
        int nvmlInit_v2(void) { started = 1; return 0; }
        int nvmlShutdown(void) { started = 0; return 0; }
        int nvmlDeviceGetHandleByPciBusId_v2(const char *at, void **device) {
            if (!started) return 1;
            if (strcmp(at, "0000:01:00.0")) return 6;
            *device = &started;
            return 0;
        }
        int nvmlDeviceGetTemperature(void *d, unsigned kind, unsigned *t) { *t = 83; return kind; }
        int nvmlDeviceGetPowerUsage(void *d, unsigned *mw) { *mw = 312500; return 0; }
        int nvmlDeviceGetClockInfo(void *d, unsigned kind, unsigned *mhz) { *mhz = 1695; return kind == 1 ? 0 : 2; }
        int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *r) { *r = 0x21; return 0; }
    "#;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_card_is_read_in_nvmls_units_and_a_slot_without_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("nvml.c"), folder.path().join("nvml.so"));
        std::fs::write(&source, LIKE_NVML).unwrap();
        let built =
            std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
        assert!(built.unwrap().success());
        let library = library.to_str().unwrap();
        let health = read(library, "0000:01:00.0").unwrap();
        assert_eq!((health.temperature_celsius, health.power_watts), (Some(83.0), Some(312.5)));
        assert_eq!(health.clock_hertz, Some(1.695e9));
        // Being idle (bit 0) is no trouble.
        assert_eq!(health.held_back_by, ["its temperature"]);
        assert_eq!(read(library, "0000:02:00.0"), None);
        assert_eq!(read(library, "\0"), None);
    }
}
