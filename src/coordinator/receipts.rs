//! Receipts: the coordinator's signed word for what a lease paid, each chained to the node's receipt before it.
//!
//! Invariant: a receipt's `previous_sha256` is the hash of the node's receipt with the sequence before; the first has zeros.

use ed25519_dalek::{Signer as _, SigningKey};
use jiff::Timestamp;

use super::ledger::Settlement;
use crate::wire::account::Receipt;
use crate::wire::signed::{receipt_message, receipt_sha256};
use crate::wire::{HourlyRate, JobId, LeaseId, NodeId, PublicKey, Sequence, Signature};

/// The end of a node's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEnd {
    /// Sequence of its newest receipt; zero when there is none.
    pub sequence: Sequence,
    /// SHA-256 (hex) of its newest receipt; zeros when there is none.
    pub sha256: String,
}

impl Default for ChainEnd {
    fn default() -> Self {
        Self { sequence: Sequence(0), sha256: "0".repeat(64) }
    }
}

/// What a receipt is about.
#[derive(Debug, Clone, Copy)]
pub struct Paid {
    /// Who is paid.
    pub node_id: NodeId,
    /// For which lease.
    pub lease_id: LeaseId,
    /// Of which job.
    pub job_id: JobId,
    /// When the lease ended.
    pub ended_at: Timestamp,
    /// At which price.
    pub rate: HourlyRate,
    /// How much.
    pub pay: Settlement,
}

/// The next receipt of a chain and its hash.
#[must_use]
pub fn next(chain: &ChainEnd, paid: &Paid, key: &SigningKey) -> (Receipt, String) {
    let mut receipt = Receipt {
        sequence: chain.sequence.next(),
        node_id: paid.node_id,
        lease_id: paid.lease_id,
        job_id: paid.job_id,
        ended_at: paid.ended_at,
        billed_millis: paid.pay.billed_millis,
        rate: paid.rate,
        gross: paid.pay.gross,
        fee: paid.pay.fee,
        net: paid.pay.net,
        previous_sha256: chain.sha256.clone(),
        signature: Signature::from_bytes([0; 64]),
    };
    receipt.signature = Signature::from_bytes(key.sign(&receipt_message(&receipt)).to_bytes());
    let sha256 = receipt_sha256(&receipt);
    (receipt, sha256)
}

/// The key that checks receipts signed with `key`.
#[must_use]
pub fn public_key(key: &SigningKey) -> PublicKey {
    PublicKey::from_bytes(key.verifying_key().to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::VerifyingKey;

    #[test]
    fn receipts_are_signed_and_each_names_the_one_before() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let now = Timestamp::from_second(1_000).unwrap();
        let rate: HourlyRate = "0.36".parse().unwrap();
        let paid = Paid {
            node_id: NodeId::generate(now),
            lease_id: LeaseId::generate(now),
            job_id: JobId::generate(now),
            ended_at: now,
            rate,
            pay: Settlement::of(rate, 10_000, 50),
        };
        let (first, first_sha256) = next(&ChainEnd::default(), &paid, &key);
        let (second, _) = next(&ChainEnd { sequence: first.sequence, sha256: first_sha256 }, &paid, &key);
        assert_eq!((first.sequence, second.sequence), (Sequence(1), Sequence(2)));
        assert_eq!(second.previous_sha256, receipt_sha256(&first));
        let verifying = VerifyingKey::from_bytes(public_key(&key).as_bytes()).unwrap();
        for receipt in [&first, &second] {
            let signature = ed25519_dalek::Signature::from_bytes(receipt.signature.as_bytes());
            verifying.verify_strict(&receipt_message(receipt), &signature).unwrap();
        }
        let forged = Receipt { net: first.gross, ..first };
        let signature = ed25519_dalek::Signature::from_bytes(forged.signature.as_bytes());
        assert!(verifying.verify_strict(&receipt_message(&forged), &signature).is_err());
    }
}
