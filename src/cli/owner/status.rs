//! `fizz status`: the agent's snapshot for people.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::cli::errors::{CliError, Exit};
use crate::cli::job::ID_SHOWN;
use crate::cli::output::{self, Align, Redraw, Style};
use crate::cli::owner::{StatusArgs, control_error};
use crate::cli::settings;
use crate::cli::values::{show_duration, show_resources};
use crate::clock::Clock;
use crate::control::{Answer, Client, ControlError, LinkState, Request, Snapshot};
use crate::job::runner::LeaseSnapshot;
use crate::wire::challenge::{Proof, ProofState};
use crate::wire::lease::LeasePhase;
use crate::wire::node::NodeState;

/// How often a watched picture is drawn again while something runs, so that times go on.
const REDRAW: Duration = Duration::from_secs(1);

/// Shows the snapshot, once or after every change.
///
/// # Errors
/// When no agent runs here.
pub async fn run(args: StatusArgs) -> Result<u8, CliError> {
    let socket = settings::state_dir(args.config.as_deref())?.control_socket();
    if args.watch {
        let mut client = Client::connect(&socket).await.map_err(control_error)?;
        client.send(Request::Watch).await.map_err(control_error)?;
        return watch(client, args.json).await;
    }
    let snapshot = snapshot_of(Client::ask(&socket, Request::Snapshot).await.map_err(control_error)?)?;
    if args.json {
        output::json(&snapshot)?;
    } else {
        output::line(picture(output::columns(), &snapshot, Clock::system().now()))?;
    }
    Ok(0)
}

async fn watch(client: Client, json: bool) -> Result<u8, CliError> {
    let mut redraw = Redraw::default();
    let mut snapshots = snapshots(client);
    let mut shown: Option<Snapshot> = None;
    let mut tick = tokio::time::interval(REDRAW);
    loop {
        tokio::select! {
            next = snapshots.recv() => {
                let Some(next) = next else {
                    output::note("the agent has stopped");
                    return Ok(0);
                };
                let next = next?;
                if json {
                    output::json_line(&next)?;
                }
                shown = Some(next);
            }
            _ = tokio::signal::ctrl_c() => return Ok(0),
            _ = tick.tick(), if moves(shown.as_ref()) && output::stdout_is_terminal() => {}
        }
        if let Some(snapshot) = shown.as_ref().filter(|_| !json) {
            redraw.draw(&picture(output::columns(), snapshot, Clock::system().now()))?;
        }
    }
}

/// The snapshots of a client that watches, until the agent goes. In a task of its own, because reading a line must not be
/// broken off half-way.
pub fn snapshots(mut client: Client) -> mpsc::Receiver<Result<Snapshot, CliError>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let next = match client.next().await {
                Ok(answer) => snapshot_of(answer),
                Err(ControlError::Closed) => return,
                Err(error) => Err(control_error(error)),
            };
            let last = next.is_err();
            if sender.send(next).await.is_err() || last {
                return;
            }
        }
    });
    receiver
}

fn moves(snapshot: Option<&Snapshot>) -> bool {
    snapshot.is_some_and(|snapshot| !snapshot.leases.is_empty())
}

fn snapshot_of(answer: Answer) -> Result<Snapshot, CliError> {
    match answer {
        Answer::Snapshot { snapshot } => Ok(*snapshot),
        Answer::Refused { why } => Err(CliError::new(Exit::Error, why)),
        Answer::Draining | Answer::Asked | Answer::Earnings { .. } => {
            Err(CliError::new(Exit::Error, "the agent answered something else; restart it: `fizz up`"))
        }
    }
}

/// The snapshot as a picture of at most `columns` columns.
#[must_use]
pub fn picture(columns: u16, snapshot: &Snapshot, now: Timestamp) -> String {
    let (style, word) = state_word(snapshot.state);
    let mut text = format!("{} {}", output::styled(style, "●"), output::styled(Style::Strong, word));
    if let Some(why) = &snapshot.why {
        text = output::wrapped(columns, &format!("{text}: {}", output::printable(why)));
    }
    for warning in &snapshot.warnings {
        let line = format!("! {}", output::printable(warning));
        text.push('\n');
        text.push_str(&output::styled_lines(Style::Warn, &output::wrapped(columns, &line)));
    }
    text.push_str("\n\n");
    text.push_str(&output::pairs(columns, &facts(snapshot, now)));
    if !snapshot.leases.is_empty() {
        text.push_str("\n\n");
        text.push_str(&leases(columns, &snapshot.leases, snapshot.as_of, now));
    }
    text
}

