//! Images: everything is pulled, except what the machine's owner lends by a label.
//!
//! Invariants
//! - An image that is only on this machine belongs to its owner: no job gets it unless it carries [`LABEL_SHARED`].
//! - An image of a registry is asked for there every time, without credentials: what is cached is used when the registry
//!   gives it to everybody, and not when it cannot be reached.
//! - A pull never takes a name away from an image that its owner made here.

use std::collections::HashMap;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::super::images::{Reference, is_digest, is_image_id};
use super::super::{ImageSettings, LABEL_SHARED, PinnedImage, PullProgress, RuntimeError};
use super::{CALL_DEADLINE, DockerRuntime, errors};
use crate::wire::job::RegistryLogin;

/// A pull that reports nothing for so long is given up.
const STALL_DEADLINE: Duration = Duration::from_secs(300);

impl DockerRuntime {
    /// Pins the image to content that is on this machine.
    pub(super) async fn image(
        &self,
        image: &str,
        progress: &mpsc::Sender<PullProgress>,
    ) -> Result<PinnedImage, RuntimeError> {
        let local = self.local_image(image).await?;
        let found = match source_of(image, local.as_ref()) {
            Source::Lent => local,
            Source::Private => {
                return Err(not_lent(image));
            }
            Source::Registry => {
                self.pull(image, None, progress).await?;
                self.local_image(image).await?.filter(|found| digest_of(image, found).is_some())
            }
        };
        let found = found.ok_or_else(|| RuntimeError::PullFailed {
            image: image.to_owned(),
            detail: "it vanished after the pull".to_owned(),
        })?;
        self.pin(image, found)
    }

