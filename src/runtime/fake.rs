//! A container engine in memory that keeps the same contract as a real one; its containers follow scripts.
//!
//! Invariants
//! - It answers as Docker does: ended containers stay until removed, a log can be read again from any point, frozen
//!   containers do nothing, a container is started once.
//! - It belongs to the test that holds it: agents may come and go while its containers go on.

mod container;
mod engine;
mod exec;
mod networks;
mod provision;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, watch};

use super::firewall::Verdict;
use super::network::OwnedNetwork;
use super::vulnerable::Finding;
use super::{ContainerId, ContainerStatus, OwnedContainer, RuntimeError};
use crate::clock::Clock;
use crate::wire::LeaseId;
use container::FakeContainer;
use networks::FakeNetwork;

/// An image of the fake engine.
#[derive(Debug, Clone)]
pub struct FakeImage {
    /// Bytes of each layer; a pull reports them one after the other.
    pub layers: Vec<u64>,
    /// How long each layer takes.
    pub layer_time: Duration,
    /// What its containers do when their command has no script of its own.
    pub script: Vec<Step>,
}

impl FakeImage {
    /// An image that is there at once and whose containers do this.
    #[must_use]
    pub fn running(script: impl IntoIterator<Item = Step>) -> Self {
        Self { layers: vec![1], layer_time: Duration::ZERO, script: script.into_iter().collect() }
    }
}

/// One thing a container does. A script that runs out exits with 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Writes to standard output.
    Out(Vec<u8>),
    /// Writes to standard error.
    Err(Vec<u8>),
    /// Works for so long.
    Sleep(Duration),
    /// Works until [`FakeRuntime::release`].
    Hold,
    /// From here on SIGTERM does nothing.
    IgnoreTerm,
    /// Writes a file.
    File(String, Vec<u8>),
    /// Ends with this code.
    Exit(i32),
    /// Is ended by the kernel for lack of memory.
    OutOfMemory,
}

impl Step {
    /// Writes a line to standard output.
    #[must_use]
    pub fn line(text: &str) -> Self {
        Self::Out(format!("{text}\n").into_bytes())
    }
}

/// A call that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`super::ContainerRuntime::engine`].
    Engine,
    /// [`super::ContainerRuntime::ensure_image`].
    EnsureImage,
    /// [`super::ContainerRuntime::create`].
    Create,
    /// [`super::ContainerRuntime::start`].
    Start,
    /// [`super::ContainerRuntime::restart`].
    Restart,
    /// [`super::ContainerRuntime::wait`].
    Wait,
    /// [`super::ContainerRuntime::inspect`].
    Inspect,
    /// [`super::ContainerRuntime::list`].
    List,
    /// [`super::ContainerRuntime::stop`].
    Stop,
    /// [`super::ContainerRuntime::pause`].
    Pause,
    /// [`super::ContainerRuntime::unpause`].
    Unpause,
    /// [`super::ContainerRuntime::logs`].
    Logs,
    /// [`super::ContainerRuntime::archive`].
    Archive,
    /// [`super::ContainerRuntime::disk_used`] and [`super::ContainerRuntime::files_made`].
    DiskUsed,
    /// [`super::ContainerRuntime::remove`].
    Remove,
    /// [`super::ContainerRuntime::ensure_network`].
    EnsureNetwork,
    /// [`super::ContainerRuntime::networks`].
    Networks,
    /// [`super::ContainerRuntime::remove_network`].
    RemoveNetwork,
    /// [`super::ContainerRuntime::address`].
    Address,
}

/// The engine. Clones are the same engine.
#[derive(Clone)]
pub struct FakeRuntime {
    world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
    events: broadcast::Sender<LeaseId>,
    commands: exec::Commands,
    clock: Clock,
}

struct World {
    up: bool,
    images: HashMap<String, FakeImage>,
    scripts: HashMap<Vec<String>, Vec<Step>>,
    containers: BTreeMap<String, FakeContainer>,
    networks: BTreeMap<String, FakeNetwork>,
    verdict: Verdict,
    failures: Vec<(Call, RuntimeError)>,
    findings: Vec<Finding>,
    creates: HashMap<(LeaseId, Option<String>), u32>,
    starts: HashMap<(LeaseId, Option<String>), u32>,
    pulls: u32,
    made: u32,
}

