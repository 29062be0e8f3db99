//! Image names and what the owner says about them. Pure: names in, decisions out.
//!
//! Invariants
//! - A name means what Docker takes it to mean: `alpine` is `docker.io/library/alpine:latest`.
//! - `deny` goes before `allow`; both compare whole path components, so `ghcr.io/acme` says nothing of `ghcr.io/acme-evil`.
//! - A digest is `sha256:` and 64 hex digits; nothing else pins an image.

pub mod cosign;
mod operators;

use std::fmt;

use thiserror::Error;

use cosign::SignerKey;

/// Docker Hub, as names without a registry mean it.
pub const DOCKER_HUB: &str = "docker.io";
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// What a job calls an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageName {
    /// The id of an image on the node itself.
    Id(String),
    /// An image of a registry, or one that the owner made under such a name.
    Reference(Reference),
}

/// The name of an image in a registry, written out in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// A name that no image can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{name}' is no image name: {why}")]
pub struct BadName {
    /// As written.
    pub name: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl ImageName {
    /// Reads a name as Docker does.
    ///
    /// # Errors
    /// [`BadName`] when no image can be called so.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        if is_image_id(text) {
            return Ok(Self::Id(text.to_owned()));
        }
        Reference::parse(text).map(Self::Reference)
    }
}

