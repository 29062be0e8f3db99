//! Copies into a job: a tar from the renter, checked entry by entry on its way to the engine, which unpacks it as root.
//!
//! Invariants
//! - It goes only below the job's work directory or its output folder, and on the way there are folders only, no links.
//! - Only files, folders and links that stay inside are passed on, under relative names without `..`; no entry passes through a
//!   link of the same tar. Set-uid, set-gid and sticky bits are cleared, extended attributes do not pass, and everything belongs
//!   to the owner of the folder it goes into.
//! - No more bytes pass than the job's disk has.
//!
//! A job that swaps a folder for a link at the right moment can make its own renter write elsewhere *in its own container*: the
//! engine resolves every name inside the container's root.

mod filter;

use std::io;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc;

use super::session::{Input, Sentence};
use crate::runtime::sandbox::WORK_PATH;
use crate::runtime::{ContainerId, ContainerRuntime, RuntimeError};
use crate::wire::job::JobSpec;
use crate::wire::reach::ReachFrame;
use filter::{Owner, Rules};

/// Pieces between the network, the check and the engine.
const PIECES_MAX: usize = 4;
/// Bytes of a tar's header.
const HEADER_BYTES: usize = 512;

/// Where a copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Names below the root, at least one.
    parts: Vec<String>,
    /// Most bytes.
    bytes_max: u64,
}

impl Place {
    /// The place, if the job may write there.
    ///
    /// # Errors
    /// A sentence for the renter.
    pub(super) fn of(spec: &JobSpec, service: Option<&str>, path: &str) -> Result<Self, Sentence> {
        let parts = parts(path)?;
        let allowed = [Some(WORK_PATH), spec.output_path.as_deref()];
        let below = |root: &str| self::parts(root).is_ok_and(|root| !root.is_empty() && parts.starts_with(&root));
        if !allowed.into_iter().flatten().any(below) {
            let output = spec.output_path.as_ref().map(|path| format!(" and {path}")).unwrap_or_default();
            return Err(format!("'{path}' is not where the job may write; copy to {WORK_PATH}{output}"));
        }
        let wanted = |name: &str| service.is_none_or(|service| service == name);
        let found = spec.services.iter().find(|service| wanted(&service.name));
        let bytes_max = found.map_or(0, |service| service.resources.disk_bytes);
        if bytes_max == 0 {
            return Err("the job has no disk to copy to; submit it with --disk".to_owned());
        }
        Ok(Self { parts, bytes_max })
    }
}

