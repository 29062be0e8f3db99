//! How a lease ended, in words: one place for every view, so that owner, renter and coordinator read the same of the same end.

use std::time::Duration;

use super::{LeaseEnd, LimitKind};
use crate::wire::figures::{show_bytes, show_duration};

/// Who is told. What a job came to by itself reads the same for all; what a node did reads as each of them sees the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told<'a> {
    /// The owner of the node, of a lease that was there.
    Owner,
    /// Whoever follows a job from node to node, of its try on the node that is called so.
    Of(&'a str),
    /// The renter, of the last try.
    Renter,
}

impl LeaseEnd {
    /// How it ended, as a clause without a full stop.
    #[must_use]
    pub fn in_words(&self, told: Told<'_>) -> String {
        match self {
            Self::Exited { code } => format!("the job ended with exit code {code}"),
            Self::OutOfMemory { limit_bytes } => {
                format!("the job was killed: it used more than its {} of memory", show_bytes(*limit_bytes))
            }
            Self::TimedOut { limit_seconds } => {
                let limit = show_duration(Duration::from_secs(*limit_seconds));
                format!("the job was stopped: it reached its limit of {limit}")
            }
            Self::Stopped { code } => format!("the job was stopped, exit code {code}"),
            Self::Signalled { signal } => format!("the job was ended by signal {signal}"),
            Self::OverLimit { limit, value } => format!("the job was killed: it {}", passed(*limit, *value)),
            Self::Unhealthy { detail } => {
                format!("the job was killed: its health check failed: {}", detail.trim_end_matches('.'))
            }
            Self::ServiceFailed { service, code } => {
                format!("the job was ended: its service '{service}' failed with exit code {code}")
            }
            Self::Failed { detail, .. } => not_run(told, detail.trim_end_matches('.')),
            Self::Evicted { reason } => given_back(told, reason.trim_end_matches('.')),
            Self::Lost => lost(told),
            Self::Unknown => "the job ended in a way that this version of fizz does not know".to_owned(),
        }
    }
}

fn passed(limit: LimitKind, value: u64) -> String {
    match limit {
        LimitKind::DiskBytes => format!("used more than its {} of disk", show_bytes(value)),
        LimitKind::DiskFiles => format!("made more than {value} files"),
        LimitKind::Unknown => "passed a limit".to_owned(),
    }
}

fn not_run(told: Told<'_>, why: &str) -> String {
    match told {
        Told::Owner | Told::Renter => format!("the job could not be run: {why}"),
        Told::Of(node) => format!("{node} could not run it ({why})"),
    }
}

fn given_back(told: Told<'_>, why: &str) -> String {
    match told {
        Told::Owner => format!("the job was given back: {why}"),
        Told::Of(node) => format!("{node} gave it back ({why})"),
        Told::Renter => format!("the job was given back by every node that took it: {why}"),
    }
}

fn lost(told: Told<'_>) -> String {
    match told {
        Told::Owner => "the coordinator gave the job up".to_owned(),
        Told::Of(node) => format!("{node} went silent"),
        Told::Renter => "the job was lost: its node fell silent".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::lease::FailureKind;

    #[test]
    fn what_a_job_came_to_by_itself_reads_the_same_for_everybody() {
        let end = LeaseEnd::OverLimit { limit: LimitKind::DiskBytes, value: 3 << 29 };
        for told in [Told::Owner, Told::Of("node 'attic'"), Told::Renter] {
            assert_eq!(end.in_words(told), "the job was killed: it used more than its 1.5 GiB of disk");
        }
    }

    #[test]
    fn what_a_node_did_reads_as_each_sees_the_node() {
        let end = LeaseEnd::Failed { why: FailureKind::NoSpace, detail: "the disk is full.".to_owned() };
        assert_eq!(end.in_words(Told::Renter), "the job could not be run: the disk is full");
        assert_eq!(end.in_words(Told::Of("node 'attic'")), "node 'attic' could not run it (the disk is full)");
        assert_eq!(LeaseEnd::Lost.in_words(Told::Of("the node")), "the node went silent");
        let evicted = LeaseEnd::Evicted { reason: "the owner plays".to_owned() };
        assert_eq!(evicted.in_words(Told::Owner), "the job was given back: the owner plays");
    }
}
