//! The line on standard error that says where a job stands. Plain lines where nobody watches; nothing when quiet.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output;
use crate::wire::job::{JobState, JobView};
use crate::wire::lease::LeasePhase;

/// Shows a job's way to running. Clones show the same line.
#[derive(Debug, Clone)]
pub struct StateLine(Show);

#[derive(Debug, Clone)]
enum Show {
    Nothing,
    Lines,
    Bar(ProgressBar),
}

impl StateLine {
    /// A line fit for what standard error is.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Self(match (quiet, output::stderr_is_terminal()) {
            (true, _) => Show::Nothing,
            (false, false) => Show::Lines,
            (false, true) => Show::Bar(ProgressBar::new_spinner()),
        })
    }

    /// Shows where the job stands; `before` is what was shown last.
    pub fn show(&self, view: &JobView, before: Option<&str>) -> String {
        let text = describe(view);
        match &self.0 {
            Show::Nothing => {}
            Show::Lines => {
                // Progress in per cent is for eyes, not for files.
                if before.map(without_progress) != Some(without_progress(&text)) {
                    output::note(without_progress(&text));
                }
            }
            Show::Bar(bar) if is_on_its_way(view) => draw(bar, view, &text),
            Show::Bar(bar) => bar.finish_and_clear(),
        }
        text
    }

    /// Takes the line away, before the job's own words are written.
    pub fn clear(&self) {
        if let Show::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }

    /// Says a sentence of Fizz's own.
    pub fn say(&self, sentence: &str) {
        match &self.0 {
            Show::Nothing => {}
            Show::Lines => output::note(sentence),
            Show::Bar(bar) => bar.suspend(|| output::note(sentence)),
        }
    }
}

fn draw(bar: &ProgressBar, view: &JobView, text: &str) {
    let pulled = view.lease.as_ref().filter(|l| l.phase == LeasePhase::Pulling).and_then(|l| l.pull_per_mille);
    let template =
        if pulled.is_some() { "fizz: {bar:24} {percent:>3}% {wide_msg}" } else { "fizz: {spinner} {wide_msg}" };
    if bar.is_finished() {
        bar.reset();
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
    }
    bar.set_length(1000);
    bar.set_position(u64::from(pulled.unwrap_or(0)));
    bar.set_message(without_progress(text).to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
}

const fn is_on_its_way(view: &JobView) -> bool {
    match view.state {
        JobState::Queued | JobState::Placed => true,
        JobState::Running | JobState::Done | JobState::Failed | JobState::Cancelled | JobState::Unknown => false,
    }
}

/// Where a job stands, in a few words.
#[must_use]
pub fn describe(view: &JobView) -> String {
    match view.state {
        JobState::Queued => format!("queued: {}", output::printable(&view.why)),
        JobState::Placed => view.lease.as_ref().map_or_else(
            || "placed".to_owned(),
            |lease| match (lease.phase, lease.pull_per_mille) {
                (LeasePhase::Pulling, Some(done)) => format!("pulling the image ({}%)", done / 10),
                (LeasePhase::Pulling, None) => "pulling the image".to_owned(),
                (LeasePhase::Starting, _) => "starting".to_owned(),
                (
                    LeasePhase::Assigned
                    | LeasePhase::Running
                    | LeasePhase::Frozen
                    | LeasePhase::Collecting
                    | LeasePhase::Done
                    | LeasePhase::Failed
                    | LeasePhase::Evicted
                    | LeasePhase::Lost
                    | LeasePhase::Unknown,
                    _,
                ) => format!("placed at {}", lease.rate),
            },
        ),
        JobState::Running => "running".to_owned(),
        JobState::Done => "done".to_owned(),
        JobState::Failed => "failed".to_owned(),
        JobState::Cancelled => "stopped".to_owned(),
        JobState::Unknown => "in a state that this version of fizz does not know".to_owned(),
    }
}

fn without_progress(text: &str) -> &str {
    text.split_once(" (").filter(|(_, rest)| rest.ends_with("%)")).map_or(text, |(head, _)| head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::run::ending::tests::view;
    use crate::wire::job::LeaseView;
    use crate::wire::{HourlyRate, LeaseId, NodeId};
    use jiff::Timestamp;

    #[test]
    fn a_waiting_job_says_why_and_a_pull_how_far_it_is() {
        assert_eq!(describe(&view(JobState::Queued, None)), "queued: no node took it in time.");
        let mut placed = view(JobState::Placed, None);
        placed.lease = Some(LeaseView {
            lease_id: LeaseId::generate(Timestamp::UNIX_EPOCH),
            node_id: NodeId::generate(Timestamp::UNIX_EPOCH),
            rate: HourlyRate::MIN,
            phase: LeasePhase::Pulling,
            pull_per_mille: Some(425),
        });
        let text = describe(&placed);
        assert_eq!(text, "pulling the image (42%)");
        assert_eq!(without_progress(&text), "pulling the image");
    }
}
