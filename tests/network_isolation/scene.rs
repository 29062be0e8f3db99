//! A home with an agent's engine and an image in it, jobs as leases get them, and what a container greets and is greeted by.

use std::fmt::Display;
use std::net::Ipv4Addr;

use fizz::clock::Clock;
use fizz::config::Ceiling;
use fizz::runtime::docker::{DockerOptions, DockerRuntime};
use fizz::runtime::firewall::Verdict;
use fizz::runtime::network::{ContainerNetwork, LeaseNetworkSpec, OwnedNetwork};
use fizz::runtime::{ContainerId, ContainerRuntime, ContainerSpec, PinnedImage};
use fizz::wire::job::Reach;
use fizz::wire::{LeaseId, NodeId};

use super::docker_support::{TestImage, docker, said, shell};
use super::home::{Home, RESOLVER, sh};

/// A shell line that greets whoever comes, as often as they come, on [`SERVED_PORT`].
pub(crate) const SERVE: &str = "exec busybox nc -ll -p 7000 -e echo hello";
pub(crate) const SERVED_PORT: u16 = 7000;

/// What every test here begins with.
pub(crate) struct Scene {
    pub(crate) node_id: NodeId,
    pub(crate) runtime: DockerRuntime,
    pub(crate) pinned: PinnedImage,
    pub(crate) image: TestImage,
    // Its engine goes last.
    pub(crate) home: Home,
}

/// A container on a network as a lease gets it.
pub(crate) struct Job {
    pub(crate) network: OwnedNetwork,
    pub(crate) id: ContainerId,
}

impl Scene {
    pub(crate) async fn set() -> Self {
        Self::with(|_| {}).await
    }

    /// With what the owner decides changed.
    pub(crate) async fn with(change: impl FnOnce(&mut Ceiling)) -> Self {
        let home = Home::new();
        let image = TestImage::new();
        let mut ceiling = Ceiling::default();
        ceiling.network.resolvers = vec![RESOLVER];
        change(&mut ceiling);
        let runtime = DockerRuntime::open(DockerOptions { ceiling, ..DockerOptions::default() }).await.unwrap();
        let pinned = image.pin(&runtime).await;
        Self { node_id: NodeId::generate(Clock::system().now()), runtime, pinned, image, home }
    }

    /// Whether the agent would lend networks now.
    pub(crate) async fn verdict(&self, reach: Reach) -> Verdict {
        self.runtime.network_verdict(self.node_id, reach).await
    }

    /// What a lease asks the engine for.
    pub(crate) fn network_spec(&self, lease_id: LeaseId, reach: Reach) -> LeaseNetworkSpec {
        LeaseNetworkSpec { node_id: self.node_id, lease_id, generation: 1, reach, domains: Vec::new() }
    }

    /// A job that runs this line.
    pub(crate) async fn job(&self, reach: Reach, line: &str) -> Job {
        self.start(shell(self.node_id, &self.pinned, line), reach, &[]).await
    }

    /// Starts a container on its lease's network, where it has these names more.
    pub(crate) async fn start(&self, mut spec: ContainerSpec, reach: Reach, names: &[&str]) -> Job {
        let network = self.runtime.ensure_network(&self.network_spec(spec.lease_id, reach)).await.unwrap();
        let aliases = names.iter().map(|&name| name.to_owned()).collect();
        spec.network = ContainerNetwork::Lease { network: network.id.clone(), aliases };
        let id = self.runtime.create(&spec).await.unwrap();
        self.runtime.start(&id).await.unwrap();
        Job { network, id }
    }

    /// What a job with this line says until its end.
    pub(crate) async fn said(&self, reach: Reach, line: &str) -> String {
        said(&self.runtime, &self.job(reach, line).await.id).await
    }

    pub(crate) async fn address(&self, job: &Job) -> Ipv4Addr {
        ContainerRuntime::address(&self.runtime, &job.id).await.unwrap().unwrap()
    }

    /// The firewall of an owner whose own rules let everything through everywhere.
    pub(crate) fn take_dockers_rules_away() {
        for chain in ["DOCKER-USER", "DOCKER-ISOLATION-STAGE-1", "FORWARD"] {
            sh(&format!("iptables -I {chain} -j ACCEPT"));
        }
    }

    /// A container of the owner's that greets, with these options, and its address.
    pub(crate) fn owners_server(&self, options: &[&str]) -> Ipv4Addr {
        docker(&[&["run", "-d", "--name", "owners"], options, &[&self.image.name, "sh", "-c", SERVE]].concat());
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        docker(&["inspect", "-f", format, "owners"]).parse().unwrap()
    }

    /// What the same line says in a container of the owner's, on a network without the rules.
    pub(crate) fn control(&self, options: &[&str], line: &str) -> String {
        docker(&["network", "create", "control"]);
        let words = [&["run", "--rm", "--network=control"], options, &[&self.image.name, "sh", "-c", line]].concat();
        docker(&words)
    }
}

/// A shell line that tries all of these at once and says `NAME open` of those that greet.
pub(crate) fn greetings<A: Display>(targets: &[(&str, A, u16)]) -> String {
    let each = targets.iter().map(|(name, address, port)| {
        format!("( busybox nc -w 2 {address} {port} </dev/null 2>/dev/null | grep -q hello && echo {name} open ) & ")
    });
    format!("{}wait", each.collect::<String>())
}

/// The names of those that greeted.
pub(crate) fn opened(output: &str) -> Vec<&str> {
    let mut open: Vec<&str> = output.lines().filter_map(|line| line.strip_suffix(" open")).collect();
    open.sort_unstable();
    open
}
