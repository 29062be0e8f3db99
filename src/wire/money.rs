//! Money: integers of micro-USD with checked arithmetic, and hourly rates with a range.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

const MICROS_PER_USD: i64 = 1_000_000;
const MILLIS_PER_HOUR: i128 = 3_600_000;

/// An amount of money in micro-USD (1 USD = 1,000,000). Negative amounts are debits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Amount(i64);

/// Why a text or number is no amount or rate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MoneyError {
    /// The text is not a decimal number with at most six decimals.
    #[error("'{0}' is not an amount of money; write dollars with at most six decimals, like 0.25")]
    NotANumber(String),
    /// The number does not fit.
    #[error("the amount is too large; the most that can be written is 9223372036854.775807")]
    Overflow,
    /// A rate outside its range.
    #[error("an hourly price must be from $0.000001 to ${max}, not {given}", max = HourlyRate::MAX_USD)]
    RateOutOfRange {
        /// The refused number, in micro-USD per hour, as dollars.
        given: Amount,
    },
}

impl Amount {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// An amount of so many micro-USD.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// The amount in micro-USD.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Sum, or `None` past the range of i64.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Difference, or `None` past the range of i64.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The amount with its sign turned, or `None` for the most negative one.
    #[must_use]
    pub fn checked_neg(self) -> Option<Self> {
        self.0.checked_neg().map(Self)
    }

    /// `per_mille` thousandths of the amount, rounded towards zero.
    #[must_use]
    pub fn per_mille(self, per_mille: u16) -> Self {
        let part = i128::from(self.0) * i128::from(per_mille) / 1000;
        // |part| can pass i64 only for per_mille > 1000, which no fee has; saturate rather than wrap.
        Self(i64::try_from(part).unwrap_or(if part < 0 { i64::MIN } else { i64::MAX }))
    }

    /// The sum of many amounts, or `None` on overflow.
    #[must_use]
    pub fn checked_sum(amounts: impl IntoIterator<Item = Self>) -> Option<Self> {
        amounts.into_iter().try_fold(Self::ZERO, Self::checked_add)
    }
}

/// Dollars with at least two and at most six decimals: `$0.25`, `-$1.000001`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let micros = self.0.unsigned_abs();
        let scale = MICROS_PER_USD.unsigned_abs();
        let mut decimals = format!("{:06}", micros % scale);
        while decimals.len() > 2 && decimals.ends_with('0') {
            decimals.pop();
        }
        f.pad(&format!("{sign}${}.{decimals}", micros / scale))
    }
}

impl FromStr for Amount {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let bad = || MoneyError::NotANumber(text.to_owned());
        let trimmed = text.trim();
        let (negative, rest) = match trimmed.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, trimmed),
        };
        let rest = rest.strip_prefix('$').unwrap_or(rest);
        let (whole, decimals) = rest.split_once('.').unwrap_or((rest, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || decimals.len() > 6 || !digits(whole) || !digits(decimals) {
            return Err(bad());
        }
        let dollars: i64 = whole.parse().map_err(|_| MoneyError::Overflow)?;
        let micros: i64 = format!("{decimals:0<6}").parse().map_err(|_| bad())?;
        let total =
            dollars.checked_mul(MICROS_PER_USD).and_then(|d| d.checked_add(micros)).ok_or(MoneyError::Overflow)?;
        Ok(Self(if negative { -total } else { total }))
    }
}

/// A price in micro-USD per hour, from 1 micro-USD to [`HourlyRate::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "i64", into = "i64")]
pub struct HourlyRate(i64);

impl HourlyRate {
    const MAX_USD: i64 = 10_000;
    /// The highest price that can be written: 10,000 USD an hour.
    pub const MAX: Self = Self(Self::MAX_USD * MICROS_PER_USD);
    /// The lowest price that can be written: one micro-USD an hour.
    pub const MIN: Self = Self(1);

    /// The price in micro-USD per hour.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// What `millis` of running cost at this rate, rounded down to a whole micro-USD.
    #[must_use]
    pub fn cost_of_millis(self, millis: u64) -> Amount {
        Amount(self.scaled(millis, false))
    }

    /// What `seconds` can cost at most, rounded up: what escrow must hold.
    #[must_use]
    pub fn ceiling_for_seconds(self, seconds: u64) -> Amount {
        Amount(self.scaled(seconds.saturating_mul(1000), true))
    }

    fn scaled(self, millis: u64, round_up: bool) -> i64 {
        let product = i128::from(self.0) * i128::from(millis);
        let rounding = if round_up { MILLIS_PER_HOUR - 1 } else { 0 };
        i64::try_from((product + rounding) / MILLIS_PER_HOUR).unwrap_or(i64::MAX)
    }
}

impl TryFrom<i64> for HourlyRate {
    type Error = MoneyError;

    fn try_from(micros: i64) -> Result<Self, MoneyError> {
        if (Self::MIN.0..=Self::MAX.0).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(MoneyError::RateOutOfRange { given: Amount(micros) })
        }
    }
}

impl From<HourlyRate> for i64 {
    fn from(rate: HourlyRate) -> i64 {
        rate.0
    }
}

impl FromStr for HourlyRate {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        Self::try_from(text.parse::<Amount>()?.micros())
    }
}

impl fmt::Display for HourlyRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/h", Amount(self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_read_as_dollars() {
        for (micros, text) in
            [(0, "$0.00"), (250_000, "$0.25"), (1, "$0.000001"), (-1_500_000, "-$1.50"), (12_345_678, "$12.345678")]
        {
            assert_eq!(Amount::from_micros(micros).to_string(), text);
        }
    }

    #[test]
    fn prices_of_zero_negative_or_overflowing_are_refused_with_a_reason() {
        for text in ["0", "-1", "10000.000001", "99999999999999999999", "abc", "1.0000001", "", "1e3"] {
            let error = text.parse::<HourlyRate>().unwrap_err().to_string();
            assert!(!error.is_empty(), "{text}");
        }
        assert!(serde_json::from_str::<HourlyRate>("0").is_err());
        assert!(serde_json::from_str::<HourlyRate>("-5").is_err());
        assert_eq!("10000".parse::<HourlyRate>().unwrap(), HourlyRate::MAX);
    }

    #[test]
    fn an_hour_costs_the_hourly_rate_and_escrow_covers_it() {
        let rate: HourlyRate = "0.36".parse().unwrap();
        assert_eq!(rate.cost_of_millis(3_600_000), Amount::from_micros(360_000));
        assert_eq!(rate.cost_of_millis(1), Amount::from_micros(0));
        assert_eq!(rate.ceiling_for_seconds(1), Amount::from_micros(100));
    }

    proptest! {
        #[test]
        fn any_amount_survives_its_text(micros in (-i64::MAX / 2)..(i64::MAX / 2)) {
            let amount = Amount::from_micros(micros);
            prop_assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
        }

        #[test]
        fn escrow_for_a_duration_is_never_below_its_cost(rate in 1i64..=HourlyRate::MAX.0, seconds in 0u64..10_000_000) {
            let rate = HourlyRate::try_from(rate).unwrap();
            prop_assert!(rate.ceiling_for_seconds(seconds) >= rate.cost_of_millis(seconds * 1000));
        }
    }
}
