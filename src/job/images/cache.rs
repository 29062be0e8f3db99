//! The image cache: what was pulled for jobs, and what of it goes when it takes too much disk.
//!
//! Invariants
//! - Only what a pull of ours brought here is ever removed: an image that was here before, or that got another name since, is
//!   the owner's and forgotten.
//! - Nothing that a lease runs on or is about to run on goes; the engine refuses what any other container uses.
//! - The least recently used goes first, and only until the rest fits.

use std::collections::{HashMap, HashSet};

use super::{Images, Wanted, of_journal};
use crate::agent::journal::{CachedImage, JournalError};
use crate::runtime::images::Reference;
use crate::runtime::provision::{LocalImage, PulledImage};
use crate::runtime::{ContainerRuntime, RuntimeError};
use crate::wire::LeaseId;

impl Images {
    /// A lease is over: what it ran on may go, if there is too much.
    pub async fn lease_over(&self, runtime: &dyn ContainerRuntime, lease_id: LeaseId) {
        let held = self.held().remove(&lease_id);
        if held.is_some() {
            self.trim(runtime, self.0.policy.cache_bytes).await;
        }
    }

    /// Removes the least recently used images until those pulled for jobs fit the owner's budget.
    pub async fn fit(&self, runtime: &dyn ContainerRuntime) {
        self.trim(runtime, self.0.policy.cache_bytes).await;
    }

    /// From here on the image stays for this lease.
    pub(super) async fn hold(&self, lease_id: LeaseId, reference: &str) {
        // Not while one is being removed: it might be this one.
        let _removing = self.0.removing.lock().await;
        self.held().entry(lease_id).or_default().insert(reference.to_owned());
    }

    /// Notes that a cached image is used again.
    pub(super) async fn used(&self, reference: &str, wanted: &Wanted<'_>) {
        let now = self.0.clock.now();
        if let Err(error) = self.0.journal.use_image(reference, wanted.login.is_some(), now).await {
            tracing::warn!(%error, reference, "the use of an image could not be noted");
        }
    }

    /// Pulls, and remembers that the image is ours if it was not here before.
    pub(super) async fn pull(&self, wanted: &Wanted<'_>, reference: &str) -> Result<PulledImage, RuntimeError> {
        self.trim(wanted.runtime, self.0.policy.cache_bytes).await;
        let before: HashSet<String> = wanted.runtime.images().await?.into_iter().map(|image| image.image_id).collect();
        let (journal, now) = (&self.0.journal, self.0.clock.now());
        journal.claim_image(reference, wanted.login.is_some(), now).await.map_err(of_journal)?;
        let pulled = match self.pull_once(wanted, reference).await {
            Err(RuntimeError::NoSpace { .. }) => {
                self.trim(wanted.runtime, 0).await;
                self.pull_once(wanted, reference).await
            }
            other => other,
        };
        let pulled = match pulled {
            Ok(pulled) => pulled,
            Err(error) => {
                if matches!(error, RuntimeError::WrongArchitecture { .. }) && reference.contains('@') {
                    // It came, and was not here before: nobody looks for a digest that is here.
                    wanted.runtime.drop_image(reference).await?;
                }
                self.forget(reference).await;
                return Err(error);
            }
        };
        let image_id = &pulled.pinned.image_id;
        let known = journal.cached_images().await.map_err(of_journal)?;
        if before.contains(image_id) && !known.iter().any(|image| image.image_id.as_ref() == Some(image_id)) {
            // It was here under another name: the owner's.
            self.forget(reference).await;
        } else {
            journal.keep_image(reference, image_id, pulled.bytes, self.0.clock.now()).await.map_err(of_journal)?;
        }
        Ok(pulled)
    }

    async fn pull_once(&self, wanted: &Wanted<'_>, reference: &str) -> Result<PulledImage, RuntimeError> {
        wanted.runtime.pull_image(reference, wanted.login.as_ref(), wanted.progress.clone()).await
    }

    async fn forget(&self, reference: &str) {
        if let Err(error) = self.0.journal.forget_image(reference).await {
            tracing::warn!(%error, reference, "an image could not be forgotten");
        }
    }

    /// Best effort: what cannot be removed now is tried again the next time.
    async fn trim(&self, runtime: &dyn ContainerRuntime, budget_bytes: u64) {
        match self.try_trim(runtime, budget_bytes).await {
            Ok(()) => {}
            Err(TrimError::Engine(error)) => tracing::debug!(%error, "the image cache could not be trimmed"),
            Err(TrimError::Journal(error)) => tracing::warn!(%error, "the image cache could not be trimmed"),
        }
    }

    async fn try_trim(&self, runtime: &dyn ContainerRuntime, budget_bytes: u64) -> Result<(), TrimError> {
        let known = self.0.journal.cached_images().await?;
        if total(&known) <= budget_bytes && known.iter().all(|image| image.image_id.is_some()) {
            return Ok(());
        }
        let known = self.settle(runtime, known).await?;
        let here: HashMap<String, LocalImage> =
            runtime.images().await?.into_iter().map(|image| (image.image_id.clone(), image)).collect();
        let mut left = known.clone();
        for image in &known {
            if total(&left) <= budget_bytes {
                break;
            }
            let Some(image_id) = &image.image_id else { continue };
            let is_ours = here.get(image_id).is_some_and(|local| is_ours(local, &known));
            if !is_ours || self.remove(runtime, image, image_id).await? {
                left.retain(|other| other.reference != image.reference);
                self.forget(&image.reference).await;
            }
        }
        Ok(())
    }

