//! Job outputs in an object store: a local folder by default.

use super::CoordinatorConfig;
use super::store::StoreError;

/// Where job outputs are kept.
#[derive(Debug)]
pub(crate) struct Outputs {}

impl Outputs {
    /// Opens the place that the configuration names.
    pub(crate) fn open(_config: &CoordinatorConfig) -> Result<Self, StoreError> {
        Ok(Self {})
    }
}
