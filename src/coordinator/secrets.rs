//! Bearer secrets: how they are made and recognised. Only their SHA-256 is ever stored.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng as _;
use sha2::{Digest as _, Sha256};

use crate::wire::Secret;

/// What a secret is for; its prefix says so to people and to secret scanners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretKind {
    /// A node's session token.
    Session,
    /// An account's API key.
    ApiKey,
    /// The operator's token.
    Admin,
    /// A single-use join token.
    Join,
    /// What authorises the polls of a device-code enrolment.
    Poll,
}

impl SecretKind {
    /// What every secret of this kind starts with.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::Session => "fzs_",
            Self::ApiKey => "fzk_",
            Self::Admin => "fza_",
            Self::Join => "fzj_",
            Self::Poll => "fzp_",
        }
    }

    /// A fresh secret of 256 random bits.
    pub(crate) fn generate(self) -> Secret {
        self.with_bytes(&random_bytes::<32>())
    }

    /// A secret of this kind around given bytes.
    pub(crate) fn with_bytes(self, bytes: &[u8; 32]) -> Secret {
        Secret::new(format!("{}{}", self.prefix(), URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Whether the text is of this kind.
    pub(crate) fn claims(self, text: &str) -> bool {
        text.starts_with(self.prefix())
    }
}

/// What is stored of a secret.
pub(crate) fn sha256(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Bytes from the thread's cryptographic generator.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}
