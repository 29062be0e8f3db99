//! What people type for sizes, cores, durations and money, and how the same is shown back.

use jiff::{SignedDuration, Timestamp};

pub use crate::wire::figures::{show_bytes, show_duration};
use crate::wire::job::{Isolation, Reach};
use crate::wire::{Amount, HourlyRate};

const UNITS: [(&str, u64); 5] = [("b", 1), ("k", 1 << 10), ("m", 1 << 20), ("g", 1 << 30), ("t", 1 << 40)];

/// Reads a size as Docker does: `512m`, `2g`, `1.5GiB`, `1048576`; units are powers of 1024.
///
/// # Errors
/// A sentence that says how to write it.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let bad = || format!("'{text}' is not a size; write it like 512m, 2g or 1GiB");
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let unit = unit.trim();
    let short = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b').filter(|u| !u.is_empty())).unwrap_or(unit);
    let factor = if short.is_empty() {
        1
    } else {
        UNITS.iter().find(|(name, _)| *name == short).map(|(_, factor)| *factor).ok_or_else(bad)?
    };
    let bytes = scaled(number, factor).ok_or_else(bad)?;
    if bytes == 0 { Err(format!("'{text}' is no size: it must be above zero")) } else { Ok(bytes) }
}

/// A size, or `0` for none.
///
/// # Errors
/// A sentence when it is no size.
pub fn parse_disk(text: &str) -> Result<u64, String> {
    if text.trim() == "0" { Ok(0) } else { parse_bytes(text) }
}

/// `number` with at most six decimals times `factor`, rounded down; `None` when it is no number or too large.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || decimals.len() > 6 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole: u128 = whole.parse().ok()?;
    let millionths: u128 = format!("{decimals:0<6}").parse().ok()?;
    let total = whole.checked_mul(1_000_000)?.checked_add(millionths)?.checked_mul(u128::from(factor))?;
    u64::try_from(total / 1_000_000).ok()
}

/// Reads cores as Docker's `--cpus`: `0.5`, `2`; answers in thousandths of a core.
///
/// # Errors
/// A sentence that says how to write it.
pub fn parse_cpus(text: &str) -> Result<u32, String> {
    let millis = scaled(text.trim(), 1000)
        .and_then(|millis| u32::try_from(millis).ok())
        .ok_or_else(|| format!("'{text}' is no number of cores; write it like 0.5 or 2"))?;
    if (10..=1_024_000).contains(&millis) {
        Ok(millis)
    } else {
        Err(format!("a job may have from 0.01 to 1024 cores, not {text}"))
    }
}

/// Reads a kind of isolation as the protocol names it; a dash does as well as an underscore.
///
/// # Errors
/// A sentence that names the kinds.
pub fn parse_isolation(text: &str) -> Result<Isolation, String> {
    match text.replace('-', "_").as_str() {
        "container" => Ok(Isolation::Container),
        "user_namespace" => Ok(Isolation::UserNamespace),
        "gvisor" => Ok(Isolation::Gvisor),
        "kata" => Ok(Isolation::Kata),
        _ => Err(format!("'{text}' is no kind of isolation; there are container, user-namespace, gvisor and kata")),
    }
}

/// Reads how far a job's network reaches.
///
/// # Errors
/// A sentence that says what there is.
pub fn parse_reach(text: &str) -> Result<Reach, String> {
    match text {
        "none" => Ok(Reach::None),
        "internet" => Ok(Reach::Internet),
        _ => Err(format!("'{text}' is no reach; there are none and internet")),
    }
}

/// Reads a duration: `90s`, `10m`, `1h30m`, `2d`, or plain seconds.
///
/// # Errors
/// A sentence that says how to write it.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    let bad = || format!("'{text}' is not a duration; write it like 90s, 10m, 1h30m or 2d");
    let mut total: u64 = 0;
    let mut number = String::new();
    for letter in text.trim().chars() {
        if letter.is_ascii_digit() {
            number.push(letter);
            continue;
        }
        let unit: u64 = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(bad()),
        };
        let count: u64 = std::mem::take(&mut number).parse().map_err(|_| bad())?;
        total = count.checked_mul(unit).and_then(|seconds| total.checked_add(seconds)).ok_or_else(bad)?;
    }
    if !number.is_empty() {
        // A bare number is seconds; a number after a unit lacks its own.
        if total > 0 {
            return Err(bad());
        }
        total = number.parse().map_err(|_| bad())?;
    }
    if total == 0 { Err(format!("'{text}' is no duration: it must be above zero")) } else { Ok(total) }
}

