//! Outputs on their way in, part by part.
//!
//! Invariants
//! - A part is durable before it is acknowledged; how far an upload is can always be asked, also after a restart.
//! - Parts belong to one lease and one announced SHA-256. Parts of another one are dropped when an upload begins anew.
//! - The parts become an output only whole, and only when their bytes are the announced ones.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use super::{Expected, OutputError, Outputs};
use crate::coordinator::store::StoredOutput;
use crate::wire::LeaseId;

/// Folder of all parts; no job has this name.
const FOLDER: &str = "parts";

/// One part that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    offset: u64,
    bytes: u64,
    path: Path,
}

impl Outputs {
    /// Up to which byte an upload is here.
    pub(crate) async fn next_offset(&self, expected: Expected<'_>) -> Result<u64, OutputError> {
        Ok(end(&self.parts(expected).await?))
    }

    /// Takes one part in; answers up to which byte everything is durable. What is here already changes nothing.
    ///
    /// # Errors
    /// [`OutputError::Gap`] when bytes before it are missing, [`OutputError::TooLarge`].
    pub(crate) async fn put_part(&self, expected: Expected<'_>, offset: u64, bytes: Bytes) -> Result<u64, OutputError> {
        let size = bytes.len() as u64;
        if offset.saturating_add(size) > expected.limit_bytes {
            return Err(OutputError::TooLarge { limit_bytes: expected.limit_bytes });
        }
        let here = end(&self.parts(expected).await?);
        if offset > here {
            return Err(OutputError::Gap { next_offset: here });
        }
        if here == 0 {
            self.drop_parts(expected.lease_id, Some(expected.sha256)).await;
        }
        let known = here.saturating_sub(offset);
        if known >= size {
            return Ok(here);
        }
        let fresh = bytes.slice(usize::try_from(known).unwrap_or(usize::MAX)..);
        let path = Path::from(format!("{}/{here:016x}", folder(expected.lease_id, Some(expected.sha256))));
        let next = here + fresh.len() as u64;
        self.store.put(&path, fresh.into()).await.map_err(OutputError::Store)?;
        Ok(next)
    }

    /// Makes the parts one output of `bytes` bytes. The parts stay until [`Outputs::drop_parts`], so that this can be repeated.
    ///
    /// # Errors
    /// [`OutputError::Gap`] when bytes are missing; [`OutputError::WrongSum`], after which the upload begins anew.
    pub(crate) async fn assemble(&self, expected: Expected<'_>, bytes: u64) -> Result<StoredOutput, OutputError> {
        let parts = self.parts(expected).await?;
        let here = end(&parts);
        if here < bytes {
            return Err(OutputError::Gap { next_offset: here });
        }
        let stored = self.put(expected, self.concatenated(parts)).await;
        match stored {
            Ok(stored) if stored.bytes != bytes => {
                self.remove(&stored.object).await;
                Err(OutputError::Broken(format!("{bytes} bytes were announced and {} came", stored.bytes)))
            }
            Err(error @ OutputError::WrongSum { .. }) => {
                self.drop_parts(expected.lease_id, None).await;
                Err(error)
            }
            other => other,
        }
    }

    /// Removes a lease's parts, all but those of the upload with this SHA-256.
    pub(crate) async fn drop_parts(&self, lease_id: LeaseId, except: Option<&str>) {
        let kept = except.map(|sha256| Path::from(folder(lease_id, Some(sha256))));
        let mut found = self.store.list(Some(&Path::from(folder(lease_id, None))));
        while let Some(part) = found.next().await {
            match part {
                Ok(part) if kept.as_ref().is_some_and(|kept| part.location.prefix_matches(kept)) => {}
                Ok(part) => self.remove(part.location.as_ref()).await,
                Err(error) => {
                    tracing::warn!(%error, %lease_id, "parts of an output could not be listed; they are removed later");
                    return;
                }
            }
        }
    }

    /// The leases that have parts here.
    pub(crate) async fn leases_with_parts(&self) -> Result<BTreeSet<LeaseId>, OutputError> {
        let found = self.store.list_with_delimiter(Some(&Path::from(FOLDER))).await.map_err(OutputError::Store)?;
        let lease = |path: &Path| path.filename().and_then(|name| name.parse().ok());
        Ok(found.common_prefixes.iter().filter_map(lease).collect())
    }

    /// The parts of one upload, in order.
    async fn parts(&self, expected: Expected<'_>) -> Result<Vec<Part>, OutputError> {
        let folder = Path::from(folder(expected.lease_id, Some(expected.sha256)));
        let found: Vec<_> = self.store.list(Some(&folder)).try_collect().await.map_err(OutputError::Store)?;
        let part = |found: object_store::ObjectMeta| {
            let offset = u64::from_str_radix(found.location.filename()?, 16).ok()?;
            Some(Part { offset, bytes: found.size, path: found.location })
        };
        let mut parts: Vec<Part> = found.into_iter().filter_map(part).collect();
        parts.sort_by_key(|part| part.offset);
        Ok(parts)
    }

    /// The bytes of parts that follow each other; where two overlap, each byte comes once.
    fn concatenated(&self, parts: Vec<Part>) -> impl Stream<Item = Result<Bytes, object_store::Error>> + Send + use<> {
        let store = self.store.clone();
        let mut at = 0;
        let fresh: Vec<(Part, u64)> = parts
            .into_iter()
            .filter_map(|part| {
                let skipped = at - at.min(part.offset);
                at = at.max(part.offset + part.bytes);
                (skipped < part.bytes).then_some((part, skipped))
            })
            .collect();
        stream::iter(fresh).then(move |(part, skipped)| {
            let store = store.clone();
            async move {
                let bytes = store.get(&part.path).await?.bytes().await?;
                Ok(bytes.slice(usize::try_from(skipped).unwrap_or(bytes.len()).min(bytes.len())..))
            }
        })
    }
}

fn folder(lease_id: LeaseId, sha256: Option<&str>) -> String {
    sha256.map_or_else(|| format!("{FOLDER}/{lease_id}"), |sha256| format!("{FOLDER}/{lease_id}/{sha256}"))
}

/// Up to which byte parts in order follow each other.
fn end(parts: &[Part]) -> u64 {
    parts.iter().fold(0, |at, part| if part.offset <= at { at.max(part.offset + part.bytes) } else { at })
}
