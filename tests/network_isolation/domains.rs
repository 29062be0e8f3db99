//! That a job is kept to the domains that it or its node's owner names, also while nobody watches; each with its control.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use fizz::clock::Clock;
use fizz::config::Ceiling;
use fizz::runtime::docker::{DockerOptions, DockerRuntime};
use fizz::runtime::firewall::{Verdict, nft};
use fizz::runtime::network::{ContainerNetwork, LeaseNetworkSpec, NetworkId, bridge_name};
use fizz::runtime::{ContainerId, ContainerRuntime as _, PinnedImage, RuntimeError};
use fizz::wire::job::Reach;
use fizz::wire::{LeaseId, NodeId};

use super::docker_support::{docker_output, shell, wait_for};
use super::home::{ALIAS, ANSWER, INTERNET, PORT, RESOLVER, SECOND, SECOND_NAME, alone, rebound};
use super::scene::{Scene, opened};

/// A container on a network that is kept to these domains.
struct Kept {
    lease_id: LeaseId,
    network: NetworkId,
    id: ContainerId,
}

fn wanted(node_id: NodeId, domains: &[&str]) -> LeaseNetworkSpec {
    LeaseNetworkSpec {
        node_id,
        lease_id: LeaseId::generate(Clock::system().now()),
        generation: 1,
        reach: Reach::Internet,
        domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
    }
}

async fn kept(runtime: &DockerRuntime, node_id: NodeId, image: &PinnedImage, domains: &[&str]) -> Kept {
    let wanted = wanted(node_id, domains);
    let network = runtime.ensure_network(&wanted).await.unwrap();
    let mut spec = shell(node_id, image, "sleep 1000");
    spec.lease_id = wanted.lease_id;
    spec.network = ContainerNetwork::Lease { network: network.id.clone(), aliases: Vec::new() };
    let id = runtime.create(&spec).await.unwrap();
    runtime.start(&id).await.unwrap();
    Kept { lease_id: wanted.lease_id, network: network.id, id }
}

impl Kept {
    fn run(&self, line: &str) -> String {
        String::from_utf8_lossy(&docker_output(&["exec", &self.id.0, "sh", "-c", line]).stdout).into_owned()
    }

    /// Whether something greets there.
    fn reaches(&self, place: &str) -> bool {
        !opened(&self.run(&greeting("it", place, PORT))).is_empty()
    }

    fn open_set(&self) -> String {
        let bridge = bridge_name(self.lease_id);
        let listed = Command::new("nft").args(["list", "set", "ip", &bridge, "open"]).output().unwrap();
        String::from_utf8_lossy(&listed.stdout).into_owned()
    }
}

