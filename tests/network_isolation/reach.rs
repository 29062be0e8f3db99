//! What a job reaches and what it does not, each with its control; and how fast.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use fizz::clock::Clock;
use fizz::runtime::docker::DockerRuntime;
use fizz::runtime::firewall::Verdict;
use fizz::runtime::network::{ContainerNetwork, LeaseNetworkSpec, OwnedNetwork};
use fizz::runtime::{ContainerId, ContainerRuntime, ContainerSpec, PinnedImage};
use fizz::wire::NodeId;
use fizz::wire::job::Reach;
use futures_util::TryStreamExt as _;

use super::docker_support::{TestImage, docker, in_time, shell, wait_for};
use super::home::{self, ANSWER, HOST_PORT, Home, INTERNET, PORT, RESOLVER, SINK_PORT, SOURCE_PORT, alone};

/// A network as a lease gets it, and a container on it that runs this.
pub(crate) async fn job(
    runtime: &DockerRuntime,
    node_id: NodeId,
    image: &PinnedImage,
    reach: Reach,
    line: &str,
) -> (OwnedNetwork, ContainerSpec, ContainerId) {
    let mut spec = shell(node_id, image, line);
    let wanted = LeaseNetworkSpec { node_id, lease_id: spec.lease_id, generation: 1, reach, domains: Vec::new() };
    let network = runtime.ensure_network(&wanted).await.unwrap();
    spec.network = ContainerNetwork::Lease { network: network.id.clone(), aliases: Vec::new() };
    let id = runtime.create(&spec).await.unwrap();
    runtime.start(&id).await.unwrap();
    (network, spec, id)
}

pub(crate) async fn output(runtime: &DockerRuntime, id: &ContainerId) -> String {
    in_time(runtime.wait(id)).await.unwrap();
    let pieces: Vec<_> = in_time(runtime.logs(id, 0).try_collect()).await.unwrap();
    pieces.iter().map(|piece| String::from_utf8_lossy(&piece.bytes).into_owned()).collect()
}

/// A shell line that tries all of these at once and says `NAME open` of those that greet.
fn attempts(targets: &[(&str, Ipv4Addr, u16)]) -> String {
    let each = targets.iter().map(|(name, address, port)| {
        format!("( busybox nc -w 2 {address} {port} </dev/null 2>/dev/null | grep -q hello && echo {name} open ) & ")
    });
    format!("{}wait", each.collect::<String>())
}

pub(crate) fn opened(output: &str) -> Vec<&str> {
    let mut open: Vec<&str> = output.lines().filter_map(|line| line.strip_suffix(" open")).collect();
    open.sort_unstable();
    open
}

