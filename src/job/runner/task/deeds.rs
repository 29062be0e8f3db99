//! What is done for one container of the lease, each as a work of its own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::mpsc;

use super::{Done, Task};
use crate::job::disk::DiskLimits;
use crate::job::inputs;
use crate::job::logs::{self, LogOutcome, LogTask, LogWord};
use crate::job::machine::{CompanionStage, Deed, Heard, Input};
use crate::job::runner::{RunnerDeps, check, disk, engine, gpus};
use crate::runtime::ContainerId;
use crate::runtime::gpu::GpuBinding;
use crate::runtime::network::LeaseNetworkSpec;
use crate::wire::lease::FailureKind;

/// What may wait for the log's task; it takes each at once.
const LOG_WORDS_MAX: usize = 32;

impl Task {
    /// Does one thing for the container of service number `index`; 0 is the main one.
    pub(super) async fn deed(&mut self, index: usize, deed: Deed) {
        let trouble = self.trouble.0.clone();
        let runtime = self.deps.runtime.clone();
        match deed {
            Deed::Pull => self.pull(index),
            Deed::Create => self.create(index).await,
            Deed::Start => self.with_container(index, |_, id| Box::pin(engine::start(runtime, id, trouble))),
            Deed::Restart { ended_at } => {
                self.with_container(index, |_, id| Box::pin(engine::restart(runtime, id, ended_at, trouble)));
            }
            Deed::Attach => self.with_container(index, |_, id| Box::pin(engine::attach(runtime, id, trouble))),
            Deed::Watch => {
                self.discard_inputs(index);
                self.with_container(index, |deps, id| Box::pin(engine::watch(deps, id, trouble)));
                self.watch_disk(index);
                self.watch_gpus(index);
            }
            Deed::ReadLog => self.read_log(index).await,
            Deed::CheckHealth => self.check_health(index),
            Deed::Terminate => self.terminate(index, self.assignment.spec.limits.stop_grace_seconds),
            Deed::Kill => self.terminate(index, 0),
            Deed::Freeze => self.freeze_one(index, true),
            Deed::Thaw => self.freeze_one(index, false),
        }
    }

    pub(super) fn container(&self, index: usize) -> Option<ContainerId> {
        let saved = self.machine.saved();
        let id = match index.checked_sub(1) {
            None => saved.container.clone(),
            Some(slot) => saved.companions.get(slot)?.container.clone(),
        };
        id.map(ContainerId)
    }

    fn with_container(
        &mut self,
        index: usize,
        work: impl FnOnce(RunnerDeps, ContainerId) -> BoxFuture<'static, Heard>,
    ) {
        // Every stage that asks for this has its container.
        if let Some(id) = self.container(index) {
            let work = work(self.deps.clone(), id);
            self.push(async move { Done::Input(Input::Heard { index, heard: work.await }) });
        }
    }

    fn pull(&mut self, index: usize) {
        let service = self.assignment.spec.services.get(index).cloned().unwrap_or_default();
        let lease_id = self.assignment.lease_id;
        // What is shown is the main container's pull.
        let progress = if index == 0 { self.progress.0.clone() } else { mpsc::channel(1).0 };
        let pull = engine::pull(self.deps.clone(), lease_id, service, progress, self.trouble.0.clone());
        let handle = self.push(async move { Done::Input(Input::Heard { index, heard: pull.await }) });
        if index == 0 {
            self.pull = Some(handle);
        }
    }

    async fn create(&mut self, index: usize) {
        let saved = self.machine.saved();
        let image = match index.checked_sub(1) {
            None => saved.image.clone(),
            Some(slot) => saved.companions.get(slot).and_then(|companion| companion.image.clone()),
        };
        let spec = image.and_then(|image| engine::spec_of(&self.assignment, index, self.deps.node_id, &image));
        let Some(mut spec) = spec else {
            let detail = "the job names no container".to_owned();
            let failed = Heard::Failed { why: FailureKind::InvalidSpec, detail };
            Box::pin(self.feed(Input::Heard { index, heard: failed })).await;
            return;
        };
        spec.gpus = self.gpus_of(index);
        let alias = self.assignment.spec.services.get(index).map(|service| service.name.clone()).unwrap_or_default();
        let network = LeaseNetworkSpec::of(self.deps.node_id, &self.assignment);
        let made = Arc::clone(&self.network);
        let joining = network.map(|network| engine::Joining { network, alias, made });
        let create = engine::create(self.deps.runtime.clone(), spec, joining, self.trouble.0.clone());
        let (deps, lease_id) = (self.deps.clone(), self.assignment.lease_id);
        let service = self.assignment.spec.services.get(index).cloned().unwrap_or_default();
        self.push(async move {
            let heard = engine::put_inputs(deps, lease_id, service, create.await).await;
            Done::Input(Input::Heard { index, heard })
        });
    }

    /// The container has them.
    fn discard_inputs(&mut self, index: usize) {
        let (deps, lease_id) = (self.deps.clone(), self.assignment.lease_id);
        let service = self.assignment.spec.services.get(index).filter(|service| !service.inputs.is_empty()).cloned();
        if let Some(service) = service {
            self.push(async move {
                inputs::discard(&deps.spool_dir, lease_id, Some(&service)).await;
                Done::Nothing
            });
        }
    }

