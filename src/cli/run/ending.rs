//! How a job's end becomes an exit code and a sentence. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::cli::values::show_duration;
use crate::wire::job::{JobState, JobView};
use crate::wire::lease::{FailureKind, LeaseEnd, LimitKind, Told};

/// The job was left alone by a second Ctrl-C, or stopped before it started.
pub const EXIT_INTERRUPTED: u8 = 130;
const EXIT_TIMED_OUT: u8 = 124;
const EXIT_CANNOT_RUN: u8 = 125;
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;
const EXIT_SIGNAL: u8 = 128;
const EXIT_KILLED: u8 = 137;

/// The exit code for a job that has ended.
#[must_use]
pub fn exit_code(view: &JobView) -> u8 {
    match &view.outcome {
        // Like a shell: what does not fit into eight bits is cut to them.
        Some(LeaseEnd::Exited { code } | LeaseEnd::Stopped { code }) => code.to_le_bytes()[0],
        Some(LeaseEnd::OutOfMemory { .. }) => EXIT_KILLED,
        Some(LeaseEnd::TimedOut { .. }) => EXIT_TIMED_OUT,
        Some(LeaseEnd::Signalled { signal }) => EXIT_SIGNAL.saturating_add(*signal),
        Some(LeaseEnd::ServiceFailed { code, .. }) => code.to_le_bytes()[0],
        Some(LeaseEnd::OverLimit { .. } | LeaseEnd::Unhealthy { .. }) => EXIT_KILLED,
        Some(LeaseEnd::Failed { why, .. }) => exit_code_of_failure(*why),
        Some(LeaseEnd::Evicted { .. } | LeaseEnd::Lost | LeaseEnd::Unknown) => EXIT_CANNOT_RUN,
        None if view.state == JobState::Cancelled => EXIT_INTERRUPTED,
        None => EXIT_CANNOT_RUN,
    }
}

const fn exit_code_of_failure(why: FailureKind) -> u8 {
    match why {
        FailureKind::CommandNotFound => EXIT_NOT_FOUND,
        FailureKind::CommandNotExecutable => EXIT_NOT_EXECUTABLE,
        FailureKind::ImageNotFound
        | FailureKind::ImageWrongArchitecture
        | FailureKind::ImagePullFailed
        | FailureKind::InvalidSpec
        | FailureKind::NoSpace
        | FailureKind::EngineUnavailable
        | FailureKind::EngineError
        | FailureKind::OutputFailed
        | FailureKind::ContainerVanished
        | FailureKind::ImageRefused
        | FailureKind::ImageUnsigned
        | FailureKind::IsolationNotShown
        | FailureKind::IsolationUnavailable
        | FailureKind::EngineVulnerable
        | FailureKind::GpuUnavailable
        | FailureKind::GpuLost
        | FailureKind::InputUnavailable
        | FailureKind::InputMismatch
        | FailureKind::Unknown => EXIT_CANNOT_RUN,
    }
}

/// How it ended, how long it ran and what it cost, in a line or two.
#[must_use]
pub fn summary(view: &JobView, now: Timestamp) -> String {
    let mut text = how(view);
    if let Some(ran) = ran_for(view, now) {
        text.push_str(&format!(" after {}", show_duration(ran)));
    }
    text.push_str(&format!("; it cost {}", view.cost));
    if let Some(next) = next_step(view) {
        text.push_str(&format!("\nfizz: {next}"));
    }
    text
}

/// How the job ended, as a clause without a full stop.
#[must_use]
pub fn how(view: &JobView) -> String {
    match &view.outcome {
        Some(end) => end.in_words(Told::Renter),
        None if view.state == JobState::Cancelled => "the job was stopped before it started".to_owned(),
        None => format!("the job could not be run: {}", view.why.trim_end_matches('.')),
    }
}