impl FakeRuntime {
    /// An engine without images or containers; entries of logs carry this clock's time.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let world = World {
            up: true,
            images: HashMap::new(),
            scripts: HashMap::new(),
            containers: BTreeMap::new(),
            networks: BTreeMap::new(),
            verdict: Verdict::Isolated,
            failures: Vec::new(),
            findings: Vec::new(),
            creates: HashMap::new(),
            starts: HashMap::new(),
            pulls: 0,
            made: 0,
        };
        Self {
            world: Arc::new(Mutex::new(world)),
            changed: watch::channel(0).0,
            events: broadcast::channel(64).0,
            commands: exec::Commands::default(),
            clock,
        }
    }

    /// Adds an image under the name jobs use.
    pub fn add_image(&self, name: &str, image: FakeImage) {
        self.world().images.insert(name.to_owned(), image);
    }

    /// What containers with this command do, whatever their image.
    pub fn add_script(&self, command: &[&str], script: impl IntoIterator<Item = Step>) {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        self.world().scripts.insert(command, script.into_iter().collect());
    }

    /// Stops (false) or starts the engine; containers go on meanwhile.
    pub fn set_up(&self, up: bool) {
        self.world().up = up;
        self.bump();
    }

    /// Makes the next call of this kind fail; several queue up.
    pub fn fail_next(&self, call: Call, error: RuntimeError) {
        self.world().failures.push((call, error));
    }

    /// The engine is found to have these holes.
    pub fn find(&self, findings: Vec<Finding>) {
        self.world().findings = findings;
    }

    /// Lets the main container of a lease, which holds, go on.
    pub fn release(&self, lease_id: LeaseId) {
        self.release_service(lease_id, None);
    }

    /// Lets one of a lease's containers, which holds, go on.
    pub fn release_service(&self, lease_id: LeaseId, service: Option<&str>) {
        if let Some(container) = self.world().containers.values_mut().find(|c| c.is(lease_id, service)) {
            container.holds_released += 1;
        }
        self.bump();
    }

    /// Removes a lease's containers behind everybody's back.
    pub fn vanish(&self, lease_id: LeaseId) {
        self.world().containers.retain(|_, container| container.spec.lease_id != lease_id);
        self.bump();
        let _ = self.events.send(lease_id);
    }

    /// How often the main container was really made for a lease.
    #[must_use]
    pub fn creates(&self, lease_id: LeaseId) -> u32 {
        self.world().creates.get(&(lease_id, None)).copied().unwrap_or(0)
    }

    /// How often the main container of a lease was really started.
    #[must_use]
    pub fn starts(&self, lease_id: LeaseId) -> u32 {
        self.starts_of(lease_id, None)
    }

    /// How often one of a lease's containers was really started.
    #[must_use]
    pub fn starts_of(&self, lease_id: LeaseId, service: Option<&str>) -> u32 {
        self.world().starts.get(&(lease_id, service.map(str::to_owned))).copied().unwrap_or(0)
    }

    /// How many images were asked for.
    #[must_use]
    pub fn pulls(&self) -> u32 {
        self.world().pulls
    }

    /// Every container there is.
    #[must_use]
    pub fn containers(&self) -> Vec<OwnedContainer> {
        self.world().containers.iter().map(|(id, container)| container.owned(id)).collect()
    }

    /// The main container of a lease, if there is one.
    #[must_use]
    pub fn container(&self, lease_id: LeaseId) -> Option<OwnedContainer> {
        self.service(lease_id, None)
    }

    /// One of a lease's containers, if there is one.
    #[must_use]
    pub fn service(&self, lease_id: LeaseId, service: Option<&str>) -> Option<OwnedContainer> {
        let containers = self.containers().into_iter();
        containers.filter(|c| c.lease_id == lease_id).find(|c| c.service.as_deref() == service)
    }

    /// What its probes say from now on; that networks are isolated, until this is called.
    pub fn set_verdict(&self, verdict: Verdict) {
        self.world().verdict = verdict;
    }

    /// Every network there is.
    #[must_use]
    pub fn all_networks(&self) -> Vec<OwnedNetwork> {
        self.world().networks.values().map(|network| network.owned.clone()).collect()
    }

    /// Waits until the status of a lease's container is as wished; for tests, under a deadline of their own.
    pub async fn until(&self, lease_id: LeaseId, wished: impl Fn(Option<&ContainerStatus>) -> bool) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let status = self.container(lease_id).map(|container| container.status);
            if wished(status.as_ref()) || changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bump(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Whether a call goes through now.
    fn enter(&self, call: Call) -> Result<MutexGuard<'_, World>, RuntimeError> {
        let mut world = self.world();
        if !world.up {
            return Err(not_running());
        }
        match world.failures.iter().position(|(failing, _)| *failing == call) {
            Some(index) => Err(world.failures.remove(index).1),
            None => Ok(world),
        }
    }
}

impl World {
    fn find(&mut self, id: &ContainerId) -> Result<&mut FakeContainer, RuntimeError> {
        self.containers.get_mut(&id.0).ok_or(RuntimeError::NoSuchContainer)
    }
}

fn not_running() -> RuntimeError {
    RuntimeError::NotRunning { address: "fake".to_owned(), source: "the fake engine is stopped".into() }
}
