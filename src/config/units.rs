//! Sizes, cores and prices as people write them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::wire::HourlyRate;

/// A size in bytes: `"8GiB"`, `"500 MB"`, `1048576`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// Thousandths of a core: `2`, `1.5`, `"0.25"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuMillis(pub u32);

/// A price per hour in dollars: `"0.25"`, `0.25`, `"$1"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price(pub HourlyRate);

impl std::str::FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is not a size; write it like 512MiB, 8GiB or a number of bytes");
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(bad()),
        };
        let thousandths = thousandths(number).ok_or_else(bad)?;
        let bytes = u128::from(thousandths) * u128::from(scale) / 1000;
        u64::try_from(bytes).map(Self).map_err(|_| bad())
    }
}

impl std::str::FromStr for CpuMillis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = || format!("'{text}' is not a number of cores from 0.01 to 1024");
        let millis = thousandths(text.trim()).ok_or_else(range)?;
        u32::try_from(millis).ok().filter(|m| (10..=1_024_000).contains(m)).map(Self).ok_or_else(range)
    }
}

impl std::str::FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: crate::wire::money::MoneyError| error.to_string())
    }
}

/// A decimal number with at most three decimals in thousandths; no floating point on the way.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || decimals.len() > 3 || !digits(whole) || !digits(decimals) {
        return None;
    }
    let decimals: u64 = format!("{decimals:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(decimals)
}

/// Reads a text or a bare number through the type's `FromStr`, so that both say the same and fail with the same words.
struct TextOrNumber<T>(PhantomData<T>);

impl<T: std::str::FromStr<Err = String>> Visitor<'_> for TextOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a text like \"1.5\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

macro_rules! read_as_text_or_number {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextOrNumber(PhantomData))
            }
        }
    )*};
}

read_as_text_or_number!(ByteSize, CpuMillis, Price);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("512MiB", 512 << 20),
            ("1.5 GiB", 3 << 29),
            ("2g", 2 << 30),
            ("500MB", 500_000_000),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "GiB", "-1", "1.2345G", "8 GiBs", "1e9", "99999999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn cores_and_prices_outside_their_range_are_refused() {
        for text in ["0", "0.001", "1025", "-1", "NaN"] {
            assert!(text.parse::<CpuMillis>().is_err(), "{text}");
        }
        for text in ["0", "-0.5", "10001", "1e3", ""] {
            assert!(text.parse::<Price>().is_err(), "{text}");
        }
    }
}
