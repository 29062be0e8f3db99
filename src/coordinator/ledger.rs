//! Double-entry bookkeeping as values: what may be posted, before any database is involved.
//!
//! Invariants
//! - A [`Transaction`] can only be made when its entries sum to zero.
//! - Every transaction carries an idempotency key; posting the same key twice changes nothing.
//! - What a lease pays is computed in one place, [`Settlement::of`]: gross = fee + net, nothing negative, nothing made up.
//! - A positive amount is a credit. `deposits` is the outside world and may go negative; every other account may not.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::wire::{AccountId, Amount, HourlyRate, JobId, LeaseId};

/// An account of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LedgerAccount {
    /// The outside world, where deposits come from.
    Deposits,
    /// The network's fees.
    Fees,
    /// What somebody can spend.
    Spendable(AccountId),
    /// What is held for a job.
    Escrow(JobId),
    /// What somebody's nodes have earned.
    Earned(AccountId),
}

impl LedgerAccount {
    /// Whether the balance may fall below zero.
    #[must_use]
    pub const fn may_be_negative(self) -> bool {
        match self {
            Self::Deposits => true,
            Self::Fees | Self::Spendable(_) | Self::Escrow(_) | Self::Earned(_) => false,
        }
    }
}

impl fmt::Display for LedgerAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deposits => f.write_str("deposits"),
            Self::Fees => f.write_str("fees"),
            Self::Spendable(account) => write!(f, "spendable:{account}"),
            Self::Escrow(job) => write!(f, "escrow:{job}"),
            Self::Earned(account) => write!(f, "earned:{account}"),
        }
    }
}

/// The text names no ledger account.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no ledger account")]
pub struct UnknownAccount(String);

impl FromStr for LedgerAccount {
    type Err = UnknownAccount;

    fn from_str(text: &str) -> Result<Self, UnknownAccount> {
        let unknown = || UnknownAccount(text.to_owned());
        match text.split_once(':') {
            None if text == "deposits" => Ok(Self::Deposits),
            None if text == "fees" => Ok(Self::Fees),
            Some(("spendable", id)) => id.parse().map(Self::Spendable).map_err(|_| unknown()),
            Some(("escrow", id)) => id.parse().map(Self::Escrow).map_err(|_| unknown()),
            Some(("earned", id)) => id.parse().map(Self::Earned).map_err(|_| unknown()),
            Some(_) | None => Err(unknown()),
        }
    }
}

/// One side of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whose balance changes.
    pub account: LedgerAccount,
    /// By how much; positive is a credit.
    pub amount: Amount,
}

/// Why a transaction cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LedgerError {
    /// The entries do not sum to zero.
    #[error("transaction '{key}' does not sum to zero")]
    Unbalanced {
        /// Its idempotency key.
        key: String,
    },
    /// An amount that must be above zero (deposit, escrow) or not below it (the rest) is not.
    #[error("transaction '{key}' would move {amount}")]
    BadAmount {
        /// Its idempotency key.
        key: String,
        /// The refused amount.
        amount: Amount,
    },
}

/// A transaction that balances. There is no other way to make one than [`Transaction::new`] and the templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    key: String,
    entries: Vec<Entry>,
}

impl Transaction {
    /// A transaction of `entries`; those of zero are left out.
    ///
    /// # Errors
    /// [`LedgerError::Unbalanced`] when they do not sum to zero (or the sum overflows).
    pub fn new(key: String, entries: Vec<Entry>) -> Result<Self, LedgerError> {
        if Amount::checked_sum(entries.iter().map(|e| e.amount)) != Some(Amount::ZERO) {
            return Err(LedgerError::Unbalanced { key });
        }
        let entries = entries.into_iter().filter(|e| e.amount != Amount::ZERO).collect();
        Ok(Self { key, entries })
    }