/// Whether the job's own words and exit code do not tell how it ended: it was not run, or not to its end.
#[must_use]
pub fn is_trouble(view: &JobView) -> bool {
    match &view.outcome {
        Some(LeaseEnd::Exited { .. } | LeaseEnd::Stopped { .. }) => false,
        Some(
            LeaseEnd::OutOfMemory { .. }
            | LeaseEnd::TimedOut { .. }
            | LeaseEnd::Signalled { .. }
            | LeaseEnd::OverLimit { .. }
            | LeaseEnd::Unhealthy { .. }
            | LeaseEnd::ServiceFailed { .. }
            | LeaseEnd::Failed { .. }
            | LeaseEnd::Evicted { .. }
            | LeaseEnd::Lost
            | LeaseEnd::Unknown,
        ) => true,
        None => view.state != JobState::Cancelled,
    }
}

/// What was paid, once it was; else from the first start to the end, or to `now` while it runs: with the coordinator's eyes, which see
/// an agent that was away only when it is back.
#[must_use]
pub fn ran_for(view: &JobView, now: Timestamp) -> Option<Duration> {
    if let Some(paid) = view.paid_millis {
        return Some(Duration::from_millis(paid));
    }
    let ended = view.ended_at.unwrap_or(now);
    Duration::try_from(ended.duration_since(view.started_at?)).ok()
}

fn next_step(view: &JobView) -> Option<String> {
    match &view.outcome {
        Some(LeaseEnd::OutOfMemory { limit_bytes }) => {
            Some(format!("give it more, for example --memory {}m", (limit_bytes >> 20).saturating_mul(2)))
        }
        Some(LeaseEnd::TimedOut { .. }) => Some("give it longer with --timeout".to_owned()),
        Some(LeaseEnd::OverLimit { limit: LimitKind::DiskBytes, value }) => {
            Some(format!("give it more, for example --disk {}m", (value >> 20).saturating_mul(2)))
        }
        Some(LeaseEnd::Failed { why, .. }) => next_step_of_failure(*why).map(str::to_owned),
        Some(
            LeaseEnd::Exited { .. }
            | LeaseEnd::Stopped { .. }
            | LeaseEnd::Signalled { .. }
            | LeaseEnd::OverLimit { .. }
            | LeaseEnd::Unhealthy { .. }
            | LeaseEnd::ServiceFailed { .. }
            | LeaseEnd::Evicted { .. }
            | LeaseEnd::Lost
            | LeaseEnd::Unknown,
        )
        | None => None,
    }
}

