//! What is true at the end: every job, every byte of every log, every container and every cent is counted.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read as _, Seek as _};

use fizz::wire::Amount;
use fizz::wire::job::JobState;
use fizz::wire::lease::LeaseEnd;
use fizz::wire::logs::LogStream;

use crate::load::{Job, OUTPUT_NUMBERS, SIDE, Shape, TICK};
use crate::world::{DEPOSIT, World};

/// Leases a job may have; one whose engine was killed that often is given up, which is an end of its own.
const LEASES_MAX: u32 = fizz::coordinator::placement::LEASES_MAX;

/// So many of what is wrong are shown, and so much of each.
const WRONG_SHOWN: usize = 12;
const WRONG_CHARS: usize = 400;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    accepted: usize,
    /// Of those, jobs whose container is started again, and jobs of two containers on a network.
    twice: usize,
    pairs: usize,
    done: usize,
    given_up: usize,
    lost: usize,
    handed_back: u32,
    doubled: usize,
    log_bytes: u64,
    log_bytes_lost: u64,
    log_bytes_repeated: u64,
    /// Lines of second containers.
    side_lines: usize,
    outputs: usize,
    containers: usize,
    networks: usize,
    /// Processes of jobs whose container the engine forgot when it was killed in the middle of a start. Nobody can end them through it.
    forgotten_by_engine: usize,
    /// Whatever is not as it should be, in words.
    wrong: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, twice, pairs, done, given_up, lost, handed_back, doubled, .. } = self;
        writeln!(
            f,
            "jobs: {accepted} accepted ({twice} run twice, {pairs} in two containers), {done} done, {given_up} given up after {LEASES_MAX} engines, {lost} lost"
        )?;
        writeln!(f, "leases: {handed_back} handed back and placed again, {doubled} doubled")?;
        let Self { log_bytes, log_bytes_lost, log_bytes_repeated, side_lines, outputs, containers, networks, .. } =
            self;
        writeln!(
            f,
            "logs: {log_bytes} bytes, {log_bytes_lost} lost, {log_bytes_repeated} repeated, {side_lines} lines of second services; outputs: {outputs}"
        )?;
        let (forgotten, wrong) = (self.forgotten_by_engine, self.wrong.len());
        writeln!(
            f,
            "left behind: {containers} containers, {networks} networks; forgotten by the engine: {forgotten} processes"
        )?;
        write!(f, "wrong: {wrong}")
    }
}

impl Tally {
    pub(crate) fn check(&self) {
        assert!(self.done > 0, "a game without work shows nothing");
        let shown =
            self.wrong.iter().take(WRONG_SHOWN).map(|wrong| wrong.chars().take(WRONG_CHARS).collect::<String>());
        assert!(self.wrong.is_empty(), "{self}\n{}", shown.collect::<Vec<_>>().join("\n"));
        assert_eq!((self.lost, self.doubled), (0, 0), "{self}");
        assert_eq!((self.log_bytes_lost, self.log_bytes_repeated), (0, 0), "{self}");
        assert_eq!((self.containers, self.networks), (0, 0), "{self}");
    }

    fn expect(&mut self, holds: bool, wrong: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(wrong());
        }
    }
}

/// Counts everything, once every job is over.
pub(crate) async fn count(world: &World, jobs: &[Job]) -> Tally {
    let count = |shape| jobs.iter().filter(|job| job.plan.shape == shape).count();
    let (twice, pairs) = (count(Shape::Twice), count(Shape::Pair));
    let mut tally = Tally { accepted: jobs.len(), twice, pairs, ..Tally::default() };
    if let Err(still) = world.comes_to_rest().await {
        tally.wrong.push(format!("the node does not come to rest: {still}"));
    }
    for job in jobs {
        count_job(world, job, &mut tally).await;
    }
    count_money(world, jobs, &mut tally).await;
    let engine = &world.engine;
    tally.containers = engine.lines(&["ps", "--all", "--quiet"]).len();
    let networks = engine.lines(&["network", "ls", "--format", "{{.Name}}"]);
    tally.networks = networks.iter().filter(|name| !matches!(name.as_str(), "none" | "host" | "bridge")).count();
    tally.forgotten_by_engine = job_processes();
    let spool: Vec<_> = std::fs::read_dir(world.state.spool()).unwrap().map(|file| file.unwrap().path()).collect();
    tally.expect(spool.is_empty(), || format!("the node's spool holds {spool:?}"));
    tally
}

