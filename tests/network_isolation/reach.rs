//! What a job reaches and what it does not, each with its control; and how fast.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use fizz::config::ByteSize;
use fizz::runtime::firewall::Verdict;
use fizz::runtime::network::OwnedNetwork;
use fizz::runtime::{ContainerRuntime as _, ContainerSpec};
use fizz::wire::job::Reach;

use super::docker_support::{docker, in_time, said, shell, wait_for};
use super::home::{self, ANSWER, HOST_PORT, INTERNET, PORT, RESOLVER, SINK_PORT, SOURCE_PORT, alone};
use super::scene::{SERVE, SERVED_PORT, Scene, greetings, opened};

/// This machine's end of a network's bridge.
fn machine_end(network: &OwnedNetwork) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.subnet.unwrap().address()) + 1)
}

#[tokio::test]
#[ignore = "needs a Docker engine, nftables and root"]
async fn a_job_reaches_the_internet_and_nothing_of_the_home() {
    if alone("reach::a_job_reaches_the_internet_and_nothing_of_the_home") {
        return;
    }
    let scene = Scene::set().await;
    assert_eq!(scene.verdict(Reach::Internet).await, Verdict::Isolated);
    // The owner's own container, with a port that the home may use; and one of somebody else's job.
    let owners = scene.owners_server(&["-p", "8080:7000"]);
    let other = scene.address(&scene.job(Reach::Internet, SERVE).await).await;
    for address in [owners, other] {
        wait_for("a container", || home::reaches(address, SERVED_PORT));
    }
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
    all.extend([("owners-container", owners, SERVED_PORT), ("other-job", other, SERVED_PORT)]);
    let line = greetings(&all);
    let job = scene.job(Reach::Internet, &line).await;
    assert_eq!(opened(&said(&scene.runtime, &job.id).await), ["internet", "resolver"]);
    let control = scene.control(&[], &line);
    let control = opened(&control);
    for (name, _, _) in &blocked {
        assert!(control.contains(name), "without the rules {name} is reached: {control:?}");
    }
    // Its own bridge's end, which no control shares.
    let own_end = machine_end(&job.network);
    assert!(home::reaches(own_end, HOST_PORT), "this machine does listen there");
    let ask = format!(
        "busybox nc -w 2 {own_end} {HOST_PORT} </dev/null; busybox nslookup any.name.example; \
         busybox nslookup any.name.example {INTERNET}; true"
    );
    // Its first network stays: a second job on a network of its own.
    let said = scene.said(Reach::Internet, &ask).await;
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
    let scene = Scene::set().await;
    let open = scene.address(&scene.job(Reach::Internet, SERVE).await).await;
    let shut = scene.address(&scene.job(Reach::None, SERVE).await).await;
    docker(&["network", "create", "owners"]);
    let of_owner = scene.owners_server(&["--network=owners"]);
    for address in [open, shut, of_owner] {
        wait_for("a container", || home::reaches(address, SERVED_PORT));
    }
    Scene::take_dockers_rules_away();
    let from_home = |address: Ipv4Addr| {
        let said = scene.home.call_from_outside(&["busybox", "nc", "-w", "2", &address.to_string(), "7000"]);
        String::from_utf8_lossy(&said.stdout).contains("hello")
    };
    assert!(from_home(of_owner), "the control: what is not ours is reached from the home's network");
    assert!(!from_home(open), "a job is not");
    assert!(!from_home(shut), "nor one without internet");
    // Between jobs, and from a job to the owner's container.
    let line =
        greetings(&[("open", open, SERVED_PORT), ("shut", shut, SERVED_PORT), ("owners", of_owner, SERVED_PORT)]);
    for reach in [Reach::Internet, Reach::None] {
        assert_eq!(opened(&scene.said(reach, &line).await), [""; 0]);
    }
    assert_eq!(
        opened(&scene.control(&[], &line)),
        ["owners"],
        "the rules hold the other way round too, and only for jobs"
    );
}

#[tokio::test]
#[ignore = "needs a Docker engine, nftables and root"]
async fn a_network_without_internet_reaches_its_own_containers_and_nothing_else() {
    if alone("reach::a_network_without_internet_reaches_its_own_containers_and_nothing_else") {
        return;
    }
    let scene = Scene::set().await;
    let main = shell(scene.node_id, &scene.pinned, SERVE);
    let lease_id = main.lease_id;
    let web = scene.start(main, Reach::None, &["web"]).await;
    let address = scene.address(&web).await;
    wait_for("the service", || home::reaches(address, SERVED_PORT));
    let (machine, neighbour) = (machine_end(&web.network), Ipv4Addr::new(192, 168, 77, 50));
    let targets = [("internet", INTERNET, PORT), ("machine", machine, HOST_PORT), ("neighbour", neighbour, PORT)];
    let line = format!("busybox nc -w 2 web {SERVED_PORT} </dev/null | grep hello; {}", greetings(&targets));
    let service = Some("other".to_owned());
    let other = ContainerSpec { service, lease_id, ..shell(scene.node_id, &scene.pinned, &line) };
    let other = scene.start(other, Reach::None, &[]).await;
    assert_eq!(other.network.id, web.network.id, "a lease has one network");
    assert_eq!(said(&scene.runtime, &other.id).await, "hello\n", "its sibling by name, and nothing else");
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
    let scene = Scene::with(|ceiling| {
        ceiling.network.download_per_second = Some(ByteSize(CAP));
        ceiling.network.upload_per_second = Some(ByteSize(CAP));
    })
    .await;
    let lines = BTreeMap::from([
        ("down", format!("busybox nc {INTERNET} {SOURCE_PORT} </dev/null | head -c {BYTES} | wc -c")),
        ("up", format!("head -c {BYTES} /dev/zero | busybox nc {INTERNET} {SINK_PORT}")),
    ]);
    for (way, line) in lines {
        let job = scene.job(Reach::Internet, &line).await;
        let exit = in_time(scene.runtime.wait(&job.id)).await.unwrap();
        let took = Duration::try_from(exit.ended_at.duration_since(exit.started_at)).unwrap();
        let rate = f64::from(u32::try_from(BYTES - AT_ONCE).unwrap()) / took.as_secs_f64();
        println!("{way}: {rate:.0} bytes/s under a cap of {CAP}");
        assert!((rate / 2_000_000.0 - 1.0).abs() < 0.1, "{way}: {rate} bytes/s under a cap of {CAP}");
    }
}