    /// Money comes in from outside.
    ///
    /// # Errors
    /// [`LedgerError::BadAmount`] when `amount` is not above zero.
    pub fn deposit(account: AccountId, amount: Amount, caller_key: &str) -> Result<Self, LedgerError> {
        let key = format!("deposit:{account}:{caller_key}");
        if amount <= Amount::ZERO {
            return Err(LedgerError::BadAmount { key, amount });
        }
        Self::transfer(key, LedgerAccount::Deposits, LedgerAccount::Spendable(account), amount)
    }

    /// A job's money is set aside.
    ///
    /// # Errors
    /// [`LedgerError::BadAmount`] when `amount` is not above zero.
    pub fn hold_escrow(job: JobId, renter: AccountId, amount: Amount) -> Result<Self, LedgerError> {
        let key = format!("hold:{job}");
        if amount <= Amount::ZERO {
            return Err(LedgerError::BadAmount { key, amount });
        }
        Self::transfer(key, LedgerAccount::Spendable(renter), LedgerAccount::Escrow(job), amount)
    }

    /// A lease is paid out of its job's escrow.
    ///
    /// # Errors
    /// [`LedgerError::BadAmount`] when the settlement is negative, [`LedgerError::Unbalanced`] when its parts do not add up.
    pub fn settle_lease(lease: LeaseId, job: JobId, owner: AccountId, pay: Settlement) -> Result<Self, LedgerError> {
        let key = format!("settle:{lease}");
        for amount in [pay.gross, pay.fee, pay.net] {
            if amount < Amount::ZERO {
                return Err(LedgerError::BadAmount { key, amount });
            }
        }
        let taken = negated(&key, pay.gross)?;
        Self::new(
            key,
            vec![
                Entry { account: LedgerAccount::Escrow(job), amount: taken },
                Entry { account: LedgerAccount::Fees, amount: pay.fee },
                Entry { account: LedgerAccount::Earned(owner), amount: pay.net },
            ],
        )
    }

    /// What is left of a finished job's escrow goes back.
    ///
    /// # Errors
    /// [`LedgerError::BadAmount`] when `amount` is negative.
    pub fn release_escrow(job: JobId, renter: AccountId, amount: Amount) -> Result<Self, LedgerError> {
        let key = format!("release:{job}");
        if amount < Amount::ZERO {
            return Err(LedgerError::BadAmount { key, amount });
        }
        Self::transfer(key, LedgerAccount::Escrow(job), LedgerAccount::Spendable(renter), amount)
    }

    /// Posting the same key twice changes nothing.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its sides; none of zero.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn transfer(key: String, from: LedgerAccount, to: LedgerAccount, amount: Amount) -> Result<Self, LedgerError> {
        let taken = negated(&key, amount)?;
        Self::new(key, vec![Entry { account: from, amount: taken }, Entry { account: to, amount }])
    }
}

fn negated(key: &str, amount: Amount) -> Result<Amount, LedgerError> {
    amount.checked_neg().ok_or_else(|| LedgerError::BadAmount { key: key.to_owned(), amount })
}

/// What one lease pays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settlement {
    /// Milliseconds that are paid.
    pub billed_millis: u64,
    /// What the renter pays.
    pub gross: Amount,
    /// The network's part, rounded down.
    pub fee: Amount,
    /// The owner's part.
    pub net: Amount,
}

impl Settlement {
    /// What `billed_millis` at `rate` pay, `fee_per_mille` thousandths (at most 1000) of it to the network.
    #[must_use]
    pub fn of(rate: HourlyRate, billed_millis: u64, fee_per_mille: u16) -> Self {
        let gross = rate.cost_of_millis(billed_millis);
        let fee = gross.per_mille(fee_per_mille.min(1000));
        let net = gross.checked_sub(fee).expect("0 <= fee <= gross");
        Self { billed_millis, gross, fee, net }
    }
}

