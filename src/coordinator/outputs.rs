//! Job outputs in an object store: a local folder by default, S3-compatible by URL.
//!
//! Invariants
//! - An output becomes visible whole or not at all: bytes are staged, checked against the sender's SHA-256 and size limit
//!   while they pass, and only then completed.
//! - Every upload has an object of its own, so a repeat neither changes what somebody reads nor can take away what another
//!   upload delivered.
//! - However large an output is, only a few megabytes of it are in memory.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use url::Url;

use super::CoordinatorConfig;
use super::secrets::random_bytes;
use super::store::{StoreError, StoredOutput};
use crate::wire::{JobId, LeaseId};

mod parts;

/// Parts of an upload that may be under way at once.
const PARTS_MAX: usize = 2;

/// Why an output could not be kept or read.
#[derive(Debug, Error)]
pub enum OutputError {
    /// The folder for outputs cannot be made.
    #[error("the folder for outputs, {}, cannot be made; check that its parent may be written", path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configured address names no store that is supported.
    #[error("outputs cannot be kept at '{url}'; write a folder as file:///path or a bucket as s3://bucket/prefix")]
    Address {
        /// As configured, without credentials.
        url: String,
        /// Why.
        #[source]
        source: Option<object_store::Error>,
    },
    /// The store failed.
    #[error("the store of outputs failed")]
    Store(#[source] object_store::Error),
    /// The sender broke off.
    #[error("the output broke off: {0}")]
    Broken(String),
    /// Bytes before a part are missing.
    #[error("the output is here up to byte {next_offset} only")]
    Gap {
        /// Where to go on.
        next_offset: u64,
    },
    /// Larger than the job allows.
    #[error("the output is larger than the job allows ({limit_bytes} bytes)")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// Other bytes than the sender meant to send.
    #[error("the output has SHA-256 {actual}, not {announced} as announced")]
    WrongSum {
        /// What came.
        actual: String,
        /// What was announced.
        announced: String,
    },
}

/// Where job outputs are kept.
#[derive(Debug)]
pub(crate) struct Outputs {
    store: Arc<dyn ObjectStore>,
}

/// What an upload must turn out to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// The job.
    pub(crate) job_id: JobId,
    /// The lease that hands it over.
    pub(crate) lease_id: LeaseId,
    /// SHA-256 as announced, lower-case hex.
    pub(crate) sha256: &'a str,
    /// The most it may have.
    pub(crate) limit_bytes: u64,
}

impl Outputs {
    /// Opens the place that the configuration names.
    pub(crate) fn open(config: &CoordinatorConfig) -> Result<Self, StoreError> {
        let store = match &config.outputs_url {
            None => {
                let path = config.data_dir.join("outputs");
                if let Err(error) = remove_halves(&path) {
                    tracing::warn!(%error, folder = %path.display(), "halves of outputs could not be cleaned up");
                }
                folder(path)
            }
            Some(url) => at_url(url),
        };
        Ok(Self { store: store? })
    }

    /// Takes an output in. It is complete and checked when this returns, and otherwise nothing is left of it.
    pub(crate) async fn put<S, E>(&self, expected: Expected<'_>, body: S) -> Result<StoredOutput, OutputError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::fmt::Display,
    {
        let upload_id = hex::encode(random_bytes::<8>());
        let object = format!("{}/{}-{upload_id}.tar", expected.job_id, expected.lease_id);
        let upload = self.store.put_multipart(&Path::from(object.as_str())).await.map_err(OutputError::Store)?;
        let mut writer = WriteMultipart::new(upload);
        match receive(&mut writer, expected, body).await {
            Ok(bytes) => {
                writer.finish().await.map_err(OutputError::Store)?;
                Ok(StoredOutput { object, bytes, sha256: expected.sha256.to_owned() })
            }
            Err(error) => {
                if let Err(abort) = writer.abort().await {
                    tracing::warn!(error = %abort, "what came of a refused output could not be cleaned up");
                }
                Err(error)
            }
        }
    }

    /// An output's bytes.
    pub(crate) async fn get(
        &self,
        output: &StoredOutput,
    ) -> Result<BoxStream<'static, Result<Bytes, object_store::Error>>, OutputError> {
        let found = self.store.get(&Path::from(output.object.as_str())).await.map_err(OutputError::Store)?;
        Ok(found.into_stream())
    }

    /// Removes an object that nothing refers to any more.
    pub(crate) async fn remove(&self, object: &str) {
        match self.store.delete(&Path::from(object)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%error, "an output that is not needed any more could not be removed"),
        }
    }
}

async fn receive<S, E>(writer: &mut WriteMultipart, expected: Expected<'_>, body: S) -> Result<u64, OutputError>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: std::fmt::Display,
{
    let mut body = std::pin::pin!(body);
    let (mut sum, mut bytes) = (Sha256::new(), 0_u64);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|e| OutputError::Broken(e.to_string()))?;
        bytes = bytes.saturating_add(chunk.len() as u64);
        if bytes > expected.limit_bytes {
            return Err(OutputError::TooLarge { limit_bytes: expected.limit_bytes });
        }
        sum.update(&chunk);
        writer.wait_for_capacity(PARTS_MAX).await.map_err(OutputError::Store)?;
        writer.put(chunk);
    }
    let actual = hex::encode(sum.finalize());
    if actual != expected.sha256 {
        return Err(OutputError::WrongSum { actual, announced: expected.sha256.to_owned() });
    }
    Ok(bytes)
}

/// Removes what a coordinator that was killed had taken in by half. The local store writes beside the object, with `#` and a
/// number behind its name, which no object's name holds. This folder is ours alone, so nobody is writing now.
fn remove_halves(outputs: &std::path::Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(outputs) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_halves(&entry.path())?;
        } else if entry.file_name().to_string_lossy().contains('#') {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn folder(path: PathBuf) -> Result<Arc<dyn ObjectStore>, OutputError> {
    std::fs::create_dir_all(&path).map_err(|source| OutputError::Folder { path: path.clone(), source })?;
    let store = LocalFileSystem::new_with_prefix(&path).map_err(OutputError::Store)?;
    Ok(Arc::new(store.with_fsync(true).with_automatic_cleanup(true)))
}

fn at_url(text: &str) -> Result<Arc<dyn ObjectStore>, OutputError> {
    let url = Url::parse(text).map_err(|_| OutputError::Address { url: text.to_owned(), source: None })?;
    if url.scheme() == "file" {
        let path = url.to_file_path().map_err(|()| OutputError::Address { url: text.to_owned(), source: None })?;
        return folder(path);
    }
    // Credentials and a server of one's own come from the environment, as every S3 client has them: AWS_ACCESS_KEY_ID,
    // AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT.
    bucket(&url, std::env::vars().filter(|(name, _)| name.starts_with("AWS_")))
}

fn bucket(url: &Url, options: impl Iterator<Item = (String, String)>) -> Result<Arc<dyn ObjectStore>, OutputError> {
    let options = options.map(|(name, value)| (name.to_lowercase(), value));
    let (store, prefix) = object_store::parse_url_opts(url, options)
        .map_err(|source| OutputError::Address { url: origin(url), source: Some(source) })?;
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

/// An address without the credentials it may hold.
fn origin(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

#[cfg(test)]
mod tests;