const fn next_step_of_failure(why: FailureKind) -> Option<&'static str> {
    match why {
        FailureKind::ImageNotFound => Some("check the image's name and tag, and that it is public"),
        FailureKind::ImageWrongArchitecture => Some("use an image that is built for the node's processor"),
        FailureKind::ImagePullFailed => Some("try again; the node could not fetch the image from its registry"),
        FailureKind::CommandNotFound => Some("give a command that is in the image, with its full path if need be"),
        FailureKind::CommandNotExecutable => Some("make it executable in the image, or run it through its interpreter"),
        FailureKind::InvalidSpec => Some("correct what is named above"),
        FailureKind::NoSpace => Some("ask for less --disk, or use a smaller image"),
        FailureKind::OutputFailed => Some("the job must leave its files in /output"),
        FailureKind::InputUnavailable => Some("check that the input's address answers from the internet"),
        FailureKind::InputMismatch => Some("check the input's address and its SHA-256"),
        FailureKind::IsolationUnavailable => Some("ask for a weaker --isolation, or wait for a node that has it"),
        FailureKind::EngineUnavailable
        | FailureKind::EngineError
        | FailureKind::ContainerVanished
        | FailureKind::ImageRefused
        | FailureKind::ImageUnsigned
        | FailureKind::IsolationNotShown
        | FailureKind::EngineVulnerable
        | FailureKind::GpuUnavailable
        | FailureKind::GpuLost
        | FailureKind::Unknown => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire::job::{JobLimits, JobSpec, Requirements};
    use crate::wire::{Amount, HourlyRate, JobId};

    pub(crate) fn view(state: JobState, outcome: Option<LeaseEnd>) -> JobView {
        JobView {
            job_id: JobId::generate(Timestamp::UNIX_EPOCH),
            spec: JobSpec {
                name: None,
                services: Vec::new(),
                requirements: Requirements::default(),
                limits: JobLimits {
                    price_max: HourlyRate::MIN,
                    duration_seconds_max: 1,
                    start_deadline_seconds: None,
                    stop_grace_seconds: 1,
                    log_bytes_max: 1,
                    output_bytes_max: 1,
                    pids_max: 1,
                },
                output_path: None,
                ..JobSpec::default()
            },
            state,
            why: "no node took it in time.".to_owned(),
            submitted_at: Timestamp::UNIX_EPOCH,
            started_at: Some(Timestamp::from_second(1).unwrap()),
            ended_at: Some(Timestamp::from_second(43).unwrap()),
            lease: None,
            lease_count: 1,
            outcome,
            cost: Amount::from_micros(1_200),
            paid_millis: None,
            escrow: Amount::ZERO,
            log_bytes: 0,
            log_complete: true,
            output: None,
        }
    }

    fn failed(why: FailureKind) -> Option<LeaseEnd> {
        Some(LeaseEnd::Failed { why, detail: "so it is.".to_owned() })
    }

    #[test]
    fn exit_codes_are_those_of_docker_run_and_timeout() {
        for (outcome, code) in [
            (Some(LeaseEnd::Exited { code: 0 }), 0),
            (Some(LeaseEnd::Exited { code: 42 }), 42),
            (Some(LeaseEnd::Exited { code: 255 }), 255),
            (Some(LeaseEnd::Stopped { code: 143 }), 143),
            (Some(LeaseEnd::OutOfMemory { limit_bytes: 64 << 20 }), 137),
            (Some(LeaseEnd::TimedOut { limit_seconds: 9 }), 124),
            (failed(FailureKind::ImageNotFound), 125),
            (failed(FailureKind::CommandNotExecutable), 126),
            (failed(FailureKind::CommandNotFound), 127),
            (Some(LeaseEnd::Lost), 125),
            (None, 125),
        ] {
            assert_eq!(exit_code(&view(JobState::Done, outcome.clone())), code, "{outcome:?}");
        }
        assert_eq!(exit_code(&view(JobState::Cancelled, None)), 130);
    }

    #[test]
    fn the_summary_says_how_it_ended_how_long_and_what_it_cost() {
        let text = summary(&view(JobState::Done, Some(LeaseEnd::Exited { code: 3 })), Timestamp::UNIX_EPOCH);
        assert_eq!(text, "the job ended with exit code 3 after 42 s; it cost $0.0012");
    }

    #[test]
    fn out_of_memory_is_said_with_the_limit_and_what_to_type() {
        let outcome = Some(LeaseEnd::OutOfMemory { limit_bytes: 64 << 20 });
        let text = summary(&view(JobState::Done, outcome), Timestamp::UNIX_EPOCH);
        assert!(text.contains("64 MiB of memory") && text.contains("--memory 128m"), "{text}");
    }

    #[test]
    fn only_an_end_that_is_not_the_jobs_own_is_trouble() {
        for (outcome, trouble) in [
            (Some(LeaseEnd::Exited { code: 3 }), false),
            (Some(LeaseEnd::Stopped { code: 143 }), false),
            (Some(LeaseEnd::OutOfMemory { limit_bytes: 64 << 20 }), true),
            (Some(LeaseEnd::TimedOut { limit_seconds: 9 }), true),
            (failed(FailureKind::CommandNotFound), true),
            (Some(LeaseEnd::Lost), true),
            (None, true),
        ] {
            assert_eq!(is_trouble(&view(JobState::Failed, outcome.clone())), trouble, "{outcome:?}");
        }
        assert!(!is_trouble(&view(JobState::Cancelled, None)));
    }

    #[test]
    fn a_job_that_never_ran_says_why() {
        let text = summary(&view(JobState::Failed, None), Timestamp::UNIX_EPOCH);
        assert!(text.contains("no node took it in time"), "{text}");
    }
}