    pub(super) async fn local_image(&self, image: &str) -> Result<Option<ImageInspect>, RuntimeError> {
        // With its tag, because the engine would take a name without one for the beginning of an id as well.
        let name = if is_image_id(image) { image.to_owned() } else { with_tag(image) };
        match self.call("look at an image", CALL_DEADLINE, self.docker.inspect_image(&name)).await {
            Ok(found) => Ok(Some(found)),
            Err(RuntimeError::ImageNotFound { .. }) => Ok(None),
            // A name the engine cannot parse.
            Err(RuntimeError::Engine { detail, .. }) if detail.contains("invalid reference") => {
                Err(RuntimeError::ImageNotFound { image: image.to_owned(), detail })
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn pin(&self, image: &str, found: ImageInspect) -> Result<PinnedImage, RuntimeError> {
        let architecture = found.architecture.clone().unwrap_or_default();
        if !runs_here(&architecture, &self.architecture) {
            return Err(RuntimeError::WrongArchitecture {
                image: image.to_owned(),
                found: architecture,
                here: self.architecture.clone(),
            });
        }
        let digest = digest_of(image, &found);
        let settings = settings_of(&found);
        let image_id = found.id.unwrap_or_else(|| image.to_owned());
        let digest = digest.unwrap_or_else(|| image_id.clone());
        Ok(PinnedImage { image_id, digest, settings })
    }

    /// Pulls, and answers with the digest of what came, where the engine tells.
    pub(super) async fn pull(
        &self,
        image: &str,
        login: Option<&RegistryLogin>,
        progress: &mpsc::Sender<PullProgress>,
    ) -> Result<Option<String>, RuntimeError> {
        let options = CreateImageOptionsBuilder::new().from_image(&with_tag(image)).build();
        let mut lines = self.docker.create_image(Some(options), None, login.map(credentials)).boxed();
        let mut layers = Layers::default();
        let mut digest = None;
        loop {
            let line = tokio::time::timeout(STALL_DEADLINE, lines.next()).await.map_err(|_| {
                let detail = format!("nothing came for {} s", STALL_DEADLINE.as_secs());
                RuntimeError::PullFailed { image: image.to_owned(), detail }
            })?;
            match line {
                None => return Ok(digest),
                Some(Ok(line)) => {
                    let said = line.status.as_deref().and_then(|status| status.strip_prefix("Digest: "));
                    digest = said.filter(|said| is_digest(said)).map(str::to_owned).or(digest);
                    if let Some(now) = layers.note(&line) {
                        let _ = progress.try_send(now);
                    }
                }
                Some(Err(error)) => {
                    let error = errors::classify(&self.address, "pull an image", error);
                    return Err(errors::from_pull(image, &self.architecture, error));
                }
            }
        }
    }
}

fn credentials(login: &RegistryLogin) -> DockerCredentials {
    DockerCredentials {
        username: Some(login.username.clone()),
        password: Some(login.password.expose().to_owned()),
        ..DockerCredentials::default()
    }
}

/// The reference of exactly what a pull brought.
pub(super) fn exactly(reference: &str, digest: &str) -> Option<String> {
    Reference::parse(reference).ok().map(|reference| reference.pinned(digest))
}

/// Sums the progress lines of a pull over its layers.
#[derive(Default)]
struct Layers {
    seen: HashMap<String, (u64, u64)>,
}

impl Layers {
    fn note(&mut self, line: &CreateImageInfo) -> Option<PullProgress> {
        let id = line.id.clone()?;
        let detail = line.progress_detail.as_ref();
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let (current, total) = (number(detail.and_then(|d| d.current)), number(detail.and_then(|d| d.total)));
        let layer = match (line.status.as_deref(), current, total) {
            (Some("Downloading"), Some(current), Some(total)) => {
                let layer = self.seen.entry(id).or_default();
                *layer = (current, total.max(current));
                layer
            }
            (Some("Download complete" | "Pull complete"), ..) => {
                let layer = self.seen.get_mut(&id)?;
                layer.0 = layer.1;
                layer
            }
            _ => return None,
        };
        let _ = layer;
        let sum = |pick: fn(&(u64, u64)) -> u64| self.seen.values().map(pick).sum();
        Some(PullProgress { bytes_done: sum(|layer| layer.0), bytes_total: sum(|layer| layer.1) })
    }
}

/// What the sandbox must know of an image.
fn settings_of(found: &ImageInspect) -> ImageSettings {
    let config = found.config.clone().unwrap_or_default();
    ImageSettings {
        user: config.user.unwrap_or_default(),
        workdir: config.working_dir.unwrap_or_default(),
        volumes: config.volumes.unwrap_or_default().into_iter().collect(),
        variables: config.env.iter().flatten().map(|pair| pair.split('=').next().unwrap_or(pair).to_owned()).collect(),
        bytes: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
    }
}

/// Where a job's image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// From this machine, whose owner lends it.
    Lent,
    /// From nowhere: only this machine could have it, and its owner does not lend it.
    Private,
    /// From the registry in its name.
    Registry,
}

pub(super) fn source_of(image: &str, local: Option<&ImageInspect>) -> Source {
    let only_local = is_image_id(image) || local.is_some_and(|found| digest_of(image, found).is_none());
    match only_local {
        true if local.is_some_and(|found| is_lent(found) && is_of_this_machine(found)) => Source::Lent,
        true => Source::Private,
        false => Source::Registry,
    }
}

fn is_lent(found: &ImageInspect) -> bool {
    let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
    labels.and_then(|labels| labels.get(LABEL_SHARED)).is_some_and(|value| value == "true")
}

/// Whether no registry ever gave it: else whoever pushed it may have set the label. Podman names what it makes `localhost/…`.
fn is_of_this_machine(found: &ImageInspect) -> bool {
    found.repo_digests.iter().flatten().all(|digest| digest.starts_with("localhost/"))
}

pub(super) fn not_lent(image: &str) -> RuntimeError {
    let detail = format!(
        "this node lends no local image of that name; push it to a registry, or (owner) label it {LABEL_SHARED}=true"
    );
    RuntimeError::ImageNotFound { image: image.to_owned(), detail }
}

/// `repository@sha256:…` of an image; `None` when it never came from the repository it is named after: it was built or
/// imported on this machine, and there is nowhere to pull it from.
fn digest_of(image: &str, found: &ImageInspect) -> Option<String> {
    let repository = repository_of(image);
    let mut digests = found.repo_digests.iter().flatten().filter(|digest| repository_of(digest) == repository);
    let wanted = image.split_once('@').map(|(_, digest)| digest);
    let exact = digests.clone().find(|digest| digest.split_once('@').map(|(_, digest)| digest) == wanted);
    exact.or_else(|| digests.next()).cloned()
}

/// A name without tag and digest, as the engine shortens it.
fn repository_of(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        Some(_) | None => name,
    };
    let name = name.strip_prefix("index.").filter(|name| name.starts_with("docker.io/")).unwrap_or(name);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

/// A name without a tag means `latest`; the engine would pull every tag there is.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

fn runs_here(image: &str, here: &str) -> bool {
    image.is_empty() || image == here || (here == "amd64" && image == "386")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    fn line(id: &str, status: &str, numbers: Option<(i64, i64)>) -> CreateImageInfo {
        let progress_detail =
            numbers.map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) });
        CreateImageInfo {
            id: Some(id.into()),
            status: Some(status.into()),
            progress_detail,
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn progress_sums_over_layers_and_ignores_other_lines() {
        let mut layers = Layers::default();
        assert_eq!(layers.note(&line("a", "Pulling fs layer", None)), None);
        layers.note(&line("a", "Downloading", Some((10, 100))));
        let both = layers.note(&line("b", "Downloading", Some((5, 50)))).unwrap();
        assert_eq!((both.bytes_done, both.bytes_total), (15, 150));
        let done = layers.note(&line("a", "Download complete", None)).unwrap();
        assert_eq!((done.bytes_done, done.bytes_total), (105, 150));
        assert_eq!(layers.note(&line("a", "Extracting", Some((1, 100)))), None);
    }

    #[test]
    fn names_without_a_tag_mean_latest() {
        assert_eq!(with_tag("alpine"), "alpine:latest");
        assert_eq!(with_tag("127.0.0.1:5000/x/alpine"), "127.0.0.1:5000/x/alpine:latest");
        assert_eq!(with_tag("alpine:3"), "alpine:3");
        assert_eq!(with_tag("a@sha256:00"), "a@sha256:00");
    }

    #[test]
    fn an_image_belongs_to_the_repository_it_was_pulled_from_only() {
        let found = ImageInspect {
            repo_digests: Some(vec!["127.0.0.1:5000/a/b@sha256:1".into(), "alpine@sha256:2".into()]),
            ..ImageInspect::default()
        };
        for (name, digest) in [
            ("127.0.0.1:5000/a/b:3", Some("127.0.0.1:5000/a/b@sha256:1")),
            ("127.0.0.1:5000/a/b", Some("127.0.0.1:5000/a/b@sha256:1")),
            ("docker.io/library/alpine:3", Some("alpine@sha256:2")),
            ("index.docker.io/library/alpine", Some("alpine@sha256:2")),
            ("mine:1", None),
        ] {
            assert_eq!(digest_of(name, &found).as_deref(), digest, "{name}");
        }
    }

    #[test]
    fn only_whole_ids_count_as_ids() {
        assert!(is_image_id(&"a".repeat(64)));
        assert!(is_image_id(&format!("sha256:{}", "0".repeat(64))));
        assert!(!is_image_id("abcdef"));
        assert!(!is_image_id(&format!("x@sha256:{}", "0".repeat(64))));
    }

    #[test]
    fn only_the_owners_label_lends_what_no_registry_has() {
        let image = |digests: &[&str], label: Option<&str>| ImageInspect {
            repo_digests: Some(digests.iter().map(|&digest| digest.to_owned()).collect()),
            config: label.map(|value| bollard::models::ImageConfig {
                labels: Some([(LABEL_SHARED.to_owned(), value.to_owned())].into()),
                ..bollard::models::ImageConfig::default()
            }),
            ..ImageInspect::default()
        };
        let id = format!("sha256:{}", "0".repeat(64));
        for (name, local, source) in [
            ("mine:1", Some(image(&[], None)), Source::Private),
            ("mine:1", Some(image(&[], Some("false"))), Source::Private),
            ("mine:1", Some(image(&[], Some("true"))), Source::Lent),
            (id.as_str(), Some(image(&[], None)), Source::Private),
            (id.as_str(), Some(image(&["alpine@sha256:2"], None)), Source::Private),
            (id.as_str(), Some(image(&[], Some("true"))), Source::Lent),
            (id.as_str(), Some(image(&["localhost/mine@sha256:2"], Some("true"))), Source::Lent),
            // Pulled by somebody who had pushed it with the label.
            (id.as_str(), Some(image(&["evil@sha256:2"], Some("true"))), Source::Private),
            ("mine:1", Some(image(&["evil@sha256:2"], Some("true"))), Source::Private),
            (id.as_str(), None, Source::Private),
            ("alpine:3", None, Source::Registry),
            ("alpine:3", Some(image(&["alpine@sha256:2"], None)), Source::Registry),
            // Whoever pushed it may have set the label.
            ("alpine:3", Some(image(&["alpine@sha256:2"], Some("true"))), Source::Registry),
            ("alpine@sha256:2", Some(image(&["alpine@sha256:2"], None)), Source::Registry),
        ] {
            assert_eq!(source_of(name, local.as_ref()), source, "{name} {local:?}");
        }
    }
}
