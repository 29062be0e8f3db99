//! The fake engine's side of [`Provision`]. All of its images are lent, unless they were put into its registry.

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::super::provision::{LocalImage, Provision, PulledImage};
use super::super::{ContainerId, ContainerRuntime as _, PinnedImage, PullProgress, RuntimeError};
use super::FakeRuntime;
use crate::wire::job::RegistryLogin;

/// Whom the fake engine's containers run as.
const USER: (u32, u32) = (65_532, 65_532);

#[async_trait]
impl Provision for FakeRuntime {
    async fn lent_image(
        &self,
        image: &str,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<Option<PinnedImage>, RuntimeError> {
        self.ensure_image(image, progress).await.map(Some)
    }

    async fn pulled_image(&self, _reference: &str) -> Result<Option<PulledImage>, RuntimeError> {
        Ok(None)
    }

    async fn pull_image(
        &self,
        reference: &str,
        _login: Option<&RegistryLogin>,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<PulledImage, RuntimeError> {
        let pinned = self.ensure_image(reference, progress).await?;
        Ok(PulledImage { pinned, bytes: 1 })
    }

    async fn images(&self) -> Result<Vec<LocalImage>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn drop_image(&self, _reference: &str) -> Result<bool, RuntimeError> {
        Ok(true)
    }

    async fn user_of(&self, id: &ContainerId) -> Result<(u32, u32), RuntimeError> {
        self.world().find(id).map(|_| USER)
    }
}

impl FakeRuntime {
    /// A file of a container, as it was put there or written by its script.
    #[must_use]
    pub fn file(&self, id: &ContainerId, path: &str) -> Option<Vec<u8>> {
        self.world().find(id).ok()?.files.get(path).cloned()
    }
}
