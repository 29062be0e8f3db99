//! Ways around: names that lead home, the other kind of address, and packets made by hand. Each with its control.

use std::net::Ipv4Addr;

use fizz::runtime::ContainerSpec;
use fizz::runtime::firewall::Verdict;
use fizz::wire::job::Reach;

use super::docker_support::{docker, said, shell};
use super::home::{HOST_PORT, INTERNET, PORT, RESOLVER, SIX_PORT, alone, rebound};
use super::scene::{Scene, greetings, opened};

/// Waits until the kernel has made sure that nobody else has the container's IPv6 address.
const SETTLED: &str =
    "until ip -6 addr show dev eth0 | grep global | grep -vq tentative; do busybox usleep 100000; done";

/// Says what was tried, and checks that nothing of it went in the sandbox and all of it without.
#[allow(clippy::print_stdout, reason = "whoever runs it reads the table")]
fn judge(names: &[&str], in_the_sandbox: &[&str], without: &[&str]) {
    for name in names {
        println!("{name:<22} {:<8} control succeeded {}", !in_the_sandbox.contains(name), without.contains(name));
    }
    assert_eq!(in_the_sandbox, [""; 0]);
    let missing: Vec<_> = names.iter().filter(|name| !without.contains(name)).collect();
    assert!(missing.is_empty(), "without the sandbox these should work: {missing:?}");
}

#[tokio::test]
#[ignore = "needs a Docker engine, nftables and root"]
async fn a_name_that_leads_home_leads_nowhere() {
    if alone("tricks::a_name_that_leads_home_leads_nowhere") {
        return;
    }
    let scene = Scene::set().await;
    let mut targets: Vec<(&str, String, u16)> = [
        ("rebound-router", [192, 168, 77, 1], PORT),
        ("rebound-neighbour", [192, 168, 77, 50], PORT),
        ("rebound-machine", [192, 168, 77, 2], HOST_PORT),
        ("rebound-public", [93, 184, 216, 2], HOST_PORT),
        ("rebound-metadata", [169, 254, 169, 254], PORT),
        ("rebound-carrier", [100, 64, 0, 9], PORT),
    ]
    .map(|(name, address, port)| (name, rebound(Ipv4Addr::from(address)), port))
    .into();
    let names: Vec<&str> = targets.iter().map(|(name, ..)| *name).collect();
    // The one that may be reached shows that such names are found at all.
    targets.push(("internet", rebound(INTERNET), PORT));
    let line = greetings(&targets);
    let said = scene.said(Reach::Internet, &line).await;
    let mut inside = opened(&said);
    assert!(inside.contains(&"internet"), "{inside:?}");
    inside.retain(|name| *name != "internet");
    let control = scene.control(&["--dns", &RESOLVER.to_string()], &line);
    judge(&names, &inside, &opened(&control));
}

#[tokio::test]
#[ignore = "needs a Docker engine, nftables and root"]
async fn the_home_is_not_found_over_ipv6_even_from_a_bridge_that_has_it() {
    if alone("tricks::the_home_is_not_found_over_ipv6_even_from_a_bridge_that_has_it") {
        return;
    }
    let scene = Scene::set().await;
    assert_eq!(scene.verdict(Reach::Internet).await, Verdict::Isolated);
    let targets: Vec<(&str, String, u16)> = [
        ("six-neighbour", "fd77::50"),
        ("six-neighbour-global", "2a01:77::50"),
        ("six-machine", "fd77::2"),
        ("six-machine-global", "2a01:77::2"),
        ("six-internet", "2a04:4e42::1"),
    ]
    .map(|(name, address)| (name, address.to_owned(), SIX_PORT))
    .into();
    let names: Vec<&str> = targets.iter().map(|(name, ..)| *name).collect();
    // And around one of them, as a scan does.
    let scan: Vec<(&str, String, u16)> = ["six-scan-49", "six-scan-50", "six-scan-51"]
        .map(|name| (name, name.replace("six-scan-", "fd77::"), SIX_PORT))
        .into();
    let line = greetings(&[targets, scan].concat());
    assert_eq!(opened(&scene.said(Reach::Internet, &line).await), [""; 0]);
    // A bridge has its address at once, without first asking whether somebody else has it.
    for scope in ["all", "default"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0").unwrap();
    }
    // Two networks that differ in their bridge's name alone: one has the name that the rules go by.
    let on = |bridge: &str, subnet: &str| {
        let name = format!("com.docker.network.bridge.name={bridge}");
        docker(&["network", "create", "--ipv6", "--subnet", subnet, "-o", &name, bridge]);
        docker(&["run", "--rm", "--network", bridge, &scene.image.name, "sh", "-c", &format!("{SETTLED}; {line}")])
    };
    let inside = on("fz-six", "fd88:1::/64");
    let without = on("fizzctl6", "fd88:2::/64");
    let names = [&names[..], &["six-scan-50"]].concat();
    judge(&names, &opened(&inside), &opened(&without));
}

#[tokio::test]
#[ignore = "needs a Docker engine, nftables and root"]
async fn packets_made_by_hand_and_addresses_of_others_are_not_for_jobs() {
    if alone("tricks::packets_made_by_hand_and_addresses_of_others_are_not_for_jobs") {
        return;
    }
    let scene = Scene::set().await;
    let tries = [
        ("arp-question", "busybox arping -c 1 -w 2 -I eth0 $gateway"),
        ("arp-spoof", "busybox arping -U -c 1 -w 2 -I eth0 -s $own $gateway"),
        ("arp-table", "busybox arp -i eth0 -s $gateway 02:00:00:00:00:66"),
        ("others-address", "ip addr add 192.168.77.50/32 dev eth0"),
        ("gateways-address", "ip addr add $gateway/32 dev eth0"),
        ("own-route", "ip route add 192.168.77.0/24 via $gateway"),
        ("hardware-address", "ip link set dev eth0 address 02:00:00:00:00:67"),
        ("promiscuous", "ip link set dev eth0 promisc on"),
        ("raw-packets", "busybox traceroute -I -n -m 1 -q 1 -w 1 $gateway"),
    ];
    let names = tries.map(|(name, _)| name);
    let each = tries.map(|(name, line)| format!("{line} >/dev/null 2>&1 && echo {name} open; "));
    let line = format!(
        "gateway=$(ip route | grep default | busybox cut -d' ' -f3); \
         own=$(ip route | grep src | busybox sed 's/.*src *//'); test -n \"$gateway\" && echo ready; {}true",
        each.concat()
    );
    let mut inside = String::new();
    for root in [false, true] {
        let spec = ContainerSpec { root, ..shell(scene.node_id, &scene.pinned, &line) };
        let said = said(&scene.runtime, &scene.start(spec, Reach::Internet, &[]).await.id).await;
        assert!(said.contains("ready"), "{said}");
        inside.push_str(&said);
    }
    let control = scene.control(&["--cap-add=NET_ADMIN", "--cap-add=NET_RAW"], &line);
    judge(&names, &opened(&inside), &opened(&control));
}