/// Where the agent stands and why, in a line.
#[must_use]
pub fn headline(snapshot: &Snapshot) -> String {
    let (_, word) = state_word(snapshot.state);
    match &snapshot.why {
        Some(why) => format!("{word}: {}", output::printable(why)),
        None => word.to_owned(),
    }
}

fn facts(snapshot: &Snapshot, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Name", snapshot.name.clone())];
    if let Some(node) = snapshot.node_id {
        facts.push(("Node", node.to_string()));
    }
    facts.push(("Coordinator", link(snapshot, now)));
    if let Some(score) = snapshot.score {
        let name = snapshot.gpus.iter().max_by_key(|gpu| gpu.score).map(gpu_name).unwrap_or_default();
        facts.push(("Score", format!("{score}{name}")));
    }
    if let Some(proof) = &snapshot.proof {
        facts.push(("Proof", proof_words(proof, now)));
    }
    if let Some(offer) = &snapshot.offer {
        let lends = show_resources(offer.cpu_millis, offer.memory_bytes, offer.disk_bytes, offer.gpus);
        facts.push(("Lends", lends));
        facts.push(("Price", format!("from {} for all of it", offer.price_min)));
    }
    if let Some(earned) = &snapshot.earnings {
        facts.push((
            "Earned",
            format!(
                "{} today, {} in 7 days, {} in all ({} pending)",
                earned.today, earned.last_7_days, earned.all_time, earned.pending
            ),
        ));
    }
    facts.push(("Agent", format!("fizz {}, process {}", snapshot.version, snapshot.pid)));
    facts
}

fn proof_words(proof: &Proof, now: Timestamp) -> String {
    let word = match (proof.state, proof.passed_at) {
        (ProofState::Proven, Some(at)) => format!("hardware proven {} ago", passed(at, now)),
        (ProofState::Proven, None) => "hardware proven".to_owned(),
        (ProofState::Unproven, _) => "hardware not proven yet; a challenge comes when this machine is idle".to_owned(),
        (ProofState::Doubted, _) => format!("hardware in doubt, {} missed", proof.misses),
        (ProofState::Suspended, _) => "suspended: no jobs come".to_owned(),
        (ProofState::Unknown, _) => "in a state that this version of fizz does not know".to_owned(),
    };
    match &proof.why {
        Some(why) => format!("{word}: {}", output::printable(why)),
        None => word,
    }
}

fn gpu_name(gpu: &crate::wire::bench::GpuResult) -> String {
    let label = if gpu.kind.is_hardware() { "" } else { ", software" };
    format!(" ({}{label})", gpu.name)
}

fn link(snapshot: &Snapshot, now: Timestamp) -> String {
    let url = &snapshot.coordinator.url;
    match &snapshot.coordinator.state {
        _ if url.is_empty() => "none; register with `fizz enroll --coordinator URL`".to_owned(),
        LinkState::Connecting => format!("{url}, connecting"),
        LinkState::Connected { since } => format!("{url}, connected for {}", passed(*since, now)),
        LinkState::Unreachable { since, why } => format!("{url}, unreachable for {}: {why}", passed(*since, now)),
    }
}

fn passed(since: Timestamp, now: Timestamp) -> String {
    show_duration(Duration::try_from(now.duration_since(since)).unwrap_or_default())
}

const fn state_word(state: NodeState) -> (Style, &'static str) {
    match state {
        NodeState::Enrolling => (Style::Warn, "Enrolling"),
        NodeState::Benchmarking => (Style::Warn, "Measuring"),
        NodeState::Idle => (Style::Good, "Idle, ready for work"),
        NodeState::Working => (Style::Good, "Working"),
        NodeState::Paused => (Style::Warn, "Paused"),
        NodeState::Updating => (Style::Warn, "Updating"),
        NodeState::Draining => (Style::Warn, "Draining"),
        NodeState::Stopped => (Style::Bad, "Stopped"),
        NodeState::Unknown => (Style::Bad, "In a state that this version of fizz does not know"),
    }
}

