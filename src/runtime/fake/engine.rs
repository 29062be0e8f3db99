//! The fake engine's side of [`ContainerRuntime`].

use std::net::Ipv4Addr;
use std::sync::MutexGuard;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};

use super::super::firewall::Verdict;
use super::super::gpu::{self, GpuAbilities, GpuBinding, GpuCard};
use super::super::network::{LeaseNetworkSpec, NetworkId, OwnedNetwork};
use super::super::vulnerable::{self, Finding};
use super::super::{
    ContainerEvent, ContainerExit, ContainerId, ContainerRuntime, ContainerSpec, ContainerStatus, DiskUse, Exec,
    ExecId, ExecSpec, FreeSpace, ImageSettings, LogEntry, OwnedContainer, PinnedImage, PullProgress, RuntimeError,
};
use super::container::{self, FakeContainer};
use super::{Call, FakeImage, FakeRuntime, World, not_running};
use crate::wire::NodeId;
use crate::wire::job::{Isolation, Reach};
use crate::wire::node::Engine;
use crate::wire::reach::TerminalSize;

#[async_trait]
impl ContainerRuntime for FakeRuntime {
    async fn engine(&self) -> Result<Engine, RuntimeError> {
        drop(self.enter(Call::Engine)?);
        Ok(Engine { name: "fake".to_owned(), version: "1.0".to_owned(), api_version: "1.41".to_owned() })
    }

    fn findings(&self) -> Vec<Finding> {
        self.world().findings.clone()
    }

    fn isolation(&self) -> Vec<Isolation> {
        vec![Isolation::Container]
    }

    fn bind_gpu(&self, card: &GpuCard) -> Option<GpuBinding> {
        let abilities = GpuAbilities { local: true, nvidia_requests: true, ..GpuAbilities::default() };
        gpu::bind(card, &abilities)
    }

    async fn ensure_image(
        &self,
        image: &str,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<PinnedImage, RuntimeError> {
        let FakeImage { layers, layer_time, .. } = {
            let mut world = self.enter(Call::EnsureImage)?;
            world.pulls += 1;
            world.images.get(image).cloned().ok_or_else(|| RuntimeError::ImageNotFound {
                image: image.to_owned(),
                detail: "the fake engine has no such image".to_owned(),
            })?
        };
        let bytes_total = layers.iter().sum();
        let mut bytes_done = 0;
        for layer in layers {
            if !layer_time.is_zero() {
                tokio::time::sleep(layer_time).await;
            }
            bytes_done += layer;
            let _ = progress.try_send(PullProgress { bytes_done, bytes_total });
        }
        drop(self.enter(Call::EnsureImage)?);
        let image_id = format!("sha256:{image}");
        let digest = format!("{image}@{image_id}");
        Ok(PinnedImage { digest, image_id, settings: ImageSettings::default() })
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId, RuntimeError> {
        let mut world = self.enter(Call::Create)?;
        if let Some(finding) = vulnerable::refuses_jobs(&world.findings) {
            return Err(RuntimeError::Vulnerable { finding });
        }
        if let Some((id, _)) = world.containers.iter().find(|(_, c)| c.is(spec.lease_id, spec.service.as_deref())) {
            return Ok(ContainerId(id.clone()));
        }
        world.check_network(&spec.network)?;
        let name = spec.image_id.strip_prefix("sha256:").unwrap_or(&spec.image_id);
        let image = world.images.get(name).ok_or_else(|| RuntimeError::ImageNotFound {
            image: spec.image_id.clone(),
            detail: "the fake engine has no such image".to_owned(),
        })?;
        let script = world.scripts.get(&spec.command).unwrap_or(&image.script).clone();
        world.made += 1;
        let id = format!("fake{:04}", world.made);
        *world.creates.entry((spec.lease_id, spec.service.clone())).or_default() += 1;
        world.containers.insert(id.clone(), FakeContainer::new(spec.clone(), script));
        drop(world);
        self.bump();
        Ok(ContainerId(id))
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let now = self.clock.now();
        let mut world = self.enter(Call::Start)?;
        let container = world.find(id)?;
        if container.started_at.is_some() {
            return Ok(());
        }
        container.begin(now);
        self.started(world, id);
        Ok(())
    }

    async fn restart(&self, id: &ContainerId, ended_at: Timestamp) -> Result<(), RuntimeError> {
        let now = self.clock.now();
        let mut world = self.enter(Call::Restart)?;
        let container = world.find(id)?;
        if container.exit.as_ref().is_none_or(|exit| exit.ended_at != ended_at) {
            return Ok(());
        }
        container.begin(now);
        self.started(world, id);
        Ok(())
    }

    async fn wait(&self, id: &ContainerId) -> Result<ContainerExit, RuntimeError> {
        drop(self.enter(Call::Wait)?);
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            {
                let mut world = self.world();
                if !world.up {
                    return Err(not_running());
                }
                if let Some(exit) = &world.find(id)?.exit {
                    return Ok(exit.clone());
                }
            }
            if changed.changed().await.is_err() {
                return Err(not_running());
            }
        }
    }

    async fn witnessed(&self, id: &ContainerId, _exit: &ContainerExit) -> Result<bool, RuntimeError> {
        Ok(!self.enter(Call::Inspect)?.find(id)?.ended_unseen)
    }

    async fn inspect(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        Ok(self.enter(Call::Inspect)?.find(id)?.status())
    }

    async fn list(&self, node_id: NodeId) -> Result<Vec<OwnedContainer>, RuntimeError> {
        let world = self.enter(Call::List)?;
        let ours = world.containers.iter().filter(|(_, container)| container.spec.node_id == node_id);
        Ok(ours.map(|(id, container)| container.owned(id)).collect())
    }

    fn events(&self, _node_id: NodeId) -> BoxStream<'static, Result<ContainerEvent, RuntimeError>> {
        let receiver = self.events.subscribe();
        let changed = self.changed.subscribe();
        stream::unfold(Some((self.clone(), receiver, changed)), |state| async move {
            let (runtime, mut receiver, mut changed) = state?;
            loop {
                changed.borrow_and_update();
                if !runtime.world().up {
                    return Some((Err(not_running()), None));
                }
                tokio::select! {
                    event = receiver.recv() => match event {
                        Ok(lease_id) => return Some((Ok(ContainerEvent { lease_id }), Some((runtime, receiver, changed)))),
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => return None,
                    },
                    _ = changed.changed() => {}
                }
            }
        })
        .boxed()
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        {
            let mut world = self.enter(Call::Stop)?;
            let container = world.find(id)?;
            if container.started_at.is_none() || container.exit.is_some() {
                return Ok(());
            }
            container.term = true;
            container.paused = false;
        }
        self.bump();
        if tokio::time::timeout(grace, self.wait(id)).await.is_err() {
            container::end(self, &id.0, 137, false);
        }
        Ok(())
    }

