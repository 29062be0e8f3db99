//! Signatures as `cosign sign --key` makes them: ECDSA P-256 over a payload that names the manifest's digest.
//!
//! Format: <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>. The manifest with the tag
//! `sha256-<hex>.sig` has one layer per signature: the layer's blob is the payload, its annotation
//! `dev.cosignproject.cosign/signature` the signature over it, base64 of DER.
//!
//! Invariants
//! - A payload counts only when one of the owner's keys signed exactly its bytes, and it names exactly the pinned digest.
//! - The payload is not read before its signature is verified.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

/// Annotation of a layer that holds its signature.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Media type of a payload.
pub const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// What `critical.type` of a payload says.
const PAYLOAD_KIND: &str = "cosign container image signature";

/// How a public key on the curve P-256 begins (RFC 5480); 65 bytes of an uncompressed point follow.
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT_BYTES: usize = 65;

/// A public key of somebody whose images the owner takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerKey {
    point: Vec<u8>,
}

impl SignerKey {
    /// Reads a key as `cosign.pub` holds it: PEM, `PUBLIC KEY`, curve P-256.
    ///
    /// # Errors
    /// A sentence when it is anything else.
    pub fn from_pem(pem: &[u8]) -> Result<Self, &'static str> {
        let key = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|_| "holds no public key as PEM; it begins with -----BEGIN PUBLIC KEY-----")?;
        match key.as_ref().strip_prefix(&SPKI_P256) {
            Some(point) if point.len() == POINT_BYTES => Ok(Self { point: point.to_vec() }),
            Some(_) | None => {
                Err("holds a key that is not ECDSA on P-256, which is what `cosign generate-key-pair` makes")
            }
        }
    }

    fn signed(&self, payload: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point).verify(payload, signature).is_ok()
    }
}

/// The tag under which the signatures of `digest` are kept: `sha256-….sig`.
#[must_use]
pub fn signature_tag(digest: &str) -> String {
    format!("{}.sig", digest.replacen(':', "-", 1))
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Whether one of `keys` signed this payload (base64 signature beside it) and it speaks of `digest`.
#[must_use]
pub fn vouches(keys: &[SignerKey], payload: &[u8], signature: &str, digest: &str) -> bool {
    let Ok(signature) = STANDARD.decode(signature.trim()) else { return false };
    if !keys.iter().any(|key| key.signed(payload, &signature)) {
        return false;
    }
    let Ok(Payload { critical }) = serde_json::from_slice(payload) else { return false };
    critical.kind == PAYLOAD_KIND && critical.image.digest == digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

    fn pair() -> (EcdsaKeyPair, SignerKey) {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let der = [&SPKI_P256[..], pair.public_key().as_ref()].concat();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));
        let key = SignerKey::from_pem(pem.as_bytes()).unwrap();
        (pair, key)
    }

    fn payload(digest: &str, kind: &str) -> Vec<u8> {
        serde_json::json!({
            "critical": {"identity": {"docker-reference": "x"}, "image": {"docker-manifest-digest": digest}, "type": kind},
            "optional": null,
        })
        .to_string()
        .into_bytes()
    }

    fn sign(pair: &EcdsaKeyPair, payload: &[u8]) -> String {
        STANDARD.encode(pair.sign(&SystemRandom::new(), payload).unwrap())
    }

    #[test]
    fn a_payload_counts_when_a_known_key_signed_it_and_it_names_the_digest() {
        let ((pair, key), (_, stranger)) = (self::pair(), self::pair());
        let text = payload("sha256:1", PAYLOAD_KIND);
        let signature = sign(&pair, &text);
        assert!(vouches(&[stranger.clone(), key.clone()], &text, &signature, "sha256:1"));
        assert!(!vouches(&[stranger], &text, &signature, "sha256:1"), "a key nobody named");
        assert!(!vouches(&[], &text, &signature, "sha256:1"));
        assert!(!vouches(std::slice::from_ref(&key), &text, &signature, "sha256:2"), "another image");
        let changed = payload("sha256:2", PAYLOAD_KIND);
        assert!(!vouches(std::slice::from_ref(&key), &changed, &signature, "sha256:2"), "a payload that was changed");
        let attestation = payload("sha256:1", "something else");
        assert!(!vouches(std::slice::from_ref(&key), &attestation, &sign(&pair, &attestation), "sha256:1"));
        assert!(!vouches(&[key], &text, "no base64!", "sha256:1"));
    }

    #[test]
    fn keys_of_other_kinds_are_refused_in_words() {
        assert!(SignerKey::from_pem(b"hello").unwrap_err().contains("BEGIN PUBLIC KEY"));
        let ed25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        assert!(SignerKey::from_pem(ed25519.as_bytes()).unwrap_err().contains("P-256"));
    }

    #[test]
    fn signatures_are_kept_beside_the_image() {
        assert_eq!(signature_tag("sha256:0a1b"), "sha256-0a1b.sig");
    }
}
