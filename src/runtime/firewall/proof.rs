//! From what a probe reached to a verdict. Pure.
//!
//! A probe that reaches nothing proves nothing by itself: it may be broken. So the same program tries the same from a network
//! without our rules, and only what it reaches there counts as kept away here.

use std::net::{IpAddr, Ipv4Addr};

use super::surroundings::Surroundings;
use super::{NftError, Verdict};

/// The metadata service of clouds.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The port on which a probe itself listens.
pub const PROBE_PORT: u16 = 4242;
/// Most name servers that are tried.
const RESOLVERS_MAX: usize = 4;
/// Ports that home routers answer on.
const ROUTER_PORTS: [u16; 3] = [53, 80, 443];
/// More addresses of this machine than these are not tried one by one; the rules do not list them either.
const ADDRESSES_MAX: usize = 24;

/// Something to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// TCP, else UDP.
    pub tcp: bool,
    /// Where.
    pub address: IpAddr,
    /// Which port.
    pub port: u16,
    /// What it is, for people.
    pub what: String,
}

impl Target {
    pub(crate) fn new(tcp: bool, address: IpAddr, port: u16, what: impl Into<String>) -> Self {
        Self { tcp, address, port, what: what.into() }
    }

    /// As the probe takes it.
    #[must_use]
    pub fn argument(&self) -> String {
        let protocol = if self.tcp { 't' } else { 'u' };
        match self.address {
            IpAddr::V4(address) => format!("{protocol}4:{:08x}:{}", u32::from(address), self.port),
            IpAddr::V6(address) => format!("{protocol}6:{:032x}:{}", u128::from(address), self.port),
        }
    }
}

/// What became of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It answered.
    Open,
    /// It answered that nothing listens there.
    Refused,
    /// Nothing came back.
    Silent,
    /// The kernel knew that it would not work.
    Error(u16),
}

impl Answer {
    /// Whether something at the other end must have seen the packet.
    #[must_use]
    pub const fn is_reached(self) -> bool {
        match self {
            Self::Open | Self::Refused => true,
            Self::Silent | Self::Error(_) => false,
        }
    }
}

/// Reads a probe's output; `None` when it is not whole.
#[must_use]
pub fn read_answers(output: &str, count: usize) -> Option<Vec<Answer>> {
    let answers: Option<Vec<Answer>> = output
        .lines()
        .map(|line| match line {
            "open" => Some(Answer::Open),
            "refused" => Some(Answer::Refused),
            "silent" => Some(Answer::Silent),
            other => other.strip_prefix("error ")?.parse().ok().map(Answer::Error),
        })
        .collect();
    answers.filter(|answers| answers.len() == count)
}

/// Ports of this machine on which the agent listens, on every address, while probes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listeners {
    /// TCP over IPv4.
    pub tcp: u16,
    /// UDP over IPv4.
    pub udp: u16,
    /// TCP over IPv6, where there is any.
    pub tcp6: Option<u16>,
}

/// Every address of this machine at which the agent listens.
#[must_use]
pub fn own_targets(around: &Surroundings, listeners: Listeners) -> Vec<Target> {
    let mut targets = Vec::new();
    for &address in around.addresses.iter().take(ADDRESSES_MAX) {
        let what = format!("this machine at {address}");
        match address {
            IpAddr::V4(_) => {
                targets.push(Target::new(true, address, listeners.tcp, what.clone()));
                targets.push(Target::new(false, address, listeners.udp, what));
            }
            IpAddr::V6(_) => targets.extend(listeners.tcp6.map(|port| Target::new(true, address, port, what))),
        }
    }
    targets
}