/// Processes in these namespaces that run a job's script.
pub(crate) fn job_processes() -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
    processes.filter(|file| std::fs::read(file).is_ok_and(|line| line.starts_with(b"/bin/sh\0-c\0"))).count()
}

async fn count_job(world: &World, job: &Job, tally: &mut Tally) {
    let (id, view) = (job.job_id, &job.view);
    tally.handed_back += view.lease_count.saturating_sub(1);
    match (view.state, &view.outcome) {
        (JobState::Done, Some(LeaseEnd::Exited { code })) => {
            tally.done += 1;
            tally.expect(*code == job.plan.code, || format!("job {id}: exit code {code}, not {}", job.plan.code));
            tally.expect(view.log_complete, || format!("job {id}: done, and its log is not complete"));
            tally.expect(view.cost > Amount::ZERO, || format!("job {id}: done, and not paid; {:?}", job.plan));
        }
        (JobState::Failed, Some(end)) if end.retries_elsewhere() && view.lease_count == LEASES_MAX => {
            tally.given_up += 1;
            tally.expect(view.cost == Amount::ZERO, || format!("job {id}: paid without having run to its end"));
        }
        (JobState::Queued | JobState::Placed | JobState::Running, _) => {
            tally.lost += 1;
            tally.wrong.push(format!("job {id} is not over: {:?}, {}", view.state, view.why));
            return;
        }
        (state, outcome) => tally.wrong.push(format!("job {id}: {state:?}, {outcome:?}, {}", view.why)),
    }
    tally.expect(view.escrow == Amount::ZERO, || format!("job {id}: over, and {} still held for it", view.escrow));
    count_log(world, job, tally).await;
    if job.plan.output && view.state == JobState::Done {
        count_output(world, job, tally).await;
    }
}

async fn count_log(world: &World, job: &Job, tally: &mut Tally) {
    let mut streams: BTreeMap<&str, Vec<Vec<u8>>> =
        BTreeMap::from([("stdout", Vec::new()), ("stderr", Vec::new()), (SIDE, Vec::new())]);
    let side = format!("[{SIDE}] {TICK}");
    let mut log = world.town.renter.read_logs(job.job_id, 0);
    while let Some(frame) = log.next().await.unwrap() {
        tally.log_bytes += frame.bytes.len() as u64;
        let name = match frame.stream {
            LogStream::Stdout => "stdout",
            LogStream::Stderr if frame.bytes.starts_with(side.as_bytes()) => SIDE,
            LogStream::Stderr => "stderr",
            LogStream::Notice => {
                let words = String::from_utf8_lossy(&frame.bytes).into_owned();
                tally.expect(!words.contains("lost"), || format!("job {}: notice: {words}", job.job_id));
                continue;
            }
        };
        let runs = streams.get_mut(name).unwrap();
        // Each lease's begins with this line, in a frame of its own.
        let first = if name == SIDE { format!("{side}1\n") } else { "start\n".to_owned() };
        if frame.bytes == first.as_bytes() || runs.is_empty() {
            runs.push(Vec::new());
        }
        runs.last_mut().unwrap().extend_from_slice(&frame.bytes);
    }
    let (stdout, stderr) = job.plan.expected();
    for (name, expected) in [("stdout", stdout), ("stderr", stderr)] {
        count_stream(job, (name, expected.as_bytes()), &streams[name], tally);
    }
    count_side(job, &side, &streams[SIDE], tally);
}

/// The second container is ended in the middle of whatever it does: its lines are numbered from 1 without a gap.
fn count_side(job: &Job, side: &str, runs: &[Vec<u8>], tally: &mut Tally) {
    let (id, leases) = (job.job_id, job.view.lease_count as usize);
    tally.expect(runs.len() <= leases, || format!("job {id}: {} runs of {SIDE} in {leases} leases", runs.len()));
    tally.expect(job.plan.shape == Shape::Pair || runs.is_empty(), || format!("job {id}: it has no {SIDE}"));
    for run in runs {
        let written = String::from_utf8_lossy(run);
        tally.side_lines += written.lines().count();
        for (index, line) in written.lines().enumerate() {
            if line != format!("{side}{}", index + 1) {
                tally.wrong.push(format!("job {id}: line {} of {SIDE} is {line:?}", index + 1));
                break;
            }
        }
    }
}

