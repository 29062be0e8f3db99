//! What is signed, byte by byte. Every message starts with its own domain, and every field carries its length, so that no
//! signature means anything anywhere else.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::account::Receipt;
use super::ids::NodeId;
use super::keys::{Nonce, PublicKey, Signature};

/// A report whose exact text is signed. The coordinator accepts each nonce once, and only while `at` is near its own clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedReport {
    /// The report as JSON text, exactly as signed.
    pub body: String,
    /// Random, used once.
    pub nonce: Nonce,
    /// The coordinator's time as the node knows it.
    pub at: Timestamp,
    /// Over [`report_message`].
    pub signature: Signature,
}

/// Which report a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportKind {
    /// [`super::node::Inventory`].
    Inventory,
    /// [`super::bench::BenchmarkReport`].
    Benchmarks,
}

/// Seconds a signed report's time may be off the coordinator's clock. Nonces are remembered for longer than this.
pub const REPORT_SKEW_SECONDS_MAX: i64 = 300;

/// What an enrolling node signs to prove it holds its key.
#[must_use]
pub fn enroll_message(public_key: &PublicKey, name: &str) -> Vec<u8> {
    message("fizz/v1/enroll", &[public_key.as_bytes(), name.as_bytes()])
}

/// What a node signs to open a session.
#[must_use]
pub fn session_message(node_id: NodeId, nonce: &Nonce, agent_version: &str) -> Vec<u8> {
    message("fizz/v1/session", &[node_id.as_uuid().as_bytes(), nonce.as_bytes(), agent_version.as_bytes()])
}

/// What a node signs with a report.
#[must_use]
pub fn report_message(kind: ReportKind, node_id: NodeId, nonce: &Nonce, at: Timestamp, body: &str) -> Vec<u8> {
    let domain = match kind {
        ReportKind::Inventory => "fizz/v1/report/inventory",
        ReportKind::Benchmarks => "fizz/v1/report/benchmarks",
    };
    let digest = Sha256::digest(body.as_bytes());
    message(
        domain,
        &[node_id.as_uuid().as_bytes(), nonce.as_bytes(), &at.as_nanosecond().to_be_bytes(), digest.as_slice()],
    )
}

/// What the coordinator signs with a receipt: every field but the signature, chained to the receipt before it.
#[must_use]
pub fn receipt_message(receipt: &Receipt) -> Vec<u8> {
    message(
        "fizz/v1/receipt",
        &[
            &receipt.sequence.0.to_be_bytes(),
            receipt.node_id.as_uuid().as_bytes(),
            receipt.lease_id.as_uuid().as_bytes(),
            receipt.job_id.as_uuid().as_bytes(),
            &receipt.ended_at.as_nanosecond().to_be_bytes(),
            &receipt.billed_millis.to_be_bytes(),
            &receipt.rate.micros().to_be_bytes(),
            &receipt.gross.micros().to_be_bytes(),
            &receipt.fee.micros().to_be_bytes(),
            &receipt.net.micros().to_be_bytes(),
            receipt.previous_sha256.as_bytes(),
        ],
    )
}

/// SHA-256 (hex) of a receipt: what the next receipt of the same node carries as `previous_sha256`.
#[must_use]
pub fn receipt_sha256(receipt: &Receipt) -> String {
    hex::encode(Sha256::digest(receipt_message(receipt)))
}

fn message(domain: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(domain.len() + fields.iter().map(|f| f.len() + 8).sum::<usize>() + 8);
    for field in std::iter::once(&domain.as_bytes()).chain(fields) {
        bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_byte_between_fields_changes_what_is_signed() {
        assert_ne!(message("d", &[b"ab", b"c"]), message("d", &[b"a", b"bc"]));
        assert_ne!(message("da", &[b"b"]), message("d", &[b"ab"]));
    }

    #[test]
    fn an_inventory_signature_is_no_benchmark_signature() {
        let now = Timestamp::from_second(9).unwrap();
        let (node, nonce) = (NodeId::generate(now), Nonce::from_bytes([1; 16]));
        assert_ne!(
            report_message(ReportKind::Inventory, node, &nonce, now, "{}"),
            report_message(ReportKind::Benchmarks, node, &nonce, now, "{}"),
        );
    }
}
