//! How a container is made: planned by the sandbox, asked of the engine, its folders laid out, before anything of it runs.
//!
//! Invariants
//! - A lease gets one container: its name is taken from the lease, and a taken name means that it is there already.
//! - Folders are made in a container that was never started, by the engine, shut into the container's own files.

use std::io::Read as _;

use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::super::sandbox::{self, Folder, JobUser, Plan, PlanError, from_passwd};
use super::super::{ContainerId, ContainerRuntime as _, ContainerSpec, ContainerStatus, RuntimeError};
use super::{CALL_DEADLINE, DockerRuntime, START_DEADLINE, body, networks};

const CREATE: &str = "create a container";
/// Largest list of users that is read out of an image.
const PASSWD_BYTES_MAX: usize = 1 << 20;
/// So many images' users are remembered.
const USERS_MAX: usize = 256;

impl DockerRuntime {
    pub(super) async fn create_container(&self, spec: &ContainerSpec) -> Result<ContainerId, RuntimeError> {
        let asked = JobUser::of_image(&spec.settings.user);
        let JobUser::Name(name) = asked else {
            return self.create_for(spec, None).await;
        };
        if spec.root {
            return self.create_for(spec, None).await;
        }
        let known = self.shared.users().get(&spec.image_id).cloned();
        if let Some(user) = known {
            return self.create_for(spec, Some(&user)).await;
        }
        // Who that is stands in the image's own files, and only a container shows them.
        let id = self.create_for(spec, Some(&JobUser::NOBODY)).await?;
        let user = from_passwd(&name, &self.passwd(&id).await);
        {
            let mut users = self.shared.users();
            if users.len() >= USERS_MAX {
                users.clear();
            }
            users.insert(spec.image_id.clone(), user.clone());
        }
        if user == JobUser::NOBODY || self.inspect(&id).await? != ContainerStatus::Created {
            return Ok(id);
        }
        self.remove(&id).await?;
        self.create_for(spec, Some(&user)).await
    }

    /// Makes it with `user` in place of the image's own.
    async fn create_for(&self, spec: &ContainerSpec, user: Option<&JobUser>) -> Result<ContainerId, RuntimeError> {
        let mut spec = spec.clone();
        if let Some(user) = user {
            spec.settings.user = user.written();
        }
        let services_max = self.ceiling.sandbox.services_max;
        if spec.services > usize::from(services_max) {
            let detail = format!("the job has {} containers, at most {services_max} are allowed", spec.services);
            return Err(RuntimeError::OwnerRefuses { detail });
        }
        let facts = self.facts();
        let plan = sandbox::plan(&spec, &self.ceiling.sandbox, &facts).map_err(refused)?;
        let (id, is_new) = match self.create_once(&spec, &plan).await {
            // Its storage was thought to keep to a limit. From now on the agent watches instead.
            Err(RuntimeError::Engine { detail, .. } | RuntimeError::InvalidSpec { detail })
                if plan.layer_bytes_max.is_some() && is_quota_refused(&detail) =>
            {
                tracing::info!(
                    detail,
                    "the container engine's storage limits no container; the agent watches them instead"
                );
                self.shared.refuse_quota();
                let plan = Plan { layer_bytes_max: None, ..plan.clone() };
                self.create_once(&spec, &plan).await?
            }
            other => other?,
        };
        if is_new && !plan.folders.is_empty() {
            self.make_folders(&id, &plan).await?;
        }
        Ok(id)
    }

    /// The container, and whether it was made just now.
    async fn create_once(&self, spec: &ContainerSpec, plan: &Plan) -> Result<(ContainerId, bool), RuntimeError> {
        let name = container_name(spec);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let mut body = body::body(spec, plan, &self.facts());
        networks::attach(&mut body, &spec.network, &self.resolvers(&spec.network).await);
        let create = self.docker.create_container(Some(options.clone()), body.clone());
        match self.call(CREATE, START_DEADLINE, create).await {
            Ok(made) => Ok((ContainerId(made.id), true)),
            // The name is taken: this lease has its container already.
            Err(RuntimeError::Engine { detail, .. }) if detail.contains("is already in use") => {
                let made = self.container_of(spec).await?;
                // A call of an agent that was killed may be making it at this moment: the name is taken before the container
                // is listed. Asking again finds it.
                let made = made.ok_or(RuntimeError::Engine { what: CREATE, detail })?;
                if self.inspect(&made).await? != ContainerStatus::Created {
                    return Ok((made, false));
                }
                // A call of an agent that was killed may still be on its way to start this one; were it late, it would start an
                // ended one a second time. It cannot find one that is new.
                self.remove_container(&made).await?;
                let create = self.docker.create_container(Some(options), body);
                Ok((ContainerId(self.call(CREATE, START_DEADLINE, create).await?.id), true))
            }
            Err(error) => Err(error),
        }
    }