    async fn pause(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.set_paused(Call::Pause, id, true)
    }

    async fn unpause(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.set_paused(Call::Unpause, id, false)
    }

    fn logs(&self, id: &ContainerId, since_nanos: i128) -> BoxStream<'static, Result<LogEntry, RuntimeError>> {
        let state = (self.clone(), id.clone(), self.changed.subscribe(), 0_usize);
        stream::unfold(Some(state), move |state| async move {
            let (runtime, id, mut changed, mut next) = state?;
            if next == 0
                && let Err(error) = runtime.enter(Call::Logs).map(drop)
            {
                return Some((Err(error), None));
            }
            loop {
                changed.borrow_and_update();
                match runtime.log_entry(&id, &mut next, since_nanos) {
                    Ok(Some(entry)) => return Some((Ok(entry), Some((runtime, id, changed, next)))),
                    Ok(None) => {}
                    Err(None) => return None,
                    Err(Some(error)) => return Some((Err(error), None)),
                }
                changed.changed().await.ok()?;
            }
        })
        .boxed()
    }

    fn archive(&self, id: &ContainerId, path: &str) -> BoxStream<'static, Result<Bytes, RuntimeError>> {
        let tar = self.tar_of(id, path);
        let pieces: Vec<Result<Bytes, RuntimeError>> = match tar {
            Ok(tar) => tar.chunks(4096).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(pieces).boxed()
    }

    async fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<Exec, RuntimeError> {
        self.run_command(id, spec)
    }

    async fn exec_code(&self, exec: &ExecId) -> Result<Option<i32>, RuntimeError> {
        Ok(self.commands.code(exec))
    }

    async fn exec_resize(&self, _exec: &ExecId, _size: TerminalSize) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn exec_kill(&self, _id: &ContainerId, mark: &str) -> Result<(), RuntimeError> {
        self.commands.kill(mark);
        Ok(())
    }

    async fn put(
        &self,
        id: &ContainerId,
        path: &str,
        mut tar: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), RuntimeError> {
        let mut whole = Vec::new();
        while let Some(piece) = tar.next().await {
            whole.extend_from_slice(&piece.map_err(|error| broken(&error))?);
        }
        self.unpack_tar(id, path, &whole)
    }

    async fn disk_used(&self, id: &ContainerId) -> Result<DiskUse, RuntimeError> {
        let mut world = self.enter(Call::DiskUsed)?;
        let container = world.find(id)?;
        let bytes = container.files.values().map(|file| file.len() as u64).sum();
        Ok(DiskUse { bytes, written_max: None, status: container.status() })
    }

    async fn files_made(&self, id: &ContainerId, files_max: u64) -> Result<u64, RuntimeError> {
        let files = self.enter(Call::DiskUsed)?.find(id)?.files.len() as u64;
        Ok(files.min(files_max))
    }

    async fn free_space(&self) -> Option<FreeSpace> {
        None
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        drop(self.enter(Call::Remove)?.containers.remove(&id.0));
        self.bump();
        Ok(())
    }

    async fn ensure_network(&self, spec: &LeaseNetworkSpec) -> Result<OwnedNetwork, RuntimeError> {
        self.network(spec)
    }

    async fn network_verdict(&self, _node_id: NodeId, _reach: Reach) -> Verdict {
        self.world().verdict.clone()
    }

    async fn remove_leftovers(&self, _node_id: NodeId) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn domains_verdict(&self, _node_id: NodeId) -> Verdict {
        self.world().verdict.clone()
    }

    async fn withdraw(&self) {}

    async fn networks(&self, node_id: NodeId) -> Result<Vec<OwnedNetwork>, RuntimeError> {
        Ok(self.enter(Call::Networks)?.networks_of(node_id))
    }

    async fn remove_network(&self, id: &NetworkId) -> Result<(), RuntimeError> {
        self.drop_network(id)
    }

    async fn address(&self, id: &ContainerId) -> Result<Option<Ipv4Addr>, RuntimeError> {
        self.enter(Call::Address)?.address_of(id)
    }
}