/// Every run but the last of a job that is done was broken off: what it wrote is the beginning of what a whole one writes.
fn count_stream(job: &Job, (name, expected): (&str, &[u8]), runs: &[Vec<u8>], tally: &mut Tally) {
    let id = job.job_id;
    let is_done = job.view.state == JobState::Done;
    tally.expect(runs.len() <= job.view.lease_count as usize, || {
        format!("job {id}: {} runs on {name} in {} leases", runs.len(), job.view.lease_count)
    });
    tally.doubled += runs.len().saturating_sub(job.view.lease_count as usize);
    tally.expect(!is_done || !runs.is_empty(), || format!("job {id}: done, and nothing on {name}"));
    for (index, run) in runs.iter().enumerate() {
        let is_whole = is_done && index + 1 == runs.len();
        let right = if is_whole { run == expected } else { expected.starts_with(run) };
        if right {
            continue;
        }
        let same = run.iter().zip(expected).take_while(|(a, b)| a == b).count();
        let missing = if is_whole { expected.len().saturating_sub(run.len()) } else { 0 };
        let surplus = run.len().saturating_sub(expected.len());
        tally.log_bytes_lost += missing as u64;
        tally.log_bytes_repeated += surplus as u64;
        let end = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[same.min(bytes.len())..bytes.len().min(same + 40)]).into_owned()
        };
        tally.wrong.push(format!(
            "job {id}: run {} of {} on {name} has {} of {} bytes, as expected up to {same}, then {:?} instead of {:?}; {:?}, {}",
            index + 1, runs.len(), run.len(), expected.len(), end(run), end(expected), job.plan, job.view.why
        ));
    }
}

async fn count_output(world: &World, job: &Job, tally: &mut Tally) {
    let id = job.job_id;
    let file = tempfile::tempfile().unwrap();
    let mut download = tokio::fs::File::from_std(file.try_clone().unwrap());
    if let Err(error) = world.town.renter.download_output(id, &mut download).await {
        tally.wrong.push(format!("job {id}: no output: {error}"));
        return;
    }
    let mut file = file;
    file.rewind().unwrap();
    let mut numbers = String::new();
    for entry in tar::Archive::new(file).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with("numbers") {
            entry.read_to_string(&mut numbers).unwrap();
        }
    }
    let right = numbers == (1..=OUTPUT_NUMBERS).map(|i| format!("{i}\n")).collect::<String>();
    tally.expect(right, || format!("job {id}: its output has {} bytes and is not what it wrote", numbers.len()));
    tally.outputs += usize::from(right);
}

async fn count_money(world: &World, jobs: &[Job], tally: &mut Tally) {
    let ledger = world.town.ledger().await;
    tally.expect((ledger.sum, ledger.unbalanced) == (Amount::ZERO, 0), || format!("the ledger: {ledger:?}"));
    let cost = jobs.iter().fold(Amount::ZERO, |sum, job| sum.checked_add(job.view.cost).unwrap());
    let account = world.town.renter.account().await.unwrap();
    tally.expect(account.balance == DEPOSIT.checked_sub(cost).unwrap(), || {
        format!("the renter has {}, and jobs cost {cost} of {DEPOSIT}", account.balance)
    });
    let fees = ledger.lines.iter().find(|line| line.account == "fees").map_or(Amount::ZERO, |line| line.balance);
    tally.expect(account.earned.checked_add(fees).unwrap() == cost, || {
        format!("the owner earned {} and the network {fees}, and jobs cost {cost}", account.earned)
    });
    // One payment for each job that was done: none twice, none for what was handed back.
    let earnings = world.earnings().await;
    let paid = usize::try_from(earnings.leases_paid).unwrap();
    tally.doubled += paid.saturating_sub(tally.done);
    let done = tally.done;
    tally.expect(paid == done, || format!("{paid} leases are paid, {done} jobs are done"));
}
