//! Who this node is: an Ed25519 key in the state folder, and the lock that keeps the folder to one agent.
//!
//! Invariants
//! - The private key never leaves the file and this type; only signatures do.
//! - The file has mode 0600 and appears whole or not at all. One that others can read is refused, not repaired: it may have
//!   been copied.
//! - A key that cannot be read is never replaced: the node's earnings hang on it.

use std::io::ErrorKind;
use std::path::PathBuf;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use ed25519_dalek::{Signer as _, SigningKey};
use jiff::Timestamp;
use thiserror::Error;
use zeroize::Zeroizing;

use super::private::{Access, FileLock, access, create_file, create_folder};
use crate::paths::StateDir;
use crate::wire::enroll::{EnrollRequest, SessionRequest};
use crate::wire::signed::{ReportKind, SignedReport, enroll_message, report_message, session_message};
use crate::wire::{NodeId, Nonce, PublicKey, Secret, Signature};

/// The node's key.
pub struct Identity {
    key: SigningKey,
}

/// The state folder, held by this process alone until this is dropped.
#[derive(Debug)]
pub struct StateLock {
    _lock: FileLock,
}

/// Why the state folder or the key in it cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// Another agent is there.
    #[error(
        "another fizz (process {pid}) uses {folder}; stop it with `fizz drain`, or give this one a folder of its own: \
         FIZZ_STATE_DIR=/path"
    )]
    InUse {
        /// The state folder.
        folder: PathBuf,
        /// The other process; 0 when it cannot be told.
        pid: u32,
    },
    /// The folder cannot be made or used.
    #[error("the state folder {folder} cannot be used; give this user a folder of its own: FIZZ_STATE_DIR=/path")]
    Folder {
        /// The state folder.
        folder: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// Others can read the key.
    #[error(
        "{path} holds this node's private key and others may read it (mode {mode:04o}); close it: \
         `chmod 600 {path}`, and enrol anew if somebody may have copied it"
    )]
    Loose {
        /// The key file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is no key.
    #[error(
        "{path} is damaged: it holds no Ed25519 key; put back a copy of it, or give up this identity and enrol anew: \
         `mv {path} {path}.damaged`"
    )]
    Corrupt {
        /// The key file.
        path: String,
    },
    /// The file cannot be read or written.
    #[error("{path} cannot be read or written")]
    Io {
        /// The key file.
        path: String,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// A new key cannot be made.
    #[error("no key could be made for this node: the system gives no random numbers")]
    NoRandomness,
}

impl StateLock {
    /// Makes the folder where it is missing, and holds it.
    ///
    /// # Errors
    /// [`IdentityError::InUse`] when another process holds it, [`IdentityError::Folder`] when it cannot be used.
    pub fn take(state: &StateDir) -> Result<Self, IdentityError> {
        let folder = || state.path().to_owned();
        create_folder(state.path()).map_err(|source| IdentityError::Folder { folder: folder(), source })?;
        match FileLock::take(&state.lock()) {
            Ok(lock) => Ok(Self { _lock: lock }),
            Err(Ok(pid)) => Err(IdentityError::InUse { folder: folder(), pid }),
            Err(Err(source)) => Err(IdentityError::Folder { folder: folder(), source }),
        }
    }
}

impl Identity {
    /// Reads the key, or makes one where there is none. The lock shows that nobody else is about to do the same.
    ///
    /// # Errors
    /// [`IdentityError`] with what is wrong with the file and what to do.
    pub fn load_or_create(state: &StateDir, _held: &StateLock) -> Result<Self, IdentityError> {
        let path = state.identity();
        let name = path.display().to_string();
        match access(&path) {
            Ok(Access::OwnerOnly) => {}
            Ok(Access::Shared { mode }) => return Err(IdentityError::Loose { path: name, mode }),
            Err(error) if error.kind() == ErrorKind::NotFound => return Self::create(state),
            Err(source) => return Err(IdentityError::Io { path: name, source }),
        }
        let bytes = std::fs::read(&path).map_err(|source| IdentityError::Io { path: name.clone(), source })?;
        let bytes = Zeroizing::new(bytes);
        let pem = std::str::from_utf8(&bytes).map_err(|_| IdentityError::Corrupt { path: name.clone() })?;
        let key = SigningKey::from_pkcs8_pem(pem).map_err(|_| IdentityError::Corrupt { path: name })?;
        Ok(Self { key })
    }