impl FakeRuntime {
    /// Counts a start and lets the container's script go.
    fn started(&self, mut world: MutexGuard<'_, World>, id: &ContainerId) {
        let Ok(container) = world.find(id) else { return };
        let (lease_id, service) = (container.spec.lease_id, container.spec.service.clone());
        *world.starts.entry((lease_id, service)).or_default() += 1;
        drop(world);
        self.bump();
        tokio::spawn(container::follow(self.clone(), id.0.clone()));
        let _ = self.events.send(lease_id);
    }

    fn set_paused(&self, call: Call, id: &ContainerId, paused: bool) -> Result<(), RuntimeError> {
        {
            let mut world = self.enter(call)?;
            let container = world.find(id)?;
            if container.started_at.is_none() || container.exit.is_some() {
                let detail = "it does not run".to_owned();
                return Err(RuntimeError::Engine { what: "freeze or thaw a container", detail });
            }
            container.paused = paused;
        }
        self.bump();
        Ok(())
    }

    /// The next entry not before `since_nanos`; `Ok(None)` when more may come, `Err(None)` at the end.
    fn log_entry(
        &self,
        id: &ContainerId,
        next: &mut usize,
        since_nanos: i128,
    ) -> Result<Option<LogEntry>, Option<RuntimeError>> {
        let mut world = self.world();
        if !world.up {
            return Err(Some(not_running()));
        }
        let container = world.find(id).map_err(Some)?;
        while let Some(entry) = container.log.get(*next) {
            *next += 1;
            if entry.at_nanos >= since_nanos {
                return Ok(Some(entry.clone()));
            }
        }
        if container.exit.is_some() || container.started_at.is_none() { Err(None) } else { Ok(None) }
    }

    fn tar_of(&self, id: &ContainerId, path: &str) -> Result<Vec<u8>, RuntimeError> {
        let mut world = self.enter(Call::Archive)?;
        let container = world.find(id)?;
        let folder = path.rsplit('/').next().unwrap_or(path).to_owned();
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let mut tar = tar::Builder::new(Vec::new());
        if let Some(bytes) = container.files.get(path) {
            append(&mut tar, &folder, tar::EntryType::Regular, bytes)?;
            return tar.into_inner().map_err(|error| broken(&error));
        }
        let below = |file: &str| file.strip_prefix(&prefix).map(str::to_owned);
        let found = container.files.keys().any(|file| below(file).is_some());
        append(&mut tar, &format!("{folder}/"), tar::EntryType::Directory, &[])?;
        for (file, bytes) in &container.files {
            let Some(rest) = below(file) else { continue };
            append(&mut tar, &format!("{folder}/{rest}"), tar::EntryType::Regular, bytes)?;
        }
        if !found {
            return Err(RuntimeError::NoSuchPath { path: path.to_owned() });
        }
        tar.into_inner().map_err(|error| broken(&error))
    }
}

fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, kind: tar::EntryType, bytes: &[u8]) -> Result<(), RuntimeError> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    tar.append_data(&mut header, name, bytes).map_err(|error| broken(&error))
}

fn broken(error: &std::io::Error) -> RuntimeError {
    RuntimeError::Engine { what: "read a folder", detail: error.to_string() }
}