impl Reference {
    /// Reads a name as Docker does.
    ///
    /// # Errors
    /// [`BadName`] when no image of a registry can be called so.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let bad = |why| BadName { name: text.to_owned(), why };
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) if is_digest(digest) => (named, Some(digest.to_owned())),
            Some(_) => return Err(bad("a digest is sha256: and 64 hex digits")),
            None => (text, None),
        };
        let (name, tag) = match named.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            Some(_) | None => (named, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("a tag has up to 128 letters, digits, '_', '.' and '-'"));
        }
        let (registry, repository) = split_registry(name);
        if !registry.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b)) {
            return Err(bad("its registry is no host name"));
        }
        if registry.len() + repository.len() >= NAME_BYTES_MAX {
            return Err(bad("it is longer than 255 bytes"));
        }
        if !repository.split('/').all(is_component) {
            return Err(bad("a repository has lower case letters, digits and separators, such as library/alpine"));
        }
        Ok(Self { registry, repository, tag: tag.map(str::to_owned), digest })
    }

    /// `docker.io`, `ghcr.io`, `127.0.0.1:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest in the name.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What the registry is asked for: the digest, else the tag, else `latest`.
    #[must_use]
    pub fn version(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// Whether it is one of Docker Hub's.
    #[must_use]
    pub fn is_docker_hubs(&self) -> bool {
        self.registry == DOCKER_HUB
    }

    /// Registry and repository, `docker.io/library/alpine`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same image pinned to content, as engines write it: `alpine@sha256:…`.
    #[must_use]
    pub fn pinned(&self, digest: &str) -> String {
        format!("{}@{digest}", self.short())
    }

    /// The same repository at another registry.
    #[must_use]
    pub fn at(&self, registry: &str) -> Self {
        Self { registry: registry.to_owned(), ..self.clone() }
    }

    /// The same repository with other content.
    #[must_use]
    pub fn with_digest(&self, digest: &str) -> Self {
        Self { tag: None, digest: Some(digest.to_owned()), ..self.clone() }
    }

    /// The name without tag and digest as engines shorten it.
    fn short(&self) -> String {
        match self.is_docker_hubs() {
            true => self.repository.strip_prefix("library/").unwrap_or(&self.repository).to_owned(),
            false => self.name(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.digest {
            Some(digest) => write!(f, "{}@{digest}", self.short()),
            None => write!(f, "{}:{}", self.short(), self.version()),
        }
    }
}

/// Whether the text is the id of an image: 64 hex digits, with or without `sha256:`.
#[must_use]
pub fn is_image_id(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether the text is a digest as registries write it.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:");
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_BYTES_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Letters and digits, with `.`, `_`, `__` or dashes between them.
fn is_component(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = part.bytes().next().is_some_and(plain) && part.bytes().next_back().is_some_and(plain);
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends && separators.into_iter().all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

/// As Docker splits: what comes first is a registry when it looks like a host.
fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if looks_like_host(first) => (first, rest.to_owned()),
        Some(_) => (DOCKER_HUB, name.to_owned()),
        None => (DOCKER_HUB, format!("library/{name}")),
    };
    let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
    let repository =
        if registry == DOCKER_HUB && !repository.contains('/') { format!("library/{repository}") } else { repository };
    (registry.to_owned(), repository)
}

fn looks_like_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

/// What the owner says about images.
#[derive(Debug, Clone, Default)]
pub struct ImageRules {
    allow: Vec<String>,
    deny: Vec<String>,
    mirror: Option<String>,
    signers: Vec<SignerKey>,
}

/// The owner's rules make no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("images.{key}: '{entry}' {why}")]
pub struct BadRule {
    /// The key in the configuration.
    pub key: &'static str,
    /// What was written.
    pub entry: String,
    /// What is wrong with it and what would be right.
    pub why: &'static str,
}

impl ImageRules {
    /// Checks the owner's words. `mirror` is `https://mirror.example`, or `http://` for one on this machine.
    ///
    /// # Errors
    /// [`BadRule`] with the entry.
    pub fn new(
        allow: &[String],
        deny: &[String],
        mirror: Option<&str>,
        signers: Vec<SignerKey>,
    ) -> Result<Self, BadRule> {
        let prefixes = |key, entries: &[String]| -> Result<Vec<String>, BadRule> {
            entries.iter().map(|entry| prefix(key, entry)).collect()
        };
        let mirror = match mirror {
            Some(address) => Some(mirror_host(address).ok_or_else(|| BadRule {
                key: "mirror",
                entry: address.to_owned(),
                why: "must be an address like https://mirror.example",
            })?),
            None => None,
        };
        Ok(Self { allow: prefixes("allow", allow)?, deny: prefixes("deny", deny)?, mirror, signers })
    }

    /// Whether the owner takes the image of this name.
    ///
    /// # Errors
    /// A sentence that says which rule is in the way.
    pub fn check(&self, image: &Reference) -> Result<(), String> {
        self.check_denied(image)?;
        let name = image.name();
        if self.allow.is_empty() || self.allow.iter().any(|prefix| covers(prefix, &name)) {
            return Ok(());
        }
        Err(format!("this node takes images only from {}, not from {name}", self.allow.join(", ")))
    }

    /// Whether the owner refuses this name even for an image that he lends himself.
    ///
    /// # Errors
    /// As [`ImageRules::check`].
    pub fn check_denied(&self, image: &Reference) -> Result<(), String> {
        let name = image.name();
        match self.deny.iter().find(|prefix| covers(prefix, &name)) {
            Some(prefix) => Err(format!("this node takes no images from {prefix}")),
            None => Ok(()),
        }
    }

    /// Whether the owner named this image's registry himself, so that it may be one in his own network.
    #[must_use]
    pub fn names_registry_of(&self, image: &Reference) -> bool {
        let named = |prefix: &String| prefix.split('/').next() == Some(image.registry());
        image.registry() != DOCKER_HUB
            && (self.allow.iter().any(named) || self.mirror.as_deref() == Some(image.registry()))
    }

    /// Whether the engine may be sent to the image's registry: one of an operator that is known not to send it elsewhere, or one
    /// that the owner named. The engine asks by itself and follows where the registry points it, so that a stranger's own
    /// registry could point it into the home.
    ///
    /// # Errors
    /// A sentence that says what the owner can do.
    pub fn check_registry(&self, image: &Reference) -> Result<(), String> {
        let registry = image.registry();
        if operators::is_known(registry) || self.names_registry_of(image) {
            return Ok(());
        }
        Err(format!(
            "this node asks only well-known registries, and its owner has not named {registry} in images.allow"
        ))
    }

    /// The registry that is asked first for Docker Hub's images.
    #[must_use]
    pub fn mirror(&self) -> Option<&str> {
        self.mirror.as_deref()
    }

    /// Who must have signed an image; nobody when empty.
    #[must_use]
    pub fn signers(&self) -> &[SignerKey] {
        &self.signers
    }
}

/// An entry of `allow` or `deny`, written out as names are.
fn prefix(key: &'static str, entry: &str) -> Result<String, BadRule> {
    let bad = |why| BadRule { key, entry: entry.to_owned(), why };
    let trimmed = entry.trim().trim_end_matches('/');
    if trimmed.is_empty() || trimmed.contains(char::is_whitespace) {
        return Err(bad("must be a registry or a repository, such as ghcr.io/acme or docker.io/library"));
    }
    if trimmed.contains("://") || trimmed.contains('*') || trimmed.contains('@') {
        return Err(bad("must be the beginning of a name, such as ghcr.io/acme: no scheme, no *, no digest"));
    }
    let (first, rest) = trimmed.split_once('/').map_or((trimmed, None), |(first, rest)| (first, Some(rest)));
    let first = if first == "index.docker.io" { DOCKER_HUB } else { first };
    Ok(match rest {
        Some(rest) if looks_like_host(first) => format!("{first}/{rest}"),
        None if looks_like_host(first) => first.to_owned(),
        Some(_) => format!("{DOCKER_HUB}/{trimmed}"),
        None => format!("{DOCKER_HUB}/library/{trimmed}"),
    })
}

fn covers(prefix: &str, name: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn mirror_host(address: &str) -> Option<String> {
    let host = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    let host = host.trim_end_matches('/');
    let usable = looks_like_host(host) && !host.contains('/') && !host.contains(char::is_whitespace);
    usable.then(|| host.to_owned())
}

#[cfg(test)]
mod tests;
