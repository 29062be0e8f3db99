//! The table `inet fizz` as text. Pure: the same surroundings and policy give the same text.
//!
//! How it works
//! - Two chains, before the engine's own (`filter - 10`): `input` for what jobs send to this machine, `forward` for what they
//!   send through it. A packet from a bridge `fz-…` goes on only where a rule lets it; everything else is dropped.
//! - Replies are known by `ct direction reply`, not by `ct state established`: a connection that was open when the rules came
//!   does not stay open.
//! - What may leave is named by its way, not only by its destination: out of the interface and through the gateway of a
//!   default route. So public addresses that are on a wire of this home, or behind a tunnel or another router, are out of
//!   reach without being listed.
//! - Caps are limits per bridge, in sets that fill themselves: no rule is added or removed when a job comes or goes.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::NetworkPolicy;
use super::surroundings::{Surroundings, Upstream};
use crate::runtime::network::{BRIDGE_PREFIX, Subnet};

/// The table's name.
pub const TABLE: &str = "fizz";

/// The set of this machine's addresses and ports at which leases' own name servers listen.
pub(super) const DOORS: &str = "doors";

/// Destinations that are never public: this network, private, carrier-grade NAT, loopback, link-local (with it the metadata
/// service of clouds), documentation, benchmarks, 6to4 relays, multicast, reserved, broadcast. From IANA's registry of
/// special-purpose addresses.
const NEVER: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
];
/// Ports to which mail is sent.
const MAIL: &str = "{ 25, 465, 587, 2525 }";
/// Ports where names are asked for, plainly and over TLS.
const NAMES: &str = "{ 53, 853 }";
/// A cap lets a burst of this share of a second pass, so that it does not starve connections that send in bursts; the kernel
/// adds one second's worth by itself.
const BURST_SHARE: u64 = 10;
/// And no less than this, in bytes: a few of the largest packets that the kernel hands on at once.
const BURST_MIN: u64 = 256 << 10;

/// The whole input for `nft -f -`: replaces the table as one transaction, so that there is no moment without rules.
#[must_use]
pub fn script(policy: &NetworkPolicy, around: &Surroundings) -> String {
    let mut text = format!("add table inet {TABLE}\ndelete table inet {TABLE}\n");
    text.push_str(&table(policy, around));
    text
}

