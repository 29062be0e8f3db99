//! Systems without nftables: the engine runs in a virtual machine that our rules do not reach. The probe decides alone.

use super::NftError;
use super::surroundings::KernelTables;

/// There is nothing to hand rules to.
///
/// # Errors
/// Always [`NftError::NoSuchSystem`].
#[expect(clippy::unused_async, reason = "the same function waits on other systems")]
pub async fn apply(_script: &str) -> Result<(), NftError> {
    Err(NftError::NoSuchSystem)
}

/// There is no table.
///
/// # Errors
/// Always [`NftError::NoSuchSystem`].
#[expect(clippy::unused_async, reason = "the same function waits on other systems")]
pub async fn listing() -> Result<Option<String>, NftError> {
    Err(NftError::NoSuchSystem)
}

/// There is no table.
///
/// # Errors
/// Always [`NftError::NoSuchSystem`].
#[expect(clippy::unused_async, reason = "the same function waits on other systems")]
pub async fn gate_listing(_bridge: &str) -> Result<Option<String>, NftError> {
    Err(NftError::NoSuchSystem)
}

/// There is no set.
///
/// # Errors
/// Always [`NftError::NoSuchSystem`].
#[expect(clippy::unused_async, reason = "the same function waits on other systems")]
pub async fn doors() -> Result<String, NftError> {
    Err(NftError::NoSuchSystem)
}

/// There are no tables.
///
/// # Errors
/// Always [`NftError::NoSuchSystem`].
#[expect(clippy::unused_async, reason = "the same function waits on other systems")]
pub async fn gates() -> Result<Vec<(String, bool)>, NftError> {
    Err(NftError::NoSuchSystem)
}

/// Nothing.
#[must_use]
pub fn kernel_tables() -> KernelTables {
    KernelTables::default()
}