fn parts(path: &str) -> Result<Vec<String>, Sentence> {
    let names: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if !path.starts_with('/') || names.contains(&"..") {
        return Err(format!("'{path}' is no absolute path without '..'"));
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// What a path of a container is.
enum Found {
    Folder(Owner),
    Absent,
    Other,
}

/// Takes a tar from the renter and unpacks it there.
pub(super) async fn copy_in(
    runtime: &dyn ContainerRuntime,
    container: &ContainerId,
    place: &Place,
    input: &mut Input,
) -> Result<(), Sentence> {
    let (folder, owner, top) = target(runtime, container, &place.parts).await?;
    let rules = Rules { owner, top, bytes_max: place.bytes_max };
    let (raw, unchecked) = mpsc::channel::<Bytes>(PIECES_MAX);
    let (passed, checked) = mpsc::channel::<io::Result<Bytes>>(PIECES_MAX);
    let checking = tokio::task::spawn_blocking(move || filter::run(unchecked, passed, &rules));
    let receiving = async {
        loop {
            match input.next().await? {
                ReachFrame::Input(bytes) => {
                    if raw.send(bytes).await.is_err() {
                        // The check has said no, or the engine has; which one is told below.
                        return Ok(());
                    }
                }
                ReachFrame::InputEnd => {
                    drop(raw);
                    return Ok(());
                }
                ReachFrame::Resize(_) => {}
                ReachFrame::Stdout(_) | ReachFrame::Stderr(_) | ReachFrame::Exit(_) | ReachFrame::Error(_) => {
                    return Err("the renter sent what only a node sends".to_owned());
                }
            }
        }
    };
    let checked = stream::unfold(checked, |mut checked| async move { Some((checked.recv().await?, checked)) });
    let unpacking = runtime.put(container, &folder, checked.boxed());
    let both = async { tokio::join!(receiving, unpacking) };
    let (received, unpacked) = both.await;
    let verdict = checking.await.map_err(|_| "the check of the tar broke off".to_owned())?;
    received?;
    verdict?;
    unpacked.map_err(|error| error.to_string())
}

/// The folder that is unpacked into, whose it is, and the name that the tar's top entry gets there, if another than its own.
async fn target(
    runtime: &dyn ContainerRuntime,
    container: &ContainerId,
    parts: &[String],
) -> Result<(String, Owner, Option<String>), Sentence> {
    let (mut folder, mut owner) = (String::new(), None);
    for (index, part) in parts.iter().enumerate() {
        let next = format!("{folder}/{part}");
        match look(runtime, container, &next).await? {
            Found::Folder(of) => owner = Some(of),
            Found::Absent | Found::Other if index + 1 < parts.len() => {
                return Err(format!("the container has no folder '{next}'"));
            }
            found @ (Found::Absent | Found::Other) => {
                let owner = owner.ok_or_else(|| format!("the container has no folder '{next}'"))?;
                if matches!(found, Found::Other) && is_link(runtime, container, &next).await? {
                    return Err(format!("'{next}' is a link; copy to where it leads"));
                }
                return Ok((folder, owner, Some(part.clone())));
            }
        }
        folder = next;
    }
    let owner = owner.ok_or("a copy needs a folder to go to")?;
    Ok((folder, owner, None))
}

/// Reads the head of the path's own entry, and no more of it.
async fn head(
    runtime: &dyn ContainerRuntime,
    container: &ContainerId,
    path: &str,
) -> Result<Option<tar::Header>, Sentence> {
    let mut pieces = runtime.archive(container, path);
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    while bytes.len() < HEADER_BYTES {
        match pieces.next().await {
            Some(Ok(piece)) => bytes.extend_from_slice(&piece),
            Some(Err(RuntimeError::NoSuchPath { .. })) => return Ok(None),
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err(format!("the engine says nothing of '{path}'")),
        }
    }
    bytes.truncate(HEADER_BYTES);
    Ok(Some(tar::Header::from_byte_slice(&bytes).clone()))
}

async fn look(runtime: &dyn ContainerRuntime, container: &ContainerId, path: &str) -> Result<Found, Sentence> {
    let Some(header) = head(runtime, container, path).await? else { return Ok(Found::Absent) };
    if !header.entry_type().is_dir() {
        return Ok(Found::Other);
    }
    let unclear = |_: io::Error| format!("whose folder '{path}' is cannot be read");
    Ok(Found::Folder(Owner { uid: header.uid().map_err(unclear)?, gid: header.gid().map_err(unclear)? }))
}

async fn is_link(runtime: &dyn ContainerRuntime, container: &ContainerId, path: &str) -> Result<bool, Sentence> {
    Ok(head(runtime, container, path).await?.is_some_and(|header| header.entry_type().is_symlink()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::job::{Resources, ServiceSpec};

    fn spec(disk_bytes: u64) -> JobSpec {
        let resources = Resources { disk_bytes, ..Resources::default() };
        let service = ServiceSpec { name: "main".into(), resources, ..ServiceSpec::default() };
        JobSpec { services: vec![service], output_path: Some("/data/out".into()), ..JobSpec::default() }
    }

    #[test]
    fn a_copy_goes_only_where_the_job_may_write() {
        for good in ["/work", "/work/a/b", "/work/./a", "/data/out/x", "/data//out"] {
            assert!(Place::of(&spec(10), None, good).is_ok(), "{good}");
        }
        for bad in ["/", "/etc", "/data", "/workshop", "/work/../etc", "work", "/data/output", ""] {
            assert!(Place::of(&spec(10), None, bad).is_err(), "{bad}");
        }
        assert!(Place::of(&spec(0), None, "/work").unwrap_err().contains("--disk"));
        assert!(Place::of(&spec(10), Some("db"), "/work").is_err());
    }
}