/// The input for `nft -f -` that removes the table, whether it is there or not.
#[must_use]
pub fn removal() -> String {
    format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// Whether an address is on the internet as these rules see it: neither this home's nor nobody's.
#[must_use]
pub fn is_out(address: Ipv4Addr, around: &Surroundings) -> bool {
    let is_never = NEVER.iter().filter_map(|net| net.parse::<Subnet>().ok()).any(|net| net.contains(address));
    let is_home = around.on_link.iter().any(|net| net.contains(address))
        || around.addresses.contains(&address.into())
        || around.upstreams.iter().any(|up| up.gateway == Some(address));
    !is_never && !is_home
}

fn table(policy: &NetworkPolicy, around: &Surroundings) -> String {
    let resolvers = addresses(&policy.resolvers);
    let mut text = format!("table inet {TABLE} {{\n");
    for (set, cap) in [("sent", policy.upload_per_second), ("received", policy.download_per_second)] {
        if cap.is_some() {
            let _ = writeln!(
                text,
                "\tset {set} {{\n\t\ttype ifname\n\t\tsize 4096\n\t\tflags dynamic,timeout\n\t\ttimeout 1h\n\t}}\n"
            );
        }
    }
    let _ = writeln!(text, "\tset {DOORS} {{\n\t\ttype ipv4_addr . inet_service\n\t\tsize 4096\n\t}}\n");
    text.push_str(&chain("input", Some("input"), &[format!("iifname \"{BRIDGE_PREFIX}*\" goto host")]));
    text.push_str(&chain(
        "forward",
        Some("forward"),
        &[
            // What the containers of one lease say to each other, where the kernel shows it to us at all.
            format!(
                "iifname \"{BRIDGE_PREFIX}*\" meta nfproto ipv4 fib daddr . iif oifname \"{BRIDGE_PREFIX}*\" accept"
            ),
            format!("oifname \"{BRIDGE_PREFIX}*\" jump arriving"),
            format!("iifname \"{BRIDGE_PREFIX}*\" goto leaving"),
        ],
    ));
    text.push_str(&chain("host", None, &host(resolvers.as_deref())));
    text.push_str(&chain("arriving", None, &arriving(policy)));
    text.push_str(&chain("leaving", None, &leaving(policy, around, resolvers.as_deref())));
    text.push_str("}\n");
    text
}

/// To this machine: answers to what it asked, and questions to a name server on it, if it is one that was chosen.
fn host(resolvers: Option<&str>) -> Vec<String> {
    let mut rules = vec!["meta nfproto != ipv4 drop".to_owned(), "ct direction reply accept".to_owned()];
    rules.extend(resolvers.into_iter().flat_map(asks));
    // Name servers of ours, see `gate`.
    rules.extend(["udp", "tcp"].map(|protocol| format!("ip daddr . {protocol} dport @{DOORS} accept")));
    rules.push("drop".to_owned());
    rules
}

/// To a job: answers to what it asked.
fn arriving(policy: &NetworkPolicy) -> Vec<String> {
    let mut rules = vec![
        "meta nfproto != ipv4 drop".to_owned(),
        "ct direction original drop".to_owned(),
        "ct state invalid,untracked,new drop".to_owned(),
    ];
    rules.extend(policy.download_per_second.map(|cap| limit("received", "oifname", cap)));
    rules
}

/// From a job to the world.
fn leaving(policy: &NetworkPolicy, around: &Surroundings, resolvers: Option<&str>) -> Vec<String> {
    let mut rules = vec![
        "meta nfproto != ipv4 drop".to_owned(),
        format!("oifname \"{BRIDGE_PREFIX}*\" drop"),
        "ct state invalid,untracked drop".to_owned(),
        // A port of this machine that leads into another container.
        "ct status dnat drop".to_owned(),
        "fib daddr type { local, broadcast, anycast, multicast, unreachable, prohibit, blackhole } drop".to_owned(),
    ];
    rules.extend(policy.upload_per_second.map(|cap| limit("sent", "iifname", cap)));
    rules.extend(resolvers.into_iter().flat_map(asks));
    rules.push(format!("ip daddr {{ {} }} drop", NEVER.join(", ")));
    let mut home: Vec<String> = around.on_link.iter().map(ToString::to_string).collect();
    home.extend(around.upstreams.iter().filter_map(|up| Some(up.gateway?.to_string())));
    if !home.is_empty() {
        rules.extend(home.iter().map(|net| format!("ip daddr {net} drop")));
    }
    for protocol in ["tcp", "udp"] {
        rules.push(format!("{protocol} dport {NAMES} drop"));
    }
    rules.push(format!("tcp dport {MAIL} drop"));
    rules.extend(around.upstreams.iter().map(way));
    rules.push("drop".to_owned());
    rules
}

fn way(up: &Upstream) -> String {
    let interface = &up.interface;
    up.gateway.map_or_else(
        || format!("oifname \"{interface}\" accept"),
        |gateway| format!("oifname \"{interface}\" rt ip nexthop {gateway} accept"),
    )
}

fn asks(resolvers: &str) -> [String; 2] {
    ["udp", "tcp"].map(|protocol| format!("ip daddr {{ {resolvers} }} {protocol} dport {NAMES} accept"))
}

fn limit(set: &str, key: &str, bytes_per_second: u64) -> String {
    // What nft can count with.
    let rate = bytes_per_second.clamp(1000, 1 << 40);
    let burst = (rate / BURST_SHARE).max(BURST_MIN);
    format!("update @{set} {{ {key} limit rate over {rate} bytes/second burst {burst} bytes }} drop")
}

fn addresses(list: &[Ipv4Addr]) -> Option<String> {
    let mut list = list.to_vec();
    list.sort_unstable();
    list.dedup();
    (!list.is_empty()).then(|| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

fn chain(name: &str, hook: Option<&str>, rules: &[String]) -> String {
    let mut text = format!("\tchain {name} {{\n");
    if let Some(hook) = hook {
        let _ = writeln!(text, "\t\ttype filter hook {hook} priority filter - 10; policy accept;");
    }
    for rule in rules {
        let _ = writeln!(text, "\t\t{rule}");
    }
    text.push_str("\t}\n");
    text
}
