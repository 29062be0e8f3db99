//! A lease's image: whether the owner takes it, what exactly it is, whether this job may have it, and how it gets here.
//!
//! Invariants
//! - The owner's rules are asked before any registry is, and every image of a registry is pinned to a digest before it runs.
//! - A cached image is used when the registry gives it to this very job. Where no registry answers, only an image that needed
//!   no login is, and only by its digest.
//! - A login is used for its own job's requests and held in memory only.
//! - A lease waits a bounded time for a registry that is busy, then it is handed back.

mod cache;
mod logins;
mod registry;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::agent::journal::{Journal, JournalError};
use crate::clock::Clock;
use crate::config::ImagesConfig;
use crate::http::public::{PublicError, PublicHttp, Reach};
use crate::runtime::images::cosign::{SignerKey, vouches};
use crate::runtime::images::{BadRule, ImageName, ImageRules, Reference};
use crate::runtime::provision::PulledImage;
use crate::runtime::{ContainerRuntime, PinnedImage, PullProgress, RuntimeError};
use crate::wire::LeaseId;
use crate::wire::job::{RegistryLogin, ServiceSpec};

pub use logins::Logins;
use registry::{Ask, Registries, RegistryError};

/// For so long a lease waits for a registry that lets nobody pull.
const BUSY_MAX: Duration = Duration::from_secs(300);
/// First wait for such a registry.
const BUSY_FIRST: Duration = Duration::from_secs(5);
const KEY_BYTES_MAX: u64 = 64 << 10;

/// What the owner says about images, ready for use.
#[derive(Debug, Clone)]
pub struct ImagePolicy {
    /// From where, and signed by whom.
    pub rules: ImageRules,
    /// Disk for images that were pulled for jobs, in bytes.
    pub cache_bytes: u64,
    /// How far registries that strangers name may be away. [`Reach::Public`] but in tests.
    pub reach: Reach,
}

impl Default for ImagePolicy {
    /// Every image of the public internet, and no limit on the cache.
    fn default() -> Self {
        Self { rules: ImageRules::default(), cache_bytes: u64::MAX, reach: Reach::Public }
    }
}

/// Why the owner's words about images cannot be used.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// An entry makes no sense.
    #[error(transparent)]
    Rule(#[from] BadRule),
    /// A key file cannot be read.
    #[error("images.signed_by: the file {file} cannot be read", file = file.display())]
    KeyUnreadable {
        /// Which.
        file: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// A key file holds something else.
    #[error("images.signed_by: the file {file} {why}", file = file.display())]
    BadKey {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl ImagePolicy {
    /// Reads the owner's words and the key files that they name. `cache_default_bytes` is the cache's size when they name none.
    ///
    /// # Errors
    /// [`PolicyError`] with the entry or file.
    pub fn read(config: &ImagesConfig, cache_default_bytes: u64) -> Result<Self, PolicyError> {
        let signers = config.signed_by.iter().map(read_key).collect::<Result<_, _>>()?;
        let rules = ImageRules::new(&config.allow, &config.deny, config.mirror.as_deref(), signers)?;
        let cache_bytes = config.cache.map_or(cache_default_bytes, |size| size.0);
        Ok(Self { rules, cache_bytes, reach: Reach::Public })
    }
}

fn read_key(file: &PathBuf) -> Result<SignerKey, PolicyError> {
    use std::io::Read as _;
    let mut pem = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(KEY_BYTES_MAX).read_to_end(&mut pem))
        .map_err(|source| PolicyError::KeyUnreadable { file: file.clone(), source })?;
    SignerKey::from_pem(&pem).map_err(|why| PolicyError::BadKey { file: file.clone(), why })
}

/// Everything about images that the leases of a node share. Clones are the same.
#[derive(Clone)]
pub struct Images(Arc<Shared>);

struct Shared {
    journal: Journal,
    clock: Clock,
    policy: ImagePolicy,
    registries: Registries,
    logins: Logins,
    /// What each lease is about to run, so that it is not removed between its pull and its container.
    held: Mutex<HashMap<LeaseId, HashSet<String>>>,
    /// Taken while an image is removed, and while a lease begins to hold one.
    removing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("policy", &self.0.policy).finish_non_exhaustive()
    }
}

/// What one lease asks for.
struct Wanted<'a> {
    runtime: &'a dyn ContainerRuntime,
    lease_id: LeaseId,
    /// As the job wrote it.
    image: &'a str,
    login: Option<RegistryLogin>,
    progress: mpsc::Sender<PullProgress>,
}

