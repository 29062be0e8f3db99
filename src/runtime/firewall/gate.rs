//! What keeps a lease to some domains, as text: a table of its own beside the one for all. Pure.
//!
//! How it works
//! - The table `ip fz-…` is called like the lease's bridge. What leaves that bridge goes to addresses of its set `open` or
//!   nowhere; the table for all has its say too. The lease's name server fills the set before it answers.
//! - An address leaves the set some time after it was given out, or an hour after the last packet to it: the kernel does that.
//! - Questions for port 53 of the bridge's own end go to the port at which the name server listens; nobody but that bridge
//!   gets there, and not more often than is reasonable.
//! - Setting the table again changes its rules and keeps its set, so that an agent that comes back breaks no connection.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::rules::{DOORS, TABLE};
use crate::runtime::names::book::{IN_USE_SECONDS, OPEN_MAX};

const SET: &str = "open";
/// Questions per second that reach the name server, however many are asked.
const QUESTIONS_PER_SECOND: u32 = 200;

/// A lease's way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// The lease's bridge.
    pub bridge: String,
    /// The bridge's own end, where containers ask for names.
    pub address: Ipv4Addr,
    /// The port at which the name server listens there, over UDP and TCP.
    pub port: u16,
}

impl Gate {
    /// The input for `nft -f -` that sets the table, or sets it right. `open`: addresses that may be in use.
    #[must_use]
    pub fn script(&self, open: &[Ipv4Addr]) -> String {
        let Self { bridge, address, port } = self;
        let mut text = format!("add table ip {bridge}\nflush table ip {bridge}\ntable ip {bridge} {{\n");
        let _ =
            writeln!(text, "\tset {SET} {{\n\t\ttype ipv4_addr\n\t\tsize {OPEN_MAX}\n\t\tflags dynamic,timeout\n\t}}");
        let asked = ["udp", "tcp"]
            .map(|way| format!("iifname \"{bridge}\" ip daddr {address} {way} dport 53 dnat to {address}:{port}"));
        chain(&mut text, "asking", "nat hook prerouting priority dstnat - 10", &asked);
        let here = |way: &str| format!("ip daddr {address} {way} dport {port}");
        let rate = format!("limit rate over {QUESTIONS_PER_SECOND}/second burst {QUESTIONS_PER_SECOND} packets drop");
        let guarded = [
            format!("iifname != \"{bridge}\" {} drop", here("udp")),
            format!("iifname != \"{bridge}\" {} drop", here("tcp")),
            format!("{} {rate}", here("udp")),
            format!("{} ct state new {rate}", here("tcp")),
        ];
        chain(&mut text, "asked", "filter hook input priority filter - 11", &guarded);
        let leaving = [
            format!("iifname != \"{bridge}\" accept"),
            format!("oifname \"{bridge}\" accept"),
            format!("ip daddr @{SET} update @{SET} {{ ip daddr timeout {IN_USE_SECONDS}s }} accept"),
            "drop".to_owned(),
        ];
        chain(&mut text, "leaving", "filter hook forward priority filter - 11", &leaving);
        text.push_str("}\n");
        if !open.is_empty() {
            text.push_str(&elements("add", bridge, open, Some(IN_USE_SECONDS)));
        }
        text
    }

    /// The input that opens addresses for so many seconds; those that are open already get that much again.
    #[must_use]
    pub fn opening(&self, addresses: &[Ipv4Addr], seconds: u32) -> String {
        let bridge = &self.bridge;
        let add = elements("add", bridge, addresses, Some(seconds));
        // Adding what is there changes nothing, and taking away what is not there fails.
        format!("{add}{}{add}", elements("delete", bridge, addresses, None))
    }

    /// The input that lets containers reach the name server through the table for all.
    #[must_use]
    pub fn door(&self) -> String {
        format!("add element inet {TABLE} {DOORS} {{ {} . {} }}\n", self.address, self.port)
    }

    /// The input that undoes [`Gate::door`].
    #[must_use]
    pub fn shutting(&self) -> String {
        format!("delete element inet {TABLE} {DOORS} {{ {} . {} }}\n", self.address, self.port)
    }

    /// The input that takes the table away, whether it is there or not.
    #[must_use]
    pub fn removal(bridge: &str) -> String {
        format!("add table ip {bridge}\ndelete table ip {bridge}\n")
    }
}

fn elements(verb: &str, bridge: &str, addresses: &[Ipv4Addr], seconds: Option<u32>) -> String {
    let timeout = seconds.map(|seconds| format!(" timeout {seconds}s")).unwrap_or_default();
    let list: Vec<String> = addresses.iter().map(|address| format!("{address}{timeout}")).collect();
    format!("{verb} element ip {bridge} {SET} {{ {} }}\n", list.join(", "))
}

fn chain(text: &mut String, name: &str, hook: &str, rules: &[String]) {
    let _ = writeln!(text, "\tchain {name} {{\n\t\ttype {hook}; policy accept;");
    for rule in rules {
        let _ = writeln!(text, "\t\t{rule}");
    }
    text.push_str("\t}\n");
}