fn leases(columns: u16, leases: &[LeaseSnapshot], as_of: Timestamp, now: Timestamp) -> String {
    let heads = [
        ("job", Align::Left),
        ("image", Align::Left),
        ("state", Align::Left),
        ("ran", Align::Right),
        ("pays", Align::Right),
    ];
    let room = usize::from(columns).saturating_sub(ID_SHOWN + 10 + 11 + 11 + 8).max(16);
    let rows: Vec<_> = leases
        .iter()
        .map(|lease| {
            vec![
                lease.job_id.to_string().chars().take(ID_SHOWN).collect(),
                output::shortened(&lease.image, room),
                phase_words(lease),
                show_duration(ran(lease, as_of, now)),
                lease.rate.to_string(),
            ]
        })
        .collect();
    output::table(columns, &heads, &rows)
}

/// What it had run when it was looked at, and what has passed since if it still runs.
fn ran(lease: &LeaseSnapshot, as_of: Timestamp, now: Timestamp) -> Duration {
    let since = if lease.phase == LeasePhase::Running {
        Duration::try_from(now.duration_since(lease.started_at.unwrap_or(as_of).max(as_of))).unwrap_or_default()
    } else {
        Duration::ZERO
    };
    Duration::from_millis(lease.ran_millis) + since
}

/// A lease's phase for people.
#[must_use]
pub fn phase_words(lease: &LeaseSnapshot) -> String {
    let word = match lease.phase {
        LeasePhase::Assigned => "assigned",
        LeasePhase::Pulling => "pulling",
        LeasePhase::Starting => "starting",
        LeasePhase::Running => "running",
        LeasePhase::Frozen => "frozen",
        LeasePhase::Collecting => "collecting",
        LeasePhase::Done => "done",
        LeasePhase::Failed => "failed",
        LeasePhase::Evicted => "handed back",
        LeasePhase::Lost => "lost",
        LeasePhase::Unknown => "unknown",
    };
    match (lease.pull_per_mille, lease.detail.as_str()) {
        (Some(done), _) if lease.phase == LeasePhase::Pulling => format!("{word} {}%", done / 10),
        // "running: runs" says nothing; that the container is being stopped does.
        (_, "" | "runs") => word.to_owned(),
        (_, detail) => format!("{word}: {detail}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Link, first_snapshot};
    use crate::wire::{HourlyRate, JobId, LeaseId};

    #[test]
    fn the_picture_fits_80_columns_and_names_what_matters() {
        let now = Timestamp::from_second(1_000).unwrap();
        let mut snapshot = first_snapshot("attic", "https://coordinator.example:8443", now);
        snapshot.state = NodeState::Working;
        snapshot.why = Some("a long reason ".repeat(12));
        snapshot.warnings = vec!["the clock of this machine is eleven minutes behind ".repeat(3)];
        snapshot.coordinator = Link {
            url: "https://coordinator.example:8443".to_owned(),
            state: LinkState::Unreachable {
                since: Timestamp::from_second(880).unwrap(),
                why: "no route to host ".repeat(9),
            },
        };
        snapshot.leases = vec![LeaseSnapshot {
            lease_id: LeaseId::generate(now),
            job_id: JobId::generate(now),
            phase: LeasePhase::Running,
            detail: "runs".to_owned(),
            pull_per_mille: None,
            started_at: Some(Timestamp::from_second(990).unwrap()),
            ran_millis: 10_000,
            image: "registry.example/renderer:1".to_owned(),
            rate: HourlyRate::MAX,
            over: false,
        }];
        let text = picture(80, &snapshot, Timestamp::from_second(1_002).unwrap());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for part in ["● Working", "attic", "unreachable for 2 min 2 s", "renderer:1", "12 s", "$10000.00/h"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("runs"), "{text}");
        let shown: String = snapshot.leases[0].job_id.to_string().chars().take(ID_SHOWN).collect();
        assert!(text.contains(&shown), "{text}");
        // One row and its head: nothing is broken over lines.
        assert!(text.lines().rev().nth(1).unwrap().starts_with("JOB"), "{text}");
    }

    #[test]
    fn an_agent_without_a_coordinator_says_what_to_type() {
        let now = Timestamp::UNIX_EPOCH;
        assert!(picture(80, &first_snapshot("attic", "", now), now).contains("fizz enroll"));
    }
}
