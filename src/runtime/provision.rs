//! What a container needs before it starts: its image, and whom its files belong to.
//!
//! Invariants
//! - An image is removed by a reference that a pull of ours made, never by force and never by its id: an engine refuses what a
//!   container uses, and what has another name stays.

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{ContainerId, PinnedImage, PullProgress, RuntimeError};
use crate::wire::job::RegistryLogin;

/// An image on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// The engine's id of it.
    pub image_id: String,
    /// Its names: `repository:tag` and `repository@sha256:…`.
    pub references: Vec<String>,
}

/// An image as a pull has left it here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledImage {
    /// What containers are made of.
    pub pinned: PinnedImage,
    /// Its size in bytes, layers that it shares included.
    pub bytes: u64,
}

/// A part of [`super::ContainerRuntime`]: images.
#[async_trait]
pub trait Provision: Send + Sync {
    /// The image of this name that its owner lends from this machine; nothing when a registry has to be asked.
    ///
    /// An image that is only here and not lent is [`RuntimeError::ImageNotFound`].
    async fn lent_image(
        &self,
        image: &str,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<Option<PinnedImage>, RuntimeError>;

    /// The image that was pulled by exactly this reference, if it is here. No registry is asked.
    async fn pulled_image(&self, reference: &str) -> Result<Option<PulledImage>, RuntimeError>;

    /// Pulls exactly this reference; the login is used for this and nothing else. Progress is best effort.
    async fn pull_image(
        &self,
        reference: &str,
        login: Option<&RegistryLogin>,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<PulledImage, RuntimeError>;

    /// Every image there is, whoever made it.
    async fn images(&self) -> Result<Vec<LocalImage>, RuntimeError>;

    /// Takes a reference off its image, and the image away when that was its last one. `false` when something uses it, and then
    /// nothing is changed.
    async fn drop_image(&self, reference: &str) -> Result<bool, RuntimeError>;

    /// User and group that a container's program runs as, by number.
    async fn user_of(&self, id: &ContainerId) -> Result<(u32, u32), RuntimeError>;
}