#[tokio::test]
#[ignore = "needs a Docker engine, nftables and root"]
async fn a_job_reaches_the_internet_and_nothing_of_the_home() {
    if alone("reach::a_job_reaches_the_internet_and_nothing_of_the_home") {
        return;
    }
    let home = Home::new();
    let image = TestImage::new();
    let node_id = NodeId::generate(Clock::system().now());
    let runtime = home.runtime(|_| {}).await;
    assert_eq!(runtime.network_verdict(node_id, Reach::Internet).await, Verdict::Isolated);
    let pinned = image.pin(&runtime).await;
    // The owner's own container, with a port that the home may use; and one of somebody else's job.
    docker(&["network", "create", "-o", "com.docker.network.bridge.name=fizzctl", "control"]);
    let serve = "while true; do echo hello | busybox nc -l -p 7000; done";
    docker(&["run", "-d", "--name", "owners", "-p", "8080:7000", &image.name, "sh", "-c", serve]);
    let owners = docker(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "owners"]).parse().unwrap();
    let (_, _, other) = job(&runtime, node_id, &pinned, Reach::Internet, serve).await;
    let other = ContainerRuntime::address(&runtime, &other).await.unwrap().unwrap();
    wait_for("the other job", || home::reaches(other, 7000));
    let bridge = docker(&["inspect", "-f", "{{.NetworkSettings.Gateway}}", "owners"]).parse().unwrap();
    let blocked: Vec<(&str, Ipv4Addr, u16)> = vec![
        ("router", [192, 168, 77, 1].into(), PORT),
        ("neighbour", [192, 168, 77, 50].into(), PORT),
        ("public-on-wire", [93, 184, 216, 50].into(), PORT),
        ("metadata", [169, 254, 169, 254].into(), PORT),
        ("carrier", [100, 64, 0, 9].into(), PORT),
        ("machine", [192, 168, 77, 2].into(), HOST_PORT),
        ("machine-public", [93, 184, 216, 2].into(), HOST_PORT),
        ("machine-bridge", bridge, HOST_PORT),
        ("published-port", [192, 168, 77, 2].into(), 8080),
        ("mail-25", INTERNET, 25),
        ("mail-465", INTERNET, 465),
        ("mail-587", INTERNET, 587),
        ("mail-2525", INTERNET, 2525),
        ("names-elsewhere", INTERNET, 53),
        ("names-elsewhere-tls", INTERNET, 853),
    ];
    let mut all = blocked.clone();
    all.extend([("internet", INTERNET, PORT), ("resolver", RESOLVER, 53)]);
    // Docker itself keeps its bridges apart, so these two have no control of this kind; the next test takes Docker's rules away.
    all.extend([("owners-container", owners, 7000), ("other-job", other, 7000)]);
    let line = attempts(&all);
    let (network, _, id) = job(&runtime, node_id, &pinned, Reach::Internet, &line).await;
    assert_eq!(opened(&output(&runtime, &id).await), ["internet", "resolver"]);
    let control = docker(&["run", "--rm", "--network", "control", &image.name, "sh", "-c", &line]);
    let control = opened(&control);
    for (name, _, _) in &blocked {
        assert!(control.contains(name), "without the rules {name} is reached: {control:?}");
    }
    // Its own bridge's end, which no control shares.
    let own_end = Ipv4Addr::from(u32::from(network.subnet.unwrap().address()) + 1);
    assert!(home::reaches(own_end, HOST_PORT), "this machine does listen there");
    let ask = format!(
        "busybox nc -w 2 {own_end} {HOST_PORT} </dev/null; busybox nslookup any.name.example; \
         busybox nslookup any.name.example {INTERNET}; true"
    );
    // Its first network stays: a second job on a network of its own.
    let (_, _, id) = job(&runtime, node_id, &pinned, Reach::Internet, &ask).await;
    let said = output(&runtime, &id).await;
    assert!(!said.contains("hello"), "{said}");
    assert!(said.contains(&ANSWER.to_string()), "names are found through the chosen resolver: {said}");
    assert!(said.contains("timed out") || said.contains("no servers"), "and through no other: {said}");
}

#[tokio::test]
#[ignore = "needs a Docker engine, nftables and root"]
async fn nobody_reaches_a_job_but_its_agent_even_where_docker_would_let_them() {
    if alone("reach::nobody_reaches_a_job_but_its_agent_even_where_docker_would_let_them") {
        return;
    }
    let home = Home::new();
    let image = TestImage::new();
    let node_id = NodeId::generate(Clock::system().now());
    let runtime = home.runtime(|_| {}).await;
    let pinned = image.pin(&runtime).await;
    let serve = "while true; do echo hello | busybox nc -l -p 7000; done";
    let (_, _, open) = job(&runtime, node_id, &pinned, Reach::Internet, serve).await;
    let (_, _, shut) = job(&runtime, node_id, &pinned, Reach::None, serve).await;
    docker(&["network", "create", "-o", "com.docker.network.bridge.name=fizzctl", "control"]);
    docker(&["run", "-d", "--name", "owners", "--network", "control", &image.name, "sh", "-c", serve]);
    let of_owner =
        docker(&["inspect", "-f", "{{.NetworkSettings.Networks.control.IPAddress}}", "owners"]).parse().unwrap();
    let (open, shut) = (
        ContainerRuntime::address(&runtime, &open).await.unwrap().unwrap(),
        ContainerRuntime::address(&runtime, &shut).await.unwrap().unwrap(),
    );
    for address in [open, shut, of_owner] {
        wait_for("a container", || home::reaches(address, 7000));
    }
    // An owner whose own rules let everything through everywhere.
    for chain in ["DOCKER-USER", "DOCKER-ISOLATION-STAGE-1"] {
        let set = std::process::Command::new("iptables").args(["-I", chain, "-j", "ACCEPT"]).status().unwrap();
        assert!(set.success());
    }
    let set = std::process::Command::new("iptables").args(["-I", "FORWARD", "-j", "ACCEPT"]).status().unwrap();
    assert!(set.success());
    let from_home = |address: Ipv4Addr| {
        let said = home.call_from_outside(&["busybox", "nc", "-w", "2", &address.to_string(), "7000"]);
        String::from_utf8_lossy(&said.stdout).contains("hello")
    };
    assert!(from_home(of_owner), "the control: what is not ours is reached from the home's network");
    assert!(!from_home(open), "a job is not");
    assert!(!from_home(shut), "nor one without internet");
    // Between jobs, and from a job to the owner's container.
    let line = attempts(&[("open", open, 7000), ("shut", shut, 7000), ("owners", of_owner, 7000)]);
    for reach in [Reach::Internet, Reach::None] {
        let (_, _, id) = job(&runtime, node_id, &pinned, reach, &line).await;
        assert_eq!(opened(&output(&runtime, &id).await), [""; 0]);
    }
    let control = docker(&["run", "--rm", &image.name, "sh", "-c", &line]);
    assert_eq!(opened(&control), ["owners"], "the rules hold the other way round too, and only for jobs");
}