fn greeting(name: &str, place: &str, port: u16) -> String {
    format!("busybox nc -w 2 {place} {port} </dev/null 2>/dev/null | grep -q hello && echo {name} open; ")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine, nftables and root"]
async fn a_job_that_names_domains_reaches_those_and_nothing_else() {
    if alone("domains::a_job_that_names_domains_reaches_those_and_nothing_else") {
        return;
    }
    let scene = Scene::set().await;
    let Scene { node_id, runtime, pinned, .. } = &scene;
    let node_id = *node_id;
    assert_eq!(runtime.domains_verdict(node_id).await, Verdict::Isolated);
    let (neighbour, public) = (rebound(Ipv4Addr::new(192, 168, 77, 50)), rebound(Ipv4Addr::new(93, 184, 216, 50)));
    let other_server =
        format!("busybox nslookup allowed.example.com {INTERNET} 2>&1 | grep -q {ANSWER} && echo other-server open; ");
    let line = [
        // Before any name was asked for, its address is as closed as every other.
        greeting("early", &ANSWER.to_string(), PORT),
        greeting("second-by-address", &SECOND.to_string(), PORT),
        greeting("other-name", SECOND_NAME, PORT),
        greeting("above", "wild.example.com", PORT),
        greeting("resolver-over-tcp", &RESOLVER.to_string(), 53),
        other_server,
        greeting("rebound-neighbour", &neighbour, PORT),
        greeting("rebound-public", &public, PORT),
        greeting("exact", "Allowed.Example.com", PORT),
        greeting("below", "x.wild.example.com", PORT),
        greeting("alias", ALIAS, PORT),
        greeting("mail", "allowed.example.com", 25),
    ]
    .concat();
    let domains = ["allowed.example.com", "*.wild.example.com", ALIAS, "*.rebound.example"];
    let job = kept(runtime, node_id, pinned, &domains).await;
    // First everything that its name server could stumble over: no questions at all, over both ways.
    job.run(
        "gateway=$(ip route | grep default | busybox cut -d' ' -f3); for n in 1 2 3 4 5 6 7 8; do \
         head -c 400 /dev/urandom | busybox nc -w 1 $gateway 53 & \
         busybox timeout 2 busybox tftp -g -r $n$n$n$n$n$n$n$n$n -l /tmp/$n $gateway 53 & done; wait",
    );
    assert_eq!(opened(&job.run(&line)), ["alias", "below", "exact"]);
    let set = job.open_set();
    assert!(set.contains(&ANSWER.to_string()) && !set.contains("192.168") && !set.contains("93.184"), "{set}");
    // The same from a job that names none: all of it is there to be reached.
    let free = kept(runtime, node_id, pinned, &[]).await;
    let control = ["above", "alias", "below", "early", "exact", "other-name", "resolver-over-tcp", "second-by-address"];
    assert_eq!(opened(&free.run(&line)), control);
    let unruled = scene.control(&["--dns", &RESOLVER.to_string()], &line);
    for name in ["other-server", "rebound-neighbour", "rebound-public", "mail"] {
        assert!(opened(&unruled).contains(&name), "{name} without rules: {unruled}");
    }
    assert!(
        job.run("busybox nslookup other.example.com 2>&1").contains("NXDOMAIN"),
        "what is not allowed is not there"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine, nftables and root"]
async fn the_owners_list_bounds_the_jobs() {
    if alone("domains::the_owners_list_bounds_the_jobs") {
        return;
    }
    let lent = vec!["allowed.example.com".parse().unwrap(), ALIAS.parse().unwrap()];
    let scene = Scene::with(|ceiling| ceiling.network.domains = lent).await;
    assert_eq!(scene.verdict(Reach::Internet).await, Verdict::Isolated);
    let Scene { node_id, runtime, pinned, .. } = &scene;
    let node_id = *node_id;
    let job = kept(runtime, node_id, pinned, &[]).await;
    assert!(!job.reaches(SECOND_NAME) && job.reaches("allowed.example.com") && job.reaches(ALIAS));
    let narrower = kept(runtime, node_id, pinned, &[ALIAS]).await;
    assert!(!narrower.reaches("allowed.example.com") && narrower.reaches(ALIAS));
    let beyond = runtime.ensure_network(&wanted(node_id, &[ALIAS, SECOND_NAME])).await;
    let Err(RuntimeError::OwnerRefuses { detail }) = beyond else { panic!("{beyond:?}") };
    assert!(detail.contains(SECOND_NAME) && detail.contains("lends allowed.example.com"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine, nftables and root"]
#[allow(clippy::disallowed_methods, clippy::print_stdout, reason = "how long rules are away is measured and told")]
async fn a_list_holds_while_the_agent_is_away_and_comes_back_within_three_seconds() {
    if alone("domains::a_list_holds_while_the_agent_is_away_and_comes_back_within_three_seconds") {
        return;
    }
    let Scene { home: _home, image: _image, node_id, runtime, pinned } = Scene::set().await;
    let job = kept(&runtime, node_id, &pinned, &["allowed.example.com", SECOND_NAME]).await;
    // Asked for, and never connected to: it closes by itself.
    assert!(job.run(&format!("busybox nslookup {SECOND_NAME}")).contains(&SECOND.to_string()));
    assert!(job.open_set().contains(&SECOND.to_string()));
    let asked_at = std::time::Instant::now();
    assert!(job.reaches("allowed.example.com"));
    // The agent is gone, as a SIGKILL leaves it: its sockets are closed, nothing is taken away.
    drop(runtime);
    wait_for("names to be away", || !job.reaches("allowed.example.com"));
    assert!(!job.reaches(&RESOLVER.to_string()), "what was closed stays closed");
    assert!(job.reaches(&ANSWER.to_string()), "what was open stays open");
    let mut ceiling = Ceiling::default();
    ceiling.network.resolvers = vec![RESOLVER];
    let runtime = DockerRuntime::open(DockerOptions { ceiling, ..DockerOptions::default() }).await.unwrap();
    assert_eq!(runtime.domains_verdict(node_id).await, Verdict::Isolated);
    assert_eq!(runtime.networks(node_id).await.unwrap().len(), 1);
    assert!(job.reaches("allowed.example.com") && !job.reaches(&RESOLVER.to_string()), "the next agent takes it up");
    while job.open_set().contains(&SECOND.to_string()) {
        assert!(asked_at.elapsed() < Duration::from_secs(60), "an address that nobody used is still open");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(asked_at.elapsed() > Duration::from_secs(35), "the next agent has closed what may be in use");
    println!("an address that was never used closed after {:?}", asked_at.elapsed());
    assert!(!job.reaches(&SECOND.to_string()));
    // Somebody takes all rules away, or those of this lease alone.
    let bridge = bridge_name(job.lease_id);
    let rules = (nft::listing().await.unwrap(), nft::gate_listing(&bridge).await.unwrap());
    assert!(rules.0.is_some() && rules.1.is_some());
    for attack in ["flush ruleset".to_owned(), format!("delete table ip {bridge}"), "delete table inet fizz".to_owned()]
    {
        assert!(Command::new("nft").args(attack.split(' ')).status().unwrap().success(), "{attack}");
        let since = std::time::Instant::now();
        loop {
            if (nft::listing().await.unwrap(), nft::gate_listing(&bridge).await.unwrap()) == rules {
                break;
            }
            assert!(since.elapsed() < Duration::from_secs(3), "{attack}: the rules are still away");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("{attack}: the rules were away for {:?}", since.elapsed());
        assert!(job.reaches(&ANSWER.to_string()), "what may be in use is open again");
        wait_for("names", || job.reaches("allowed.example.com"));
        assert!(!job.reaches(&RESOLVER.to_string()));
    }
    runtime.remove(&job.id).await.unwrap();
    runtime.remove_network(&job.network).await.unwrap();
    assert_eq!(nft::gates().await.unwrap(), [], "a lease's table goes with its network");
}