    /// Finds out what became of pulls that broke off.
    async fn settle(
        &self,
        runtime: &dyn ContainerRuntime,
        known: Vec<CachedImage>,
    ) -> Result<Vec<CachedImage>, TrimError> {
        let mut settled = Vec::with_capacity(known.len());
        for mut image in known {
            if image.image_id.is_none() && !self.is_held(&image.reference) {
                let found = match runtime.pulled_image(&image.reference).await {
                    Err(RuntimeError::WrongArchitecture { .. }) => {
                        runtime.drop_image(&image.reference).await?;
                        None
                    }
                    other => other?,
                };
                let Some(found) = found else {
                    self.forget(&image.reference).await;
                    continue;
                };
                let (id, bytes) = (found.pinned.image_id, found.bytes);
                self.0.journal.keep_image(&image.reference, &id, bytes, self.0.clock.now()).await?;
                (image.image_id, image.bytes) = (Some(id), bytes);
            }
            settled.push(image);
        }
        Ok(settled)
    }

    /// Removes one reference, unless a lease wants its image. Whether it is gone.
    async fn remove(
        &self,
        runtime: &dyn ContainerRuntime,
        image: &CachedImage,
        image_id: &str,
    ) -> Result<bool, TrimError> {
        let _removing = self.0.removing.lock().await;
        if self.is_held(&image.reference) || self.0.journal.leases_name(image_id).await? {
            return Ok(false);
        }
        let gone = runtime.drop_image(&image.reference).await?;
        if gone {
            tracing::info!(image = image.reference, bytes = image.bytes, "removed an image that was pulled for a job");
        }
        Ok(gone)
    }

    fn is_held(&self, reference: &str) -> bool {
        self.held().values().any(|references| references.contains(reference))
    }
}

enum TrimError {
    Engine(RuntimeError),
    Journal(JournalError),
}

impl From<RuntimeError> for TrimError {
    fn from(error: RuntimeError) -> Self {
        Self::Engine(error)
    }
}

impl From<JournalError> for TrimError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

/// Bytes of all images, one that has several references counted once. Layers that images share count with each.
fn total(images: &[CachedImage]) -> u64 {
    let sizes: HashMap<&str, u64> =
        images.iter().map(|image| (image.image_id.as_deref().unwrap_or(&image.reference), image.bytes)).collect();
    sizes.values().sum()
}

/// Whether every name of an image is one that a pull of ours gave it.
fn is_ours(local: &LocalImage, known: &[CachedImage]) -> bool {
    let mine: Vec<&str> = known
        .iter()
        .filter(|image| image.image_id.as_ref() == Some(&local.image_id))
        .map(|image| image.reference.as_str())
        .collect();
    local.references.iter().all(|name| {
        let same = |mine: &&str| match (Reference::parse(name), Reference::parse(mine)) {
            // An engine may note several digests of one image: the index's and the manifest's.
            (Ok(name), Ok(mine)) if name.digest().is_some() => name.name() == mine.name(),
            (Ok(name), Ok(mine)) => name == mine,
            _ => false,
        };
        mine.iter().any(same)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(reference: &str, id: Option<&str>, bytes: u64) -> CachedImage {
        let image_id = id.map(str::to_owned);
        CachedImage { reference: reference.to_owned(), image_id, bytes, needed_login: false }
    }

    #[test]
    fn an_image_with_two_names_counts_once() {
        let images =
            [cached("a", Some("1"), 10), cached("b", Some("1"), 10), cached("c", Some("2"), 5), cached("d", None, 0)];
        assert_eq!(total(&images), 15);
    }

    #[test]
    fn an_image_with_a_name_that_is_not_ours_is_the_owners() {
        let (one, two) = (format!("sha256:{}", "1".repeat(64)), format!("sha256:{}", "2".repeat(64)));
        let known =
            [cached(&format!("ghcr.io/a/b@{one}"), Some("id"), 1), cached(&format!("alpine@{one}"), Some("id"), 1)];
        let local = |references: &[String]| LocalImage { image_id: "id".into(), references: references.to_vec() };
        let ours =
            [format!("ghcr.io/a/b@{one}"), format!("ghcr.io/a/b@{two}"), format!("docker.io/library/alpine@{one}")];
        assert!(is_ours(&local(&ours), &known));
        assert!(is_ours(&local(&[]), &known));
        for other in ["mine:latest", "alpine:3", &format!("ghcr.io/other/b@{one}")] {
            let mut names = ours.to_vec();
            names.push(other.to_owned());
            assert!(!is_ours(&local(&names), &known), "{other}");
        }
        // Pulled by its tag through an engine that knows a way to the registry.
        let tagged = [cached("registry.example/x:1", Some("id"), 1)];
        assert!(is_ours(&local(&["registry.example/x:1".into(), format!("registry.example/x@{one}")]), &tagged));
        assert!(!is_ours(&local(&["registry.example/x:2".into()]), &tagged));
    }
}
