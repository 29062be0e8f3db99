//! Docker's side of [`Provision`]: images by exact reference, and whom a container's files belong to.

use async_trait::async_trait;
use bollard::query_parameters::{ListImagesOptionsBuilder, RemoveImageOptionsBuilder};
use tokio::sync::mpsc;

use super::super::provision::{LocalImage, Provision, PulledImage};
use super::super::{ContainerId, PinnedImage, PullProgress, RuntimeError};
use super::images::{Source, exactly, source_of};
use super::{CALL_DEADLINE, DockerRuntime, START_DEADLINE, errors};
use crate::wire::job::RegistryLogin;

#[async_trait]
impl Provision for DockerRuntime {
    async fn lent_image(
        &self,
        image: &str,
        _progress: mpsc::Sender<PullProgress>,
    ) -> Result<Option<PinnedImage>, RuntimeError> {
        let local = self.local_image(image).await?;
        match (source_of(image, local.as_ref()), local) {
            (Source::Lent, Some(found)) => self.pin(image, found).map(Some),
            (Source::Registry, _) => Ok(None),
            (Source::Lent | Source::Private, _) => Err(super::images::not_lent(image)),
        }
    }

    async fn pulled_image(&self, reference: &str) -> Result<Option<PulledImage>, RuntimeError> {
        let Some(found) = self.local_image(reference).await? else { return Ok(None) };
        let bytes = found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        let pinned = self.pin(reference, found)?;
        Ok(Some(PulledImage { pinned, bytes }))
    }

    async fn pull_image(
        &self,
        reference: &str,
        login: Option<&RegistryLogin>,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<PulledImage, RuntimeError> {
        let digest = self.pull(reference, login, &progress).await?;
        // A tag may move between the pull and the look; the digest that was pulled does not.
        let exact = digest.as_deref().and_then(|digest| exactly(reference, digest));
        let found = match exact {
            Some(exact) => self.pulled_image(&exact).await?,
            None => None,
        };
        let found = match found {
            Some(found) => Some(found),
            None => self.pulled_image(reference).await?,
        };
        found.ok_or_else(|| RuntimeError::PullFailed {
            image: reference.to_owned(),
            detail: "it vanished after the pull".to_owned(),
        })
    }

    async fn images(&self) -> Result<Vec<LocalImage>, RuntimeError> {
        let options = ListImagesOptionsBuilder::new().all(true).build();
        let found = self.call("list images", CALL_DEADLINE, self.docker.list_images(Some(options))).await?;
        let named = |name: &String| !name.contains("<none>");
        Ok(found
            .into_iter()
            .map(|image| LocalImage {
                image_id: image.id,
                references: image.repo_tags.into_iter().chain(image.repo_digests).filter(named).collect(),
            })
            .collect())
    }

    async fn drop_image(&self, reference: &str) -> Result<bool, RuntimeError> {
        // Parents without a name may be the owner's.
        let options = RemoveImageOptionsBuilder::new().force(false).noprune(true).build();
        let removed = self.docker.remove_image(reference, Some(options), None);
        match self.call("remove an image", START_DEADLINE, removed).await {
            Ok(_) | Err(RuntimeError::ImageNotFound { .. }) => Ok(true),
            Err(RuntimeError::Engine { detail, .. }) if errors::is_in_use(&detail) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn user_of(&self, id: &ContainerId) -> Result<(u32, u32), RuntimeError> {
        let look = self.docker.inspect_container(&id.0, None);
        let found = self.call("look at a container", CALL_DEADLINE, look).await?;
        let user = found.config.and_then(|config| config.user).unwrap_or_default();
        let (user, group) = user.split_once(':').unwrap_or((&user, &user));
        let number = |text: &str| text.parse().unwrap_or(0);
        Ok((number(user), number(group)))
    }
}