/// Reads a highest price per hour in dollars.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn parse_rate(text: &str) -> Result<HourlyRate, String> {
    text.strip_suffix("/h").unwrap_or(text).parse::<HourlyRate>().map_err(|error| error.to_string())
}

/// Reads an amount above zero in dollars.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn parse_amount(text: &str) -> Result<Amount, String> {
    let amount: Amount = text.parse().map_err(|error: crate::wire::money::MoneyError| error.to_string())?;
    if amount > Amount::ZERO { Ok(amount) } else { Err(format!("an amount must be above zero, not {amount}")) }
}

/// Thousandths of a core as cores: `0.5`.
#[must_use]
pub fn show_cpus(millis: u32) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A count with its noun: `1 file`, `2 files`.
#[must_use]
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Cores, memory, disk and, where there are any, GPUs.
#[must_use]
pub fn show_resources(cpu_millis: u32, memory_bytes: u64, disk_bytes: u64, gpus: u32) -> String {
    let cores = if cpu_millis == 1000 { "core" } else { "cores" };
    let gpus = if gpus == 0 { String::new() } else { format!(", {}", count(u64::from(gpus), "GPU")) };
    let (memory, disk) = (show_bytes(memory_bytes), show_bytes(disk_bytes));
    format!("{} {cores}, {memory} memory, {disk} disk{gpus}", show_cpus(cpu_millis))
}

/// How long before `now` something was; "now" when it is not in the past.
#[must_use]
pub fn show_age(then: Timestamp, now: Timestamp) -> String {
    let passed = now.duration_since(then);
    if passed <= SignedDuration::ZERO {
        return "now".to_owned();
    }
    let seconds = passed.as_secs();
    match seconds {
        ..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..86_400 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn kinds_of_isolation_are_read_as_the_protocol_and_as_people_write_them() {
        assert_eq!(parse_isolation("gvisor"), Ok(Isolation::Gvisor));
        assert_eq!(parse_isolation("user-namespace"), Ok(Isolation::UserNamespace));
        assert_eq!(parse_isolation("user_namespace"), Ok(Isolation::UserNamespace));
        assert!(parse_isolation("unknown").unwrap_err().contains("kata"));
    }

    #[test]
    fn sizes_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("512m", 512 << 20),
            ("2g", 2 << 30),
            ("1GiB", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("1gb", 1 << 30),
            ("10b", 10),
            ("4096", 4096),
            ("1 MiB", 1 << 20),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_that_are_none_are_refused_with_an_example() {
        for text in ["", "m", "-1m", "1x", "1e9", "0", "0m", "99999999999999t", "1..5g", "ib", "1.2345678g"] {
            let error = parse_bytes(text).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn cores_are_thousandths_in_their_range() {
        assert_eq!(parse_cpus("0.5"), Ok(500));
        assert_eq!(parse_cpus("2"), Ok(2000));
        for text in ["0", "-1", "1e3", "0.001", "2000", "", "x"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
        assert_eq!(show_cpus(500), "0.5");
        assert_eq!(show_cpus(2000), "2");
        assert_eq!(show_cpus(10), "0.01");
    }

    #[test]
    fn durations_add_up_and_nonsense_is_refused() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h30m", 5_400), ("2d", 172_800), ("42", 42)] {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
        for text in ["", "0", "m", "1h30", "-5s", "1y", "99999999999999999999d"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prices_of_zero_below_or_beyond_are_refused() {
        assert!(parse_rate("0.25").is_ok());
        assert!(parse_rate("$0.25/h").is_ok());
        for text in ["0", "-1", "1e99", "99999999999999999999", "free"] {
            assert!(parse_rate(text).is_err(), "{text}");
            assert!(parse_amount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_short_and_reads_well() {
        assert_eq!(show_bytes(1_610_612_736), "1.5 GiB");
        assert_eq!(show_bytes(512 << 20), "512 MiB");
        assert_eq!(show_bytes(12), "12 B");
        assert_eq!(show_duration(Duration::from_millis(840)), "0.8 s");
        assert_eq!(show_duration(Duration::from_millis(40)), "40 ms");
        assert_eq!(show_resources(1000, 1 << 30, 1 << 20, 0), "1 core, 1 GiB memory, 1 MiB disk");
        assert_eq!(show_resources(500, 1 << 30, 1 << 20, 2), "0.5 cores, 1 GiB memory, 1 MiB disk, 2 GPUs");
        assert_eq!(show_duration(Duration::from_secs(3_900)), "1 h 5 min");
        let start = Timestamp::UNIX_EPOCH;
        assert_eq!(show_age(start, Timestamp::from_second(7_300).unwrap()), "2 h ago");
        assert_eq!(show_age(Timestamp::from_second(5).unwrap(), start), "now");
    }
}
