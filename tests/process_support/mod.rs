//! What the tests that kill share: the built program as processes, a coordinator and a node of them, and waiting for what they do.

#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod process;
mod town;

use std::time::Duration;

pub(crate) use process::{FIZZ, Process};
pub(crate) use town::{Town, look};

/// Nothing takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at something that cannot wake the test.
pub(crate) const LOOK: Duration = Duration::from_millis(25);

/// Looks until there is something.
pub(crate) async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = found().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