/// Everything that a job must not reach: this machine, the bridge's own end, the home's router, the metadata service, another
/// container.
#[must_use]
pub fn forbidden_targets(
    around: &Surroundings,
    listeners: Listeners,
    bridge: Option<Ipv4Addr>,
    neighbour: Option<Ipv4Addr>,
) -> Vec<Target> {
    let mut targets = own_targets(around, listeners);
    if let Some(bridge) = bridge {
        targets.push(Target::new(true, bridge.into(), listeners.tcp, "this machine through the job's own bridge"));
        targets.push(Target::new(false, bridge.into(), listeners.udp, "this machine through the job's own bridge"));
    }
    for gateway in around.upstreams.iter().filter_map(|up| up.gateway) {
        let what = format!("the home's router at {gateway}");
        targets.extend(ROUTER_PORTS.map(|port| Target::new(true, gateway.into(), port, what.clone())));
        targets.push(Target::new(false, gateway.into(), 53, what));
    }
    targets.push(Target::new(true, METADATA.into(), 80, "the metadata service at 169.254.169.254"));
    targets.extend(neighbour.map(|it| Target::new(true, it.into(), PROBE_PORT, "a container on another network")));
    targets
}

/// What the probes showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What the probe on a network like a job's tried and found.
    pub found: Vec<(Target, Answer)>,
    /// Whether the agent heard that probe, answer or not.
    pub heard: bool,
    /// Whether the control reached this machine.
    pub control_reached_host: bool,
    /// Whether the control reached a container beside it.
    pub control_reached_neighbour: bool,
    /// Whether the rules are in place, and if not, why.
    pub rules: Result<(), NftError>,
}

/// The name servers that jobs may ask; one that is kept to some domains may not.
#[must_use]
pub fn resolver_targets(resolvers: &[Ipv4Addr]) -> Vec<Target> {
    let some = resolvers.iter().take(RESOLVERS_MAX);
    some.map(|&address| Target::new(true, address.into(), 53, format!("the name server {address}"))).collect()
}

/// The verdict on networks that are kept to some domains. `home`: on what such a network reaches of this home. `control` and
/// `kept`: what became of [`resolver_targets`] from a network without such a list and from one whose list is empty. `server`: of
/// the lease's own name server.
#[must_use]
pub fn judge_domains(home: Verdict, control: &[Answer], kept: &[Answer], server: Answer) -> Verdict {
    let reached = |answers: &[Answer]| answers.iter().any(|answer| answer.is_reached());
    if !home.is_isolated() {
        return home;
    }
    if reached(kept) {
        return Verdict::Reaches { what: vec!["the internet past its list of domains".to_owned()] };
    }
    if !reached(control) {
        let why = "no name server was reached even without a list of domains, so that one keeps from them says nothing";
        return Verdict::NotShown { why: why.to_owned() };
    }
    if server == Answer::Open {
        return Verdict::Isolated;
    }
    Verdict::NotShown { why: "jobs would not reach the name server that keeps them to their domains".to_owned() }
}

/// The verdict.
#[must_use]
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut reached: Vec<String> = evidence
        .found
        .iter()
        .filter(|(_, answer)| answer.is_reached())
        .map(|(target, _)| target.what.clone())
        .collect();
    if reached.is_empty() && evidence.heard {
        reached.push("this machine, with packets that nothing answered".to_owned());
    }
    reached.dedup();
    match (&evidence.rules, reached.is_empty()) {
        (Ok(()), false) => Verdict::Reaches { what: reached },
        // The cause is what a person can mend.
        (Err(error), false) => {
            Verdict::NotShown { why: format!("{error}; without rules a probe reached {}", reached.join(", ")) }
        }
        _ if evidence.control_reached_host => Verdict::Isolated,
        // Another firewall keeps this machine from everybody. Then that the probe works at all is what the control shows.
        (Ok(()), true) if evidence.control_reached_neighbour => Verdict::Isolated,
        (Ok(()), true) => Verdict::NotShown {
            why: "the probe reached nothing, but neither did its control, so that says nothing".to_owned(),
        },
        (Err(error), true) => Verdict::NotShown {
            why: format!("{error}; the probe reached nothing, but neither did its control, so that says nothing"),
        },
    }
}