#[tokio::test]
#[ignore = "needs a Docker engine, nftables and root"]
async fn a_network_without_internet_reaches_its_own_containers_and_nothing_else() {
    if alone("reach::a_network_without_internet_reaches_its_own_containers_and_nothing_else") {
        return;
    }
    let home = Home::new();
    let image = TestImage::new();
    let node_id = NodeId::generate(Clock::system().now());
    let runtime = home.runtime(|_| {}).await;
    let pinned = image.pin(&runtime).await;
    let serve = "while true; do echo hello | busybox nc -l -p 7000; done";
    let mut main = shell(node_id, &pinned, serve);
    let (lease_id, reach) = (main.lease_id, Reach::None);
    let wanted = LeaseNetworkSpec { node_id, lease_id, generation: 1, reach, domains: Vec::new() };
    let network = runtime.ensure_network(&wanted).await.unwrap();
    main.network = ContainerNetwork::Lease { network: network.id.clone(), aliases: vec!["web".to_owned()] };
    let id = runtime.create(&main).await.unwrap();
    runtime.start(&id).await.unwrap();
    let address = ContainerRuntime::address(&runtime, &id).await.unwrap().unwrap();
    wait_for("the service", || home::reaches(address, 7000));
    let own_end = Ipv4Addr::from(u32::from(network.subnet.unwrap().address()) + 1);
    let targets =
        [("internet", INTERNET, PORT), ("machine", own_end, HOST_PORT), ("neighbour", [192, 168, 77, 50].into(), PORT)];
    let line = format!("busybox nc -w 2 web 7000 </dev/null | grep hello; {}", attempts(&targets));
    let network = ContainerNetwork::Lease { network: network.id, aliases: Vec::new() };
    let other =
        ContainerSpec { service: Some("other".to_owned()), lease_id, network, ..shell(node_id, &pinned, &line) };
    let id = runtime.create(&other).await.unwrap();
    runtime.start(&id).await.unwrap();
    assert_eq!(output(&runtime, &id).await, "hello\n", "its sibling by name, and nothing else");
}

#[tokio::test]
#[ignore = "needs a Docker engine, nftables and root"]
#[allow(clippy::disallowed_methods, reason = "a transfer of other processes is timed")]
async fn a_cap_on_bandwidth_holds_within_a_tenth_both_ways() {
    const CAP: u64 = 2_000_000;
    const BYTES: u64 = 16_000_000;
    // The kernel lets the first second's worth pass at once, and our burst.
    const AT_ONCE: u64 = CAP + (256 << 10);
    if alone("reach::a_cap_on_bandwidth_holds_within_a_tenth_both_ways") {
        return;
    }
    let home = Home::new();
    let image = TestImage::new();
    let node_id = NodeId::generate(Clock::system().now());
    let runtime = home
        .runtime(|ceiling| {
            let network = &mut ceiling.network;
            network.download_per_second = Some(fizz::config::ByteSize(CAP));
            network.upload_per_second = Some(fizz::config::ByteSize(CAP));
        })
        .await;
    let pinned = image.pin(&runtime).await;
    let lines = BTreeMap::from([
        ("down", format!("busybox nc {INTERNET} {SOURCE_PORT} </dev/null | head -c {BYTES} | wc -c")),
        ("up", format!("head -c {BYTES} /dev/zero | busybox nc {INTERNET} {SINK_PORT}")),
    ]);
    for (way, line) in lines {
        let (_, _, id) = job(&runtime, node_id, &pinned, Reach::Internet, &line).await;
        let exit = in_time(runtime.wait(&id)).await.unwrap();
        let took = Duration::try_from(exit.ended_at.duration_since(exit.started_at)).unwrap();
        let rate = f64::from(u32::try_from(BYTES - AT_ONCE).unwrap()) / took.as_secs_f64();
        println!("{way}: {rate:.0} bytes/s under a cap of {CAP}");
        assert!((rate / 2_000_000.0 - 1.0).abs() < 0.1, "{way}: {rate} bytes/s under a cap of {CAP}");
    }
}