    async fn make_folders(&self, id: &ContainerId, plan: &Plan) -> Result<(), RuntimeError> {
        const WHAT: &str = "make a job's folders";
        let (uid, gid) = plan.user.owner().unwrap_or_default();
        let tar = tar_of(&plan.folders, uid, gid)
            .map_err(|error| RuntimeError::Engine { what: WHAT, detail: error.to_string() })?;
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let upload = self.docker.upload_to_container(&id.0, Some(options), bollard::body_full(Bytes::from(tar)));
        self.call(WHAT, CALL_DEADLINE, upload).await
    }

    /// The container's list of users; empty when it has none that can be read.
    async fn passwd(&self, id: &ContainerId) -> String {
        let options = DownloadFromContainerOptionsBuilder::new().path("/etc/passwd").build();
        let mut pieces = self.docker.download_from_container(&id.0, Some(options)).boxed();
        let mut tar = Vec::new();
        while let Ok(Some(Ok(piece))) = tokio::time::timeout(CALL_DEADLINE, pieces.next()).await {
            tar.extend_from_slice(&piece);
            if tar.len() > PASSWD_BYTES_MAX {
                return String::new();
            }
        }
        file_in(&tar).unwrap_or_default()
    }
}

/// Taken once per lease and service, so that neither gets a second container.
fn container_name(spec: &ContainerSpec) -> String {
    match &spec.service {
        None => format!("fizz-{}", spec.lease_id),
        Some(service) => format!("fizz-{}-{service}", spec.lease_id),
    }
}

/// The first file of an archive as text, if that is a plain file.
fn file_in(tar: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(tar);
    let mut file = archive.entries().ok()?.next()?.ok()?;
    if !file.header().entry_type().is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn tar_of(folders: &[Folder], uid: u32, gid: u32) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for folder in folders {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(folder.mode);
        header.set_uid(u64::from(uid));
        header.set_gid(u64::from(gid));
        header.set_size(0);
        tar.append_data(&mut header, folder.path.trim_start_matches('/'), std::io::empty())?;
    }
    tar.into_inner()
}

fn refused(error: PlanError) -> RuntimeError {
    match error {
        PlanError::NoIsolation { .. } => RuntimeError::NoIsolation { wanted: error.to_string() },
        PlanError::RootRefused { .. } => RuntimeError::OwnerRefuses { detail: error.to_string() },
        PlanError::BadOutput { .. } | PlanError::BadVolume { .. } | PlanError::TooManyVolumes { .. } => {
            RuntimeError::InvalidSpec { detail: error.to_string() }
        }
    }
}

/// The words of overlay without project quotas, and of drivers that have no quota.
fn is_quota_refused(detail: &str) -> bool {
    let lower = detail.to_lowercase();
    ["storage-opt", "storage opt", "pquota", "quota"].iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_without_a_quota_is_told_from_a_full_one_by_its_words() {
        for words in [
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
            "Filesystem does not support, or has not enabled quotas",
            "--storage-opt is not supported for vfs",
        ] {
            assert!(is_quota_refused(words), "{words}");
        }
        assert!(!is_quota_refused("no space left on device"));
    }

    #[test]
    fn the_archive_of_folders_holds_folders_of_the_jobs_user_and_nothing_else() {
        let folders =
            [Folder { path: "/work".to_owned(), mode: 0o755 }, Folder { path: "/a/b".to_owned(), mode: 0o1777 }];
        let tar = tar_of(&folders, 65_532, 7).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let seen: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert!(header.entry_type().is_dir());
                let (uid, gid, mode) = (header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap());
                (entry.path().unwrap().to_string_lossy().into_owned(), uid, gid, mode)
            })
            .collect();
        assert_eq!(seen, [("work".to_owned(), 65_532, 7, 0o755), ("a/b".to_owned(), 65_532, 7, 0o1777)]);
    }
}