    fn create(state: &StateDir) -> Result<Self, IdentityError> {
        let path = state.identity();
        let mut seed = Zeroizing::new([0_u8; 32]);
        random(seed.as_mut())?;
        let identity = Self { key: SigningKey::from_bytes(&seed) };
        // Encoding 32 bytes cannot fail, but its signature says so.
        let pem = identity.key.to_pkcs8_pem(LineEnding::LF).map_err(|_| IdentityError::NoRandomness)?;
        create_file(&path, pem.as_bytes())
            .map_err(|source| IdentityError::Io { path: path.display().to_string(), source })?;
        Ok(identity)
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.key.verifying_key().to_bytes())
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_bytes(self.key.sign(message).to_bytes())
    }

    /// A request to join under `name`.
    #[must_use]
    pub fn enroll_request(&self, name: &str, join_token: Option<Secret>) -> EnrollRequest {
        let public_key = self.public_key();
        EnrollRequest {
            public_key,
            name: name.to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            join_token,
            proof: self.sign(&enroll_message(&public_key, name)),
        }
    }

    /// A request for a session.
    #[must_use]
    pub fn session_request(&self, node_id: NodeId, nonce: Nonce) -> SessionRequest {
        let agent_version = env!("CARGO_PKG_VERSION").to_owned();
        let signature = self.sign(&session_message(node_id, &nonce, &agent_version));
        SessionRequest { node_id, nonce, agent_version, signature }
    }

    /// A report with its signature; `at` is the coordinator's time as the node knows it.
    ///
    /// # Errors
    /// [`IdentityError::NoRandomness`] when no nonce can be made.
    pub fn sign_report(
        &self,
        kind: ReportKind,
        node_id: NodeId,
        at: Timestamp,
        body: String,
    ) -> Result<SignedReport, IdentityError> {
        let mut nonce = [0_u8; 16];
        random(&mut nonce)?;
        let nonce = Nonce::from_bytes(nonce);
        let signature = self.sign(&report_message(kind, node_id, &nonce, at, &body));
        Ok(SignedReport { body, nonce, at, signature })
    }
}

fn random(bytes: &mut [u8]) -> Result<(), IdentityError> {
    use rand::TryRng as _;
    rand::rngs::SysRng.try_fill_bytes(bytes).map_err(|_| IdentityError::NoRandomness)
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.public_key())
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Verifier as _, VerifyingKey};

    use super::*;

    fn state() -> (tempfile::TempDir, StateDir, StateLock) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("node"));
        let lock = StateLock::take(&state).unwrap();
        (dir, state, lock)
    }

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let (_dir, state, lock) = state();
        let made = Identity::load_or_create(&state, &lock).unwrap();
        let found = Identity::load_or_create(&state, &lock).unwrap();
        assert_eq!(made.public_key(), found.public_key());
        let text = std::fs::read_to_string(state.identity()).unwrap();
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn what_it_signs_verifies_with_its_public_key() {
        let (_dir, state, lock) = state();
        let identity = Identity::load_or_create(&state, &lock).unwrap();
        let now = Timestamp::from_second(1_000).unwrap();
        let node = NodeId::generate(now);
        let report = identity.sign_report(ReportKind::Inventory, node, now, "{}".to_owned()).unwrap();
        let message = report_message(ReportKind::Inventory, node, &report.nonce, now, "{}");
        let key = VerifyingKey::from_bytes(identity.public_key().as_bytes()).unwrap();
        let signature = ed25519_dalek::Signature::from_bytes(report.signature.as_bytes());
        assert!(key.verify(&message, &signature).is_ok());
        assert!(key.verify(b"something else", &signature).is_err());
    }

    #[test]
    fn a_damaged_key_is_refused_and_kept() {
        let (_dir, state, lock) = state();
        create_file(&state.identity(), b"\xff\xfe not a key").unwrap();
        let error = Identity::load_or_create(&state, &lock).unwrap_err().to_string();
        assert!(error.contains("is damaged") && error.contains("mv "), "{error}");
        assert_eq!(std::fs::read(state.identity()).unwrap(), b"\xff\xfe not a key");
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_command_that_closes_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, state, lock) = state();
        Identity::load_or_create(&state, &lock).unwrap();
        let mode = std::fs::metadata(state.identity()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(state.identity(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Identity::load_or_create(&state, &lock).unwrap_err().to_string();
        assert!(error.contains(&format!("chmod 600 {}", state.identity().display())), "{error}");
    }

    #[test]
    fn a_second_agent_on_the_same_folder_is_told_who_is_there() {
        let (_dir, state, lock) = state();
        let error = StateLock::take(&state).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(lock);
        assert!(StateLock::take(&state).is_ok());
    }
}
