//! The loops that bring what is into line with what should be.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::App;

/// Starts the background tasks; each ends soon after `stop` is cancelled.
pub(crate) fn spawn_background(_app: &App, _stop: &CancellationToken) -> JoinSet<()> {
    JoinSet::new()
}