    fn gpus_of(&self, index: usize) -> Vec<GpuBinding> {
        gpus::of_service(&self.assignment.spec, index, &self.machine.saved().gpus)
    }

    fn watch_gpus(&mut self, index: usize) {
        let own = self.gpus_of(index);
        if let (Some(id), false) = (self.container(index), own.is_empty()) {
            let watch = gpus::watch(self.deps.runtime.clone(), id, index, own, self.deps.gpus.clone());
            self.push(async move { watch.await.map_or(Done::Nothing, Done::Input) });
        }
    }

    fn watch_disk(&mut self, index: usize) {
        let bytes = self.assignment.spec.services.get(index).map_or(0, |service| service.resources.disk_bytes);
        if let (Some(id), Some(limits)) = (self.container(index), DiskLimits::of(bytes)) {
            let watch = disk::watch(self.deps.runtime.clone(), self.deps.clock.clone(), id, limits);
            self.push(async move { watch.await.map_or(Done::Nothing, Done::Input) });
        }
    }

    fn terminate(&mut self, index: usize, grace_seconds: u32) {
        self.end_check(index);
        if let Some(id) = self.container(index) {
            let grace = Duration::from_secs(u64::from(grace_seconds));
            let stop = engine::terminate(self.deps.runtime.clone(), id, grace, self.trouble.0.clone());
            self.push(async move {
                stop.await;
                Done::Nothing
            });
        }
    }

    fn check_health(&mut self, index: usize) {
        self.end_check(index);
        let health = self.assignment.spec.services.get(index).and_then(|service| service.health.clone());
        if let (Some(id), Some(health)) = (self.container(index), health) {
            let (runtime, clock) = (self.deps.runtime.clone(), self.deps.clock.clone());
            let watch = check::watch(runtime, clock, id, health, index, self.heard.0.clone());
            let handle = self.push(async move {
                watch.await;
                Done::Nothing
            });
            self.checks.insert(index, handle);
        }
    }

    fn end_check(&mut self, index: usize) {
        if let Some(check) = self.checks.remove(&index) {
            check.abort();
        }
    }

    /// Freezes or thaws every container that runs; the main one's is answered.
    pub(super) fn freeze(&mut self, reason: Option<String>) {
        self.checks.drain().for_each(|(_, check)| check.abort());
        let Some(main) = self.container(0) else { return };
        let companions = self.machine.saved().companions.iter();
        let running = companions.filter(|companion| companion.stage == CompanionStage::Running);
        let others: Vec<_> = running.filter_map(|companion| companion.container.clone().map(ContainerId)).collect();
        let runtime = self.deps.runtime.clone();
        self.push(async move {
            let others = others.into_iter().map(|id| engine::freeze(runtime.clone(), id, reason.clone()));
            let (main, _) = tokio::join!(engine::freeze(runtime.clone(), main, reason.clone()), join_all(others));
            main.map_or(Done::Nothing, Done::Input)
        });
    }

    fn freeze_one(&mut self, index: usize, frozen: bool) {
        self.end_check(index);
        if let Some(id) = self.container(index) {
            let freeze = engine::freeze(self.deps.runtime.clone(), id, frozen.then(String::new));
            self.push(async move {
                freeze.await;
                Done::Nothing
            });
        }
    }

    async fn read_log(&mut self, index: usize) {
        let saved = self.machine.saved();
        let was_started = match index.checked_sub(1) {
            None => saved.started_at.is_some(),
            Some(slot) => saved.companions.get(slot).is_some_and(|companion| companion.started),
        };
        if let Some(container) = self.container(index).filter(|_| was_started) {
            // The log's task may be over when the coordinator rejected it.
            let _ = self.log().send(LogWord::Read { index, container }).await;
        }
    }

    pub(super) async fn close_log(&mut self, notice: Option<String>) {
        // Then there is nothing to close.
        if self.log().send(LogWord::Close(notice)).await.is_err() {
            self.push(async { Done::Input(Input::LogClosed) });
        }
    }

    /// The way to the log's task, which begins when it is first asked for.
    fn log(&mut self) -> mpsc::Sender<LogWord> {
        if let Some(log) = &self.log {
            return log.clone();
        }
        let (say, words) = mpsc::channel(LOG_WORDS_MAX);
        self.log = Some(say.clone());
        let lease_id = self.assignment.lease_id;
        let task = LogTask {
            runtime: self.deps.runtime.clone(),
            port: self.deps.port.clone(),
            journal: self.deps.journal.clone(),
            lease_id,
            services: self.assignment.spec.services.iter().map(|service| service.name.clone()).collect(),
            position: self.position.clone(),
            bytes_max: self.assignment.spec.limits.log_bytes_max,
        };
        self.push(async move {
            match logs::run(task, words).await {
                LogOutcome::Closed => Done::Input(Input::LogClosed),
                LogOutcome::LeaseEnded => Done::LeaseEnded,
                LogOutcome::Rejected(why) => {
                    tracing::warn!(lease = %lease_id, why, "the coordinator does not take the log");
                    Done::Input(Input::LogClosed)
                }
            }
        });
        say
    }
}
