//! Whole leases over a real engine: the runner and its journal, with a coordinator in memory.

use std::sync::Arc;

use fizz::agent::journal::Journal;
use fizz::clock::Clock;
use fizz::job::fake::{FakePort, Received};
use fizz::job::gpus::Gpus;
use fizz::job::images::{ImagePolicy, Images, Logins};
use fizz::job::runner::{LeaseHandle, RunnerDeps, spawn};
use fizz::runtime::ContainerRuntime as _;
use fizz::runtime::docker::DockerRuntime;
use fizz::wire::lease::{Assignment, Desired, LeaseEnd};
use fizz::wire::{Generation, JobId, LeaseId};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{TestImage, TestNode, in_time};

/// A node that takes leases; its containers go with it.
pub(crate) struct LeaseBench {
    pub(crate) port: FakePort,
    pub(crate) deps: RunnerDeps,
    pub(crate) engine: Arc<DockerRuntime>,
    // Its containers go before their image.
    _node: TestNode,
    pub(crate) image: TestImage,
    _folder: TempDir,
}

impl LeaseBench {
    pub(crate) async fn new() -> Self {
        Self::at(None).await
    }

    /// With the engine at this address.
    pub(crate) async fn at(address: Option<&str>) -> Self {
        Self::over(Arc::new(DockerRuntime::connect(address).await.unwrap())).await
    }

    pub(crate) async fn over(engine: Arc<DockerRuntime>) -> Self {
        let (folder, node, port) = (tempfile::tempdir().unwrap(), TestNode::new(), FakePort::default());
        let journal = Journal::open(&folder.path().join("state.sqlite")).await.unwrap();
        let deps = RunnerDeps {
            runtime: engine.clone(),
            port: Arc::new(port.clone()),
            images: Images::new(journal.clone(), Clock::system(), ImagePolicy::default(), Logins::default()),
            gpus: Gpus::default(),
            journal,
            clock: Clock::system(),
            node_id: node.node_id,
            spool_dir: folder.path().to_owned(),
        };
        Self { port, deps, engine, _node: node, image: TestImage::new(), _folder: folder }
    }

    /// A service that runs this line; `more` is put on top.
    pub(crate) fn service(&self, name: &str, line: &str, more: Value) -> Value {
        let mut service = json!({
            "name": name, "image": self.image.name, "command": ["/bin/sh", "-c", line],
            "resources": {"cpu_millis": 1000, "memory_bytes": 64 << 20, "disk_bytes": 64 << 20},
        });
        service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service
    }

    /// A lease of a job of this one line.
    pub(crate) fn lease(&self, line: &str) -> Assignment {
        Self::lease_of(vec![self.service("main", line, json!({}))])
    }

    /// A lease of a job of these services.
    pub(crate) fn lease_of(services: Vec<Value>) -> Assignment {
        let now = Clock::system().now();
        let spec = json!({
            "services": services,
            "limits": {"price_max": 1, "duration_seconds_max": 600, "stop_grace_seconds": 1},
        });
        Assignment {
            lease_id: LeaseId::generate(now),
            job_id: JobId::generate(now),
            generation: Generation(1),
            desired: Desired::Run,
            rate: 5.try_into().unwrap(),
            spec: serde_json::from_value(spec).unwrap(),
        }
    }

    pub(crate) fn spawn(&self, lease: &Assignment) -> LeaseHandle {
        spawn(self.deps.clone(), lease.clone(), Vec::new())
    }

    /// Waits until the coordinator has heard what is wished of a lease.
    pub(crate) async fn received(&self, lease: &Assignment, wished: impl Fn(&Received) -> bool) -> Received {
        in_time(self.port.until(lease.lease_id, wished)).await
    }

    /// Waits for a lease's end, after which nothing of it may be left.
    pub(crate) async fn ended(&self, lease: &Assignment, handle: LeaseHandle) -> Received {
        in_time(handle.done).await.unwrap();
        assert_eq!(self.port.refused(), Vec::<String>::new());
        let left = self.engine.list(self.deps.node_id).await.unwrap();
        assert!(left.is_empty(), "every container is removed at the end: {left:?}");
        let left = self.engine.networks(self.deps.node_id).await.unwrap();
        assert!(left.is_empty(), "and the network: {left:?}");
        self.port.received(lease.lease_id)
    }

    /// Runs a lease to its end.
    pub(crate) async fn run(&self, lease: &Assignment) -> Received {
        self.ended(lease, self.spawn(lease)).await
    }
}

/// How a lease ended.
pub(crate) fn end(received: &Received) -> LeaseEnd {
    received.end().unwrap().0
}