impl Images {
    /// Images under this policy, remembered in this journal.
    #[must_use]
    pub fn new(journal: Journal, clock: Clock, policy: ImagePolicy, logins: Logins) -> Self {
        let registries = Registries::new(policy.reach);
        let (held, removing) = (Mutex::default(), tokio::sync::Mutex::new(()));
        Self(Arc::new(Shared { journal, clock, policy, registries, logins, held, removing }))
    }

    /// For what else is fetched for strangers: as far as registries that they name.
    ///
    /// # Errors
    /// When HTTPS cannot be set up.
    pub(super) fn strangers_http(&self) -> Result<PublicHttp, PublicError> {
        self.0.registries.strangers()
    }

    /// Makes sure that a service's image is here and may be used, and pins it. `say` is told what is waited for.
    ///
    /// # Errors
    /// [`RuntimeError`] with the reason; [`RuntimeError::RegistryBusy`] only after having waited.
    pub async fn prepare(
        &self,
        runtime: &dyn ContainerRuntime,
        lease_id: LeaseId,
        service: &ServiceSpec,
        progress: mpsc::Sender<PullProgress>,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<PinnedImage, RuntimeError> {
        let image = service.image.as_str();
        let name = ImageName::parse(image).map_err(|bad| not_found(image, bad.to_string()))?;
        if let ImageName::Reference(reference) = &name {
            self.0.policy.rules.check_denied(reference).map_err(|why| refused(image, why))?;
        }
        if let Some(lent) = runtime.lent_image(image, progress.clone()).await? {
            return Ok(lent);
        }
        let ImageName::Reference(reference) = name else {
            return Err(not_found(image, "this node has no image with this id".to_owned()));
        };
        self.0.policy.rules.check(&reference).map_err(|why| refused(image, why))?;
        if self.0.policy.reach == Reach::Public {
            self.0.policy.rules.check_registry(&reference).map_err(|why| refused(image, why))?;
        }
        let waits = || say("waits for the registry's login, which the coordinator has".to_owned());
        let login = self.0.logins.of(lease_id, service, waits).await;
        let wanted = Wanted { runtime, lease_id, image, login, progress };
        let (mut waited, mut next) = (Duration::ZERO, BUSY_FIRST);
        loop {
            let error = match self.out_of_registry(&wanted, &reference).await {
                Err(error @ RuntimeError::RegistryBusy { .. }) => error,
                other => return other,
            };
            let wait = busy_wait(&error, next, rand::rng().random_range(0.75..1.25));
            if waited + wait > BUSY_MAX {
                return Err(error);
            }
            say(format!("{error}; it is asked again in {} s", wait.as_secs()));
            tokio::time::sleep(wait).await;
            waited += wait;
            next *= 2;
        }
    }

    /// One try: what the name means, whether it is here, else a pull; then who signed it.
    async fn out_of_registry(&self, wanted: &Wanted<'_>, reference: &Reference) -> Result<PinnedImage, RuntimeError> {
        let resolved = match self.resolve(wanted, reference).await {
            Ok(digest) => Some(digest),
            Err(RegistryError::Unreachable(why)) => {
                tracing::debug!(image = wanted.image, why, "the registry cannot be asked; the engine may know a way");
                None
            }
            Err(error) => return Err(of_registry(wanted.image, error)),
        };
        let pulled = match &resolved {
            Some(digest) => self.by_digest(wanted, reference, digest, true).await?,
            None => match reference.digest() {
                Some(digest) => self.by_digest(wanted, reference, digest, false).await?,
                None => self.by_name(wanted, reference).await?,
            },
        };
        self.check_signed(wanted, reference, &pulled.pinned).await?;
        // However it got here, a mirror's name is not the job's.
        let mut pinned = pulled.pinned;
        if let Some((_, digest)) = pinned.digest.split_once('@') {
            pinned.digest = reference.pinned(digest);
        }
        Ok(pinned)
    }

    /// What the name means at its registry; at the mirror when Docker Hub says nothing.
    async fn resolve(&self, wanted: &Wanted<'_>, reference: &Reference) -> Result<String, RegistryError> {
        let registries = &self.0.registries;
        let found = registries.resolve(&self.ask(wanted, reference)).await;
        let at_mirror = self.mirrored(wanted, reference);
        match (found, at_mirror) {
            // All but a plain no.
            (
                Err(RegistryError::Busy { .. } | RegistryError::Unreachable(_) | RegistryError::NotPublic(_)),
                Some(mirrored),
            ) => registries.resolve(&Ask { image: &mirrored, login: None, trusted: true }).await,
            (found, _) => found,
        }
    }

    /// The same image at the owner's mirror, for Docker Hub's images that everybody may have.
    fn mirrored(&self, wanted: &Wanted<'_>, reference: &Reference) -> Option<Reference> {
        let mirror = self.0.policy.rules.mirror().filter(|_| reference.is_docker_hubs() && wanted.login.is_none())?;
        Some(reference.at(mirror))
    }

    fn ask<'a>(&self, wanted: &'a Wanted<'_>, reference: &'a Reference) -> Ask<'a> {
        let trusted = self.0.policy.rules.names_registry_of(reference);
        Ask { image: reference, login: wanted.login.as_ref(), trusted }
    }

    /// Exactly this content. `granted`: the registry has just given it to this job.
    async fn by_digest(
        &self,
        wanted: &Wanted<'_>,
        reference: &Reference,
        digest: &str,
        granted: bool,
    ) -> Result<PulledImage, RuntimeError> {
        let names: Vec<String> = self
            .mirrored(wanted, reference)
            .into_iter()
            .map(|mirrored| mirrored.pinned(digest))
            .chain([reference.pinned(digest)])
            .collect();
        for name in &names {
            self.hold(wanted.lease_id, name).await;
            let Some(found) = wanted.runtime.pulled_image(name).await? else { continue };
            if granted || self.is_public(name).await? {
                self.used(name, wanted).await;
                return Ok(found);
            }
            let detail = "its registry cannot be asked whether this job may have it".to_owned();
            return Err(RuntimeError::PullFailed { image: wanted.image.to_owned(), detail });
        }
        let mut last = None;
        for name in &names {
            match self.pull(wanted, name).await {
                Ok(pulled) => return Ok(pulled),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| not_found(wanted.image, "it has no name".to_owned())))
    }

    /// By its tag, through an engine that can reach what we cannot.
    async fn by_name(&self, wanted: &Wanted<'_>, reference: &Reference) -> Result<PulledImage, RuntimeError> {
        let name = reference.to_string();
        self.hold(wanted.lease_id, &name).await;
        self.pull(wanted, &name).await
    }

    /// Whether an image of the cache was pulled without a login.
    async fn is_public(&self, reference: &str) -> Result<bool, RuntimeError> {
        let known = self.0.journal.cached_images().await.map_err(of_journal)?;
        Ok(known.iter().any(|image| image.reference == reference && !image.needed_login))
    }

    async fn check_signed(
        &self,
        wanted: &Wanted<'_>,
        reference: &Reference,
        pinned: &PinnedImage,
    ) -> Result<(), RuntimeError> {
        let signers = self.0.policy.rules.signers();
        if signers.is_empty() {
            return Ok(());
        }
        let image = wanted.image.to_owned();
        let Some((_, digest)) = pinned.digest.split_once('@') else {
            return Err(RuntimeError::ImageUnsigned { image, why: "it has no digest that could be signed".to_owned() });
        };
        let found = self.0.registries.signatures(&self.ask(wanted, reference), digest).await;
        let signatures = found.map_err(|error| of_registry(wanted.image, error))?;
        if signatures.iter().any(|found| vouches(signers, &found.payload, &found.signature, digest)) {
            return Ok(());
        }
        let why = match signatures.len() {
            0 => format!("its registry has no signature of {digest}"),
            count => format!("none of the {count} signatures of {digest} is by a known key"),
        };
        Err(RuntimeError::ImageUnsigned { image, why })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<LeaseId, HashSet<String>>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait for a registry that is busy: as long as it says, or longer and longer.
fn busy_wait(error: &RuntimeError, next: Duration, jitter: f64) -> Duration {
    let asked =
        if let RuntimeError::RegistryBusy { retry_after: Some(asked), .. } = error { *asked } else { Duration::ZERO };
    // Jitter on top of what was asked for, never below it.
    asked.max(next.mul_f64(jitter)).saturating_add(asked.mul_f64((jitter - 0.75) / 5.0))
}

fn not_found(image: &str, detail: String) -> RuntimeError {
    RuntimeError::ImageNotFound { image: image.to_owned(), detail }
}

fn refused(image: &str, why: String) -> RuntimeError {
    RuntimeError::ImageRefused { image: image.to_owned(), why }
}

fn of_registry(image: &str, error: RegistryError) -> RuntimeError {
    let image = image.to_owned();
    match error {
        RegistryError::Denied(detail) => RuntimeError::ImageNotFound { image, detail },
        RegistryError::Busy { detail, retry_after } => RuntimeError::RegistryBusy { image, detail, retry_after },
        RegistryError::NotPublic(why) => RuntimeError::ImageRefused { image, why },
        RegistryError::Unreachable(detail) => RuntimeError::PullFailed { image, detail },
    }
}

fn of_journal(error: JournalError) -> RuntimeError {
    RuntimeError::Engine { what: "remember an image", detail: error.to_string() }
}

#[cfg(test)]
mod tests;