/// The milliseconds of a lease that are paid: what the node says it ran, but never more than the job's longest duration nor
/// than the time that passed at the coordinator since the lease was made. The node's word alone is not trusted.
#[must_use]
pub fn billable_millis(ran_millis: u64, duration_seconds_max: u64, lease_age_millis: u64) -> u64 {
    ran_millis.min(duration_seconds_max.saturating_mul(1000)).min(lease_age_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn ids() -> (AccountId, JobId, LeaseId) {
        let now = Timestamp::from_second(1_000).unwrap();
        (AccountId::generate(now), JobId::generate(now), LeaseId::generate(now))
    }

    #[test]
    fn a_transaction_that_does_not_sum_to_zero_cannot_be_made() {
        let entry = |micros| Entry { account: LedgerAccount::Fees, amount: Amount::from_micros(micros) };
        assert!(Transaction::new("k".into(), vec![entry(5), entry(-4)]).is_err());
        assert!(Transaction::new("k".into(), vec![entry(i64::MAX), entry(1)]).is_err());
        assert!(Transaction::new("k".into(), vec![entry(5), entry(-5)]).is_ok());
    }

    #[test]
    fn deposits_and_escrow_of_zero_or_less_are_refused() {
        let (account, job, _) = ids();
        for micros in [0, -1, i64::MIN] {
            let amount = Amount::from_micros(micros);
            assert!(Transaction::deposit(account, amount, "a").is_err());
            assert!(Transaction::hold_escrow(job, account, amount).is_err());
        }
    }

    #[test]
    fn the_fee_is_five_percent_of_the_gross_and_the_owner_gets_the_rest() {
        let rate: HourlyRate = "0.36".parse().unwrap();
        let pay = Settlement::of(rate, 3_600_000, 50);
        assert_eq!((pay.gross.micros(), pay.fee.micros(), pay.net.micros()), (360_000, 18_000, 342_000));
    }

    #[test]
    fn a_node_that_exaggerates_is_paid_what_the_coordinator_saw() {
        assert_eq!(billable_millis(10_000, 3_600, 4_000), 4_000);
        assert_eq!(billable_millis(u64::MAX, 5, u64::MAX), 5_000);
        assert_eq!(billable_millis(1_500, 3_600, 60_000), 1_500);
    }

    #[test]
    fn a_ledger_account_survives_its_text_and_garbage_is_refused() {
        let (account, job, _) = ids();
        for known in [
            LedgerAccount::Deposits,
            LedgerAccount::Fees,
            LedgerAccount::Spendable(account),
            LedgerAccount::Escrow(job),
            LedgerAccount::Earned(account),
        ] {
            assert_eq!(known.to_string().parse::<LedgerAccount>().unwrap(), known);
        }
        for bad in ["", "spendable", "spendable:", "escrow:7", "fees:1"] {
            assert!(bad.parse::<LedgerAccount>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_settlement_balances_and_nobody_loses_by_it(
            rate in 1i64..=HourlyRate::MAX.micros(), millis in 0u64..10_000_000_000, fee in 0u16..=1000,
        ) {
            let (account, job, lease) = ids();
            let pay = Settlement::of(HourlyRate::try_from(rate).unwrap(), millis, fee);
            prop_assert!(pay.fee >= Amount::ZERO && pay.net >= Amount::ZERO);
            let posted = Transaction::settle_lease(lease, job, account, pay).unwrap();
            prop_assert_eq!(Amount::checked_sum(posted.entries().iter().map(|e| e.amount)), Some(Amount::ZERO));
        }

        #[test]
        fn what_is_held_always_covers_what_is_paid(
            price_max in 1i64..=HourlyRate::MAX.micros(), cheaper in 0i64..1_000_000, ran in any::<u64>(),
            duration in 1u64..=2_592_000, age in any::<u64>(),
        ) {
            let held = HourlyRate::try_from(price_max).unwrap().ceiling_for_seconds(duration);
            let rate = HourlyRate::try_from((price_max - cheaper).max(1)).unwrap();
            let pay = Settlement::of(rate, billable_millis(ran, duration, age), 50);
            prop_assert!(pay.gross <= held);
        }
    }
}
