//! Accounts, earnings and receipts.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ids::{AccountId, JobId, LeaseId, NodeId, Sequence};
use super::keys::{PublicKey, Secret, Signature};
use super::money::{Amount, HourlyRate};

/// `GET /v1/account`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountView {
    /// The account.
    pub account_id: AccountId,
    /// Its name.
    pub name: String,
    /// Money that can be spent.
    pub balance: Amount,
    /// Money held for jobs.
    pub escrow: Amount,
    /// Money its nodes have earned.
    pub earned: Amount,
}

/// `POST /v1/admin/accounts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewAccount {
    /// Name for people, 1 to 63 characters.
    pub name: String,
}

/// A new account and the only sight of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccountCreated {
    /// The account.
    pub account_id: AccountId,
    /// Sent as `Authorization: Bearer …`; the coordinator keeps only a hash.
    pub api_key: Secret,
}

/// `POST /v1/admin/accounts/{id}/deposits`. Repeatable with the same idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deposit {
    /// How much, above zero.
    pub amount: Amount,
}

/// `POST /v1/account/join-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewJoinToken {
    /// Seconds it may be used, 60 to 30 days.
    pub expires_seconds: u64,
}

/// A join token and the only sight of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenCreated {
    /// Enrols one node, once.
    pub join_token: Secret,
    /// When it stops being accepted.
    pub expires_at: Timestamp,
}

/// `GET /v1/node/earnings`. Net of the network's fee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Earnings {
    /// When this was true.
    pub as_of: Timestamp,
    /// Since midnight UTC.
    pub today: Amount,
    /// The last seven days, today included.
    pub last_7_days: Amount,
    /// Since the node joined.
    pub all_time: Amount,
    /// What running leases have earned so far and will be paid when they end; an estimate.
    pub pending: Amount,
    /// Leases paid.
    pub leases_paid: u64,
    /// The network's fee in thousandths of the gross.
    pub fee_per_mille: u16,
    /// Per day, newest first, at most 31.
    pub days: Vec<DayEarnings>,
}

/// What one day earned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DayEarnings {
    /// The day in UTC.
    pub date: Date,
    /// Net of the fee.
    pub net: Amount,
    /// Leases paid that day.
    pub leases: u64,
}

/// The signed record of one lease's pay. Receipts of a node form a chain of hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// Place in the node's chain, from 1.
    pub sequence: Sequence,
    /// Who was paid.
    pub node_id: NodeId,
    /// For which lease.
    pub lease_id: LeaseId,
    /// Of which job.
    pub job_id: JobId,
    /// When the lease ended.
    pub ended_at: Timestamp,
    /// Milliseconds that were paid.
    pub billed_millis: u64,
    /// At which price.
    pub rate: HourlyRate,
    /// What the renter paid.
    pub gross: Amount,
    /// The network's part.
    pub fee: Amount,
    /// The owner's part: gross less fee.
    pub net: Amount,
    /// SHA-256 (hex) of the receipt before; 64 zeros for the first.
    pub previous_sha256: String,
    /// The coordinator's signature over [`super::signed::receipt_message`].
    pub signature: Signature,
}

/// `GET /v1/node/receipts?after=N`, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceiptList {
    /// Whose signature to check them against.
    pub coordinator_key: PublicKey,
    /// At most 100; ask again after the last one's sequence.
    pub receipts: Vec<Receipt>,
}

/// `GET /v1/admin/ledger`: every ledger account's balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerView {
    /// One line per ledger account.
    pub lines: Vec<LedgerLine>,
    /// Sum over all lines. Always zero.
    pub sum: Amount,
    /// Transactions posted.
    pub transactions: u64,
    /// Transactions whose own entries do not sum to zero. Always none.
    pub unbalanced: u64,
}

/// One ledger account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerLine {
    /// `deposits`, `fees`, `spendable:<account>`, `escrow:<job>`, `earned:<account>`.
    pub account: String,
    /// Credits less debits.
    pub balance: Amount,
}
