//! What a lease's name server decides: which names, how often, for how long, and what it says to the owner. Pure; the time is
//! an argument.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::message::{ADDRESSES_MAX, NO_ERROR, NO_SUCH_NAME, Name, Reply, SERVER_FAILURE, TYPE_A};
use crate::clock::Steady;
use crate::wire::domain::DomainPattern;

/// Shortest and longest time for which an answer is given, in seconds.
const TTL_SECONDS: (u32, u32) = (10, 300);
/// So much longer than it was told an address stays open: programs look a name up and connect a little later.
const SLACK_SECONDS: u32 = 30;
/// For so long an address stays open after the last packet to it; the kernel counts.
pub const IN_USE_SECONDS: u32 = 3600;
/// Most addresses that a lease has open at once.
pub const OPEN_MAX: usize = 4096;
/// Names that name servers are asked for: so many per second, and so many at once after a rest.
const ASKED_PER_SECOND: u32 = 10;
const ASKED_BURST: u32 = 50;
/// Answers that are kept.
const ANSWERS_MAX: usize = 256;
/// For how many seconds it is kept that a name has no address.
const NOTHING_SECONDS: u32 = 5;
/// Names that the owner is told of.
const NOTICES_MAX: usize = 16;

/// An answer, good for so many seconds from now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Its code.
    pub code: u8,
    /// Addresses, of which none leads home.
    pub addresses: Vec<Ipv4Addr>,
    /// Seconds.
    pub ttl_seconds: u32,
}

/// What is to be said of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// It is not for this lease. `tell`: the owner has not heard of it yet.
    NotAllowed {
        /// Whether to tell.
        tell: bool,
    },
    /// There is nothing of the kind that is asked for: no IPv6, no mail, no services.
    Nothing,
    /// Known already.
    Known(Given),
    /// Name servers are to be asked.
    Ask,
    /// Too many names at once.
    TooMany,
}

/// The state of a lease's name server.
#[derive(Debug)]
pub struct Book {
    domains: Vec<DomainPattern>,
    answers: HashMap<Name, (Given, Steady)>,
    told: HashSet<String>,
    /// Thousandths of a name that may be asked for now.
    credit: u32,
    counted_at: Steady,
    /// Addresses that were given out, and until when they may be in use.
    open: HashMap<Ipv4Addr, Steady>,
}

impl Book {
    /// A book for these domains; for none when there are none.
    #[must_use]
    pub fn new(domains: Vec<DomainPattern>, now: Steady) -> Self {
        Self {
            domains,
            answers: HashMap::new(),
            told: HashSet::new(),
            credit: ASKED_BURST * 1000,
            counted_at: now,
            open: HashMap::new(),
        }
    }

    /// What is to be said of a name when this kind of record is asked for.
    pub fn rule(&mut self, name: &Name, kind: u16, now: Steady) -> Ruling {
        let text = name.text();
        let allowed = text.as_ref().is_some_and(|text| self.domains.iter().any(|domain| domain.matches(text)));
        if !allowed {
            return Ruling::NotAllowed { tell: self.is_news(&text.unwrap_or_default()) };
        }
        if kind != TYPE_A {
            return Ruling::Nothing;
        }
        if let Some((given, until)) = self.answers.get(name)
            && now < *until
        {
            let left = u32::try_from(until.since(now).as_secs()).unwrap_or(0).max(1);
            return Ruling::Known(Given { ttl_seconds: left, ..given.clone() });
        }
        if self.pay(now) { Ruling::Ask } else { Ruling::TooMany }
    }

    /// Whether the owner is to be told of something about this name: once each, and not of too many.
    pub fn is_news(&mut self, name: &str) -> bool {
        self.told.len() < NOTICES_MAX && self.told.insert(name.to_owned())
    }

    /// What is given of a name server's reply; `is_out` says of an address that it is neither this home's nor nobody's.
    #[must_use]
    pub fn judge(reply: &Reply, is_out: impl Fn(Ipv4Addr) -> bool) -> Given {
        let code = match reply.code {
            NO_ERROR | NO_SUCH_NAME => reply.code,
            _ => SERVER_FAILURE,
        };
        let mut addresses = reply.addresses.clone();
        addresses.retain(|address| code == NO_ERROR && is_out(*address));
        addresses.truncate(ADDRESSES_MAX);
        let (least, most) = TTL_SECONDS;
        let ttl_seconds = if addresses.is_empty() { NOTHING_SECONDS } else { reply.ttl_seconds.clamp(least, most) };
        Given { code, addresses, ttl_seconds }
    }

    /// For how many seconds the addresses of an answer are open at least.
    #[must_use]
    pub const fn open_seconds(given: &Given) -> u32 {
        given.ttl_seconds + SLACK_SECONDS
    }

    /// Whether there is room for these addresses.
    pub fn has_room(&mut self, given: &Given, now: Steady) -> bool {
        if self.open.len() + given.addresses.len() > OPEN_MAX {
            self.open.retain(|_, until| now < *until);
        }
        self.open.len() + given.addresses.len() <= OPEN_MAX
    }

    /// The addresses of an answer are open now, and it may be given again.
    pub fn opened(&mut self, name: Name, given: &Given, now: Steady) {
        let in_use = now.after(Duration::from_secs(IN_USE_SECONDS.into()));
        self.open.extend(given.addresses.iter().map(|address| (*address, in_use)));
        if given.code == SERVER_FAILURE {
            return;
        }
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.retain(|_, (_, until)| now < *until);
        }
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.clear();
        }
        self.answers.insert(name, (given.clone(), now.after(Duration::from_secs(given.ttl_seconds.into()))));
    }

    /// Addresses that may be in use, for a firewall that has forgotten them.
    pub fn in_use(&mut self, now: Steady) -> Vec<Ipv4Addr> {
        self.open.retain(|_, until| now < *until);
        let mut open: Vec<Ipv4Addr> = self.open.keys().copied().collect();
        open.sort_unstable();
        open
    }

    fn pay(&mut self, now: Steady) -> bool {
        let millis = u32::try_from(now.since(self.counted_at).as_millis()).unwrap_or(u32::MAX);
        let earned = millis.saturating_mul(ASKED_PER_SECOND);
        // What is too little to count is counted next time.
        if earned > 0 {
            self.credit = self.credit.saturating_add(earned).min(ASKED_BURST * 1000);
            self.counted_at = now;
        }
        let paid = self.credit.checked_sub(1000);
        self.credit = paid.unwrap_or(self.credit);
        paid.is_some()
    }
}
