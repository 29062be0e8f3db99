//! Checking what nodes sign.

use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::App;
use super::problem::ApiError;
use crate::wire::signed::{REPORT_SKEW_SECONDS_MAX, ReportKind, SignedReport, report_message};
use crate::wire::{ErrorCode, NodeId, Nonce, PublicKey, Signature};

/// Report nonces are kept three times as long as a report's time may be off: once its nonce is forgotten, its time has long
/// been refused.
const NONCE_KEPT: Duration = Duration::from_secs(3 * REPORT_SKEW_SECONDS_MAX.unsigned_abs());

/// Checks a signature strictly: no weak keys, no malleable signatures.
pub(crate) fn verify(key: &PublicKey, message: &[u8], signature: &Signature) -> Result<(), ApiError> {
    let refused = || ApiError::new(ErrorCode::BadSignature, "");
    let key = VerifyingKey::from_bytes(key.as_bytes()).map_err(|_| refused())?;
    let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    key.verify_strict(message, &signature).map_err(|_| refused())
}

/// A report whose time and signature were good. It counts as received once the store has taken its nonce.
#[derive(Debug, Clone)]
pub(crate) struct VerifiedReport<'a, T> {
    /// Whose.
    pub(crate) node_id: NodeId,
    /// What it says.
    pub(crate) content: T,
    /// The same as text, as it was signed.
    pub(crate) body: &'a str,
    /// To be accepted once.
    pub(crate) nonce: Nonce,
    /// When the node says it was made.
    pub(crate) at: Timestamp,
    /// Until when the nonce must be remembered.
    pub(crate) remember_until: Timestamp,
}

/// Checks time, signature and form of a report. The nonce is taken by the store, in the transaction that stores the report.
pub(crate) async fn verify_report<'a, T: DeserializeOwned>(
    app: &App,
    kind: ReportKind,
    node_id: NodeId,
    report: &'a SignedReport,
) -> Result<VerifiedReport<'a, T>, ApiError> {
    let now = app.clock.now();
    check_time(report.at, now)?;
    let key = app.store.node_key(node_id).await?;
    let key = key.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "the coordinator does not know this node"))?;
    verify(&key, &report_message(kind, node_id, &report.nonce, report.at, &report.body), &report.signature)?;
    let content = serde_json::from_str(&report.body)
        .map_err(|error| ApiError::new(ErrorCode::InvalidRequest, format!("the signed report: {error}")))?;
    let remember_until = now.checked_add(NONCE_KEPT).unwrap_or(Timestamp::MAX);
    Ok(VerifiedReport { node_id, content, body: &report.body, nonce: report.nonce, at: report.at, remember_until })
}

fn check_time(at: Timestamp, now: Timestamp) -> Result<(), ApiError> {
    let off = at.duration_since(now).as_secs();
    if off.abs() <= REPORT_SKEW_SECONDS_MAX {
        return Ok(());
    }
    let side = if off > 0 { "ahead of" } else { "behind" };
    let detail = format!("it is {} s {side} it, and {REPORT_SKEW_SECONDS_MAX} s are allowed", off.abs());
    Err(ApiError::new(ErrorCode::ClockSkew, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let public = PublicKey::from_bytes(key.verifying_key().to_bytes());
        let signature = Signature::from_bytes(key.sign(b"yes").to_bytes());
        assert!(verify(&public, b"yes", &signature).is_ok());
        assert!(verify(&public, b"no", &signature).is_err());
        let other = PublicKey::from_bytes(SigningKey::from_bytes(&[4; 32]).verifying_key().to_bytes());
        assert!(verify(&other, b"yes", &signature).is_err());
        let weak = PublicKey::from_bytes([0; 32]);
        assert!(verify(&weak, b"yes", &Signature::from_bytes([0; 64])).is_err());
    }

    #[test]
    fn a_report_a_day_off_is_refused_with_how_far() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        assert!(check_time(Timestamp::from_second(1_000_300).unwrap(), now).is_ok());
        for (second, words) in [(1_086_400, "86400 s ahead"), (913_600, "86400 s behind"), (1_000_301, "301 s ahead")] {
            let error = check_time(Timestamp::from_second(second).unwrap(), now).unwrap_err();
            assert_eq!(error.problem().code, ErrorCode::ClockSkew);
            assert!(error.problem().detail.as_deref().unwrap().contains(words), "{error:?}");
        }
    }
}
