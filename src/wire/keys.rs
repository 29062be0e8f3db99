//! Public keys, signatures, nonces and secrets as they travel: unpadded URL-safe base64.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;
use zeroize::Zeroize;

/// The text is not base64 of the right length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected {expected} bytes as unpadded URL-safe base64")]
pub struct KeyError {
    expected: usize,
}

macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Wraps raw bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(text: &str) -> Result<Self, KeyError> {
                let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError { expected: $len })?;
                bytes.try_into().map(Self).map_err(|_| KeyError { expected: $len })
            }
        }

        impl TryFrom<String> for $name {
            type Error = KeyError;

            fn try_from(text: String) -> Result<Self, KeyError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

fixed_bytes!(
    /// An Ed25519 public key (32 bytes): the identity of a node or of a coordinator's receipts.
    PublicKey,
    32
);
fixed_bytes!(
    /// An Ed25519 signature (64 bytes).
    Signature,
    64
);
fixed_bytes!(
    /// A random number used once (16 bytes).
    Nonce,
    16
);

fixed_bytes!(
    /// A SHA-256, or as many random bytes (32 bytes).
    Digest,
    32
);

/// A text that must never be printed or logged: tokens, API keys, user-supplied environment values.
///
/// `Debug` hides it, there is no `Display`, and the memory is wiped on drop.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Secret(String);

impl Secret {
    /// Takes ownership of a secret text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself. The name makes every use easy to find.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_wrong_length_are_refused() {
        assert!("".parse::<PublicKey>().is_err());
        assert!("AAAA".parse::<Signature>().is_err());
        assert!(serde_json::from_str::<Nonce>("\"not base64!\"").is_err());
        let key = PublicKey::from_bytes([7; 32]);
        assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }
}
