//! Jobs, leases and money on a real database file: what the pure machines decide must also be what is stored.

use ed25519_dalek::SigningKey;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::coordinator::matching::Placement;
use crate::coordinator::placement::{Event, Refused};
use crate::coordinator::validate;
use crate::wire::job::{JobLimits, JobSpec, JobState, JobView, Requirements, Resources, ServiceSpec};
use crate::wire::lease::{LeaseChange, LeaseEnd, LeaseEvent, LeasePhase};
use crate::wire::logs::{LogStream, encode};
use crate::wire::{AccountId, Amount, JobId, LeaseId, NodeId, Sequence};

const FEE_PER_MILLE: u16 = 50;

/// A coordinator's database with one renter (who has a dollar), one owner and two nodes.
struct World {
    dir: tempfile::TempDir,
    store: Store,
    key: SigningKey,
    renter: AccountId,
    owner: AccountId,
    nodes: [NodeId; 2],
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap() + SignedDuration::from_secs(seconds)
}

fn usd(text: &str) -> Amount {
    text.parse().unwrap()
}

fn spec() -> JobSpec {
    JobSpec {
        name: None,
        services: vec![ServiceSpec {
            name: "main".into(),
            image: "busybox".into(),
            entrypoint: None,
            command: vec!["true".into()],
            env: [("TOKEN".to_owned(), crate::wire::Secret::new("hunter2"))].into(),
            workdir: None,
            resources: Resources { cpu_millis: 1000, memory_bytes: 1 << 30, disk_bytes: 1 << 30, gpus: 0 },
            ..ServiceSpec::default()
        }],
        requirements: Requirements::default(),
        limits: JobLimits {
            price_max: "0.36".parse().unwrap(),
            duration_seconds_max: 3600,
            start_deadline_seconds: None,
            stop_grace_seconds: 10,
            log_bytes_max: 1 << 20,
            output_bytes_max: 1 << 20,
            pids_max: 64,
        },
        output_path: None,
        ..JobSpec::default()
    }
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("c.sqlite")).await.unwrap();
        let [renter, owner] = [1, 2].map(|n| AccountId::from(uuid::Uuid::from_bytes([n; 16])));
        let nodes = [3, 4].map(|n| NodeId::from(uuid::Uuid::from_bytes([n; 16])));
        for (n, account) in [renter, owner].iter().enumerate() {
            store.add_account(*account, "somebody", &[u8::try_from(n).unwrap(); 32], at(0)).await.unwrap();
        }
        for (n, node_id) in nodes.iter().enumerate() {
            sqlx::query(
                "INSERT INTO nodes (node_id, account_id, public_key, name, agent_version, enrolled_at, architecture, \
                 offer_cpu_millis, offer_memory_bytes, offer_disk_bytes, offer_gpus, offer_price_min) \
                 VALUES (?, ?, ?, 'n', '0', 0, 'amd64', 1000, 1073741824, 1073741824, 0, 360000)",
            )
            .bind(node_id.to_string())
            .bind(owner.to_string())
            .bind(vec![u8::try_from(n).unwrap(); 32])
            .execute(store.pool())
            .await
            .unwrap();
        }
        store.deposit(renter, usd("1"), "start", at(0)).await.unwrap();
        Self { dir, store, key: SigningKey::from_bytes(&[7; 32]), renter, owner, nodes }
    }

    /// The process dies here and another one opens the same file.
    async fn killed_and_started(mut self) -> Self {
        self.store = Store::open(&self.dir.path().join("c.sqlite")).await.unwrap();
        self
    }

    fn paymaster(&self) -> Paymaster<'_> {
        Paymaster { fee_per_mille: FEE_PER_MILLE, receipt_key: &self.key }
    }

    async fn try_submit(&self, spec: &JobSpec, key: Option<&str>) -> Result<Submitted, StoreError> {
        let escrow = validate::job(spec).unwrap().escrow;
        let new = NewJob { job_id: JobId::generate(at(1)), account_id: self.renter, spec, escrow, key };
        self.store.submit_job(&new, at(1)).await
    }

    async fn submit(&self) -> JobId {
        self.try_submit(&spec(), None).await.unwrap().job_id
    }

    async fn place(&self, job_id: JobId, node: usize, now: Timestamp) -> Option<LeaseId> {
        let placement = Placement { job_id, node_id: self.nodes[node], rate: "0.36".parse().unwrap() };
        let _changes = self.store.place(&placement, self.paymaster(), now).await.unwrap()?;
        Some(self.view(job_id).await.lease.unwrap().lease_id)
    }

    async fn report(
        &self,
        node: usize,
        lease: LeaseId,
        from: u64,
        whats: &[LeaseChange],
        now: Timestamp,
    ) -> Result<Sequence, StoreError> {
        let events: Vec<_> = (from..)
            .zip(whats)
            .map(|(sequence, what)| LeaseEvent { sequence: Sequence(sequence), at: now, what: what.clone() })
            .collect();
        let reported = self.store.report_events(self.nodes[node], lease, &events, self.paymaster(), now).await;
        reported.map(|(through, _)| through)
    }

    async fn advance(&self, job_id: JobId, event: Event<'_>, now: Timestamp) -> Result<(), Refused> {
        self.store.advance_job(job_id, event, self.paymaster(), now).await.unwrap().map(|_| ())
    }

    async fn view(&self, job_id: JobId) -> JobView {
        self.store.job(self.renter, job_id).await.unwrap()
    }

    /// After every story: the books balance, and every unfinished job still has its money.
    async fn books_balance(&self) {
        let ledger = self.store.ledger_view().await.unwrap();
        assert_eq!((ledger.sum, ledger.unbalanced), (Amount::ZERO, 0), "{ledger:?}");
        assert_eq!(self.store.ledger_drift().await.unwrap(), []);
        for job in self.store.jobs(self.renter, None, 100).await.unwrap() {
            assert_eq!(job.state.is_final(), job.escrow == Amount::ZERO, "{job:?}");
        }
    }
}

mod privacy;

fn refusal<T: std::fmt::Debug>(result: Result<T, StoreError>) -> ErrorCode {
    match result {
        Err(StoreError::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}

fn exited(ran_millis: u64) -> LeaseChange {
    LeaseChange::Ended { end: LeaseEnd::Exited { code: 0 }, ran_millis }
}

fn framed(text: &str) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    encode(LogStream::Stdout, text.as_bytes(), &mut out);
    out.to_vec()
}

#[tokio::test]
async fn a_job_is_paid_once_the_owner_gets_a_receipt_and_the_rest_goes_back() {
    let world = World::new().await;
    let job_id = world.submit().await;
    assert_eq!(world.view(job_id).await.escrow, usd("0.36"));
    let lease = world.place(job_id, 0, at(10)).await.unwrap();
    world.report(0, lease, 1, &[LeaseChange::Running], at(11)).await.unwrap();
    assert_eq!(world.view(job_id).await.state, JobState::Running);
    for _ in 0..3 {
        assert_eq!(world.report(0, lease, 2, &[exited(100_000)], at(200)).await.unwrap(), Sequence(2));
    }
    let view = world.view(job_id).await;
    assert_eq!((view.state, view.cost, view.escrow), (JobState::Done, usd("0.01"), Amount::ZERO));
    assert_eq!(view.outcome, Some(LeaseEnd::Exited { code: 0 }));
    assert_eq!(world.store.balances(world.renter).await.unwrap().spendable, usd("0.99"));
    assert_eq!(world.store.balances(world.owner).await.unwrap().earned, usd("0.0095"));
    let receipts = world.store.receipts(world.nodes[0], Sequence(0)).await.unwrap();
    assert_eq!((receipts.len(), receipts[0].net, receipts[0].billed_millis), (1, usd("0.0095"), 100_000));
    let earned = world.store.earnings(world.nodes[0], FEE_PER_MILLE, at(300)).await.unwrap();
    assert_eq!((earned.today, earned.last_7_days, earned.all_time), (usd("0.0095"), usd("0.0095"), usd("0.0095")));
    assert_eq!((earned.leases_paid, earned.days.len()), (1, 1));
    world.books_balance().await;
}

#[tokio::test]
async fn a_final_jobs_secrets_are_forgotten() {
    let world = World::new().await;
    let job_id = world.submit().await;
    let stored = async || -> String {
        let row = sqlx::query_scalar("SELECT spec FROM jobs WHERE job_id = ?").bind(job_id.to_string());
        row.fetch_one(world.store.pool()).await.unwrap()
    };
    assert!(stored().await.contains("hunter2"));
    world.advance(job_id, Event::StopRequested, at(2)).await.unwrap();
    assert!(!stored().await.contains("hunter2") && stored().await.contains("TOKEN"));
}

#[tokio::test]
async fn events_out_of_order_wait_for_the_missing_one() {
    let world = World::new().await;
    let job_id = world.submit().await;
    let lease = world.place(job_id, 0, at(10)).await.unwrap();
    assert_eq!(world.report(0, lease, 2, &[exited(5)], at(11)).await.unwrap(), Sequence(0));
    assert_eq!(world.view(job_id).await.state, JobState::Placed);
    assert_eq!(world.report(0, lease, 1, &[LeaseChange::Running, exited(5)], at(12)).await.unwrap(), Sequence(2));
    assert_eq!(world.view(job_id).await.state, JobState::Done);
    world.books_balance().await;
}

#[tokio::test]
async fn a_lost_lease_is_replaced_and_the_first_nodes_late_end_is_refused_and_unpaid() {
    let world = World::new().await;
    let job_id = world.submit().await;
    let first = world.place(job_id, 0, at(10)).await.unwrap();
    world.report(0, first, 1, &[LeaseChange::Running], at(11)).await.unwrap();
    world.advance(job_id, Event::NodeSilent { lease_id: first }, at(200)).await.unwrap();
    assert_eq!(world.view(job_id).await.state, JobState::Queued);
    let second = world.place(job_id, 1, at(201)).await.unwrap();
    assert_eq!(refusal(world.report(0, first, 2, &[exited(100_000)], at(202)).await), ErrorCode::LeaseEnded);
    assert_eq!(refusal(world.report(0, first, 1, &[LeaseChange::Running], at(202)).await), ErrorCode::LeaseEnded);
    world.report(1, second, 1, &[LeaseChange::Running, exited(10_000)], at(220)).await.unwrap();
    let view = world.view(job_id).await;
    assert_eq!((view.state, view.lease_count, view.cost), (JobState::Done, 2, usd("0.001")));
    assert_eq!(world.store.receipts(world.nodes[0], Sequence(0)).await.unwrap(), []);
    world.books_balance().await;
}

#[tokio::test]
async fn two_placements_of_one_job_make_one_lease_and_a_full_node_takes_no_second() {
    let world = World::new().await;
    let (one, two) = (world.submit().await, world.submit().await);
    assert!(world.place(one, 0, at(10)).await.is_some());
    assert_eq!(world.place(one, 1, at(10)).await, None, "the job has a lease");
    assert_eq!(world.place(two, 0, at(10)).await, None, "the node is full");
    assert_eq!(world.store.live_leases().await.unwrap().len(), 1);
    world.books_balance().await;
}

#[tokio::test]
async fn a_node_neither_sees_nor_moves_the_lease_of_another() {
    let world = World::new().await;
    let job_id = world.submit().await;
    let lease = world.place(job_id, 0, at(10)).await.unwrap();
    assert_eq!(refusal(world.report(1, lease, 1, &[exited(5)], at(11)).await), ErrorCode::NotFound);
    let upload = LogUpload { offset: 0, bytes: &framed("x"), complete: false };
    assert_eq!(refusal(world.store.append_log(world.nodes[1], lease, &upload).await), ErrorCode::NotFound);
    assert_eq!(world.store.assignments(world.nodes[1]).await.unwrap().leases, []);
    assert_eq!(refusal(world.store.job(world.owner, job_id).await), ErrorCode::NotFound);
}

#[tokio::test]
async fn every_change_of_what_a_node_should_run_raises_its_generation() {
    let world = World::new().await;
    let generation = async || world.store.assignments(world.nodes[0]).await.unwrap().generation.0;
    let job_id = world.submit().await;
    assert_eq!(generation().await, 0);
    let lease = world.place(job_id, 0, at(10)).await.unwrap();
    assert_eq!(generation().await, 1);
    world.advance(job_id, Event::StopRequested, at(11)).await.unwrap();
    let asked = world.store.assignments(world.nodes[0]).await.unwrap();
    assert_eq!((asked.generation.0, asked.leases[0].desired), (2, crate::wire::lease::Desired::Stop));
    assert_eq!(asked.leases[0].spec.services[0].env["TOKEN"].expose(), "hunter2");
    let stopped = LeaseChange::Ended { end: LeaseEnd::Stopped { code: 143 }, ran_millis: 0 };
    world.report(0, lease, 1, &[stopped], at(12)).await.unwrap();
    assert_eq!((generation().await, world.view(job_id).await.state), (3, JobState::Cancelled));
    assert_eq!(world.store.assignments(world.nodes[0]).await.unwrap().leases, []);
    let ahead = world.store.catch_up_generation(world.nodes[0], crate::wire::Generation(90)).await.unwrap();
    assert_eq!(ahead.0, 91, "a node that is ahead, after a restored backup, is overtaken");
    world.books_balance().await;
}

#[tokio::test]
async fn a_renter_without_money_is_told_what_is_missing_and_nothing_is_held() {
    let world = World::new().await;
    world.submit().await;
    world.submit().await;
    let refused = world.try_submit(&spec(), None).await.unwrap_err();
    assert!(refused.to_string().contains("$0.36") && refused.to_string().contains("$0.28"), "{refused}");
    assert_eq!(refusal::<()>(Err(refused)), ErrorCode::InsufficientFunds);
    assert_eq!(world.store.balances(world.renter).await.unwrap().escrow, usd("0.72"));
    world.books_balance().await;
}

#[tokio::test]
async fn the_same_key_makes_one_job_however_concurrently_it_is_sent() {
    let world = World::new().await;
    let spec = spec();
    let sent = futures_util::future::join_all((0..8).map(|_| world.try_submit(&spec, Some("k")))).await;
    let jobs: std::collections::BTreeSet<_> = sent.into_iter().map(|s| s.unwrap().job_id).collect();
    assert_eq!(jobs.len(), 1);
    assert_eq!(world.store.balances(world.renter).await.unwrap().escrow, usd("0.36"));
    let other = JobSpec { name: Some("other".into()), ..spec };
    assert_eq!(refusal(world.try_submit(&other, Some("k")).await), ErrorCode::Conflict);
    world.books_balance().await;
}

#[tokio::test]
async fn deposits_are_counted_once_and_bad_ones_refused() {
    let world = World::new().await;
    let deposit = async |amount: Amount, key| world.store.deposit(world.renter, amount, key, at(2)).await;
    assert_eq!(deposit(usd("2"), "k").await.unwrap(), usd("3"));
    assert_eq!(deposit(usd("2"), "k").await.unwrap(), usd("3"));
    assert_eq!(refusal(deposit(usd("5"), "k").await), ErrorCode::Conflict);
    for bad in [Amount::ZERO, usd("-1"), Amount::from_micros(i64::MIN), Amount::from_micros(i64::MAX)] {
        assert_eq!(refusal(deposit(bad, "bad").await), ErrorCode::InvalidRequest, "{bad}");
    }
    let nobody = AccountId::generate(at(3));
    assert_eq!(refusal(world.store.deposit(nobody, usd("1"), "k", at(3)).await), ErrorCode::NotFound);
    world.books_balance().await;
}

#[tokio::test]
async fn a_log_goes_on_over_leases_without_gap_or_repeat() {
    let world = World::new().await;
    let job_id = world.submit().await;
    let append = async |node: usize, lease, offset, bytes: &[u8], complete| {
        world
            .store
            .append_log(world.nodes[node], lease, &LogUpload { offset, bytes, complete })
            .await
            .map(|(next, _)| next)
    };
    let read = async |offset| world.store.read_log(world.renter, job_id, offset).await.unwrap();
    let first = world.place(job_id, 0, at(10)).await.unwrap();
    let (one, two, three) = (framed("one"), framed("two"), framed("three"));
    assert_eq!(append(0, first, 0, &one, false).await.unwrap(), 8);
    assert_eq!(append(0, first, 0, &[one.clone(), two.clone()].concat(), false).await.unwrap(), 16);
    assert_eq!(append(0, first, 0, &[], false).await.unwrap(), 16, "where to go on");
    let gap = append(0, first, 17, &two, false).await.unwrap_err();
    assert_eq!((gap.to_string().as_str(), refusal::<()>(Err(gap))), ("16", ErrorCode::OffsetGap));
    world.advance(job_id, Event::NodeSilent { lease_id: first }, at(100)).await.unwrap();
    assert_eq!(refusal(append(0, first, 16, &two, false).await), ErrorCode::LeaseEnded);
    let second = world.place(job_id, 1, at(101)).await.unwrap();
    assert_eq!(append(1, second, 0, &three, true).await.unwrap(), 10);
    assert_eq!(append(1, second, 0, &three, true).await.unwrap(), 10);
    assert_eq!(refusal(append(1, second, 10, &one, false).await), ErrorCode::Conflict);
    let whole = [one, two, three].concat();
    assert_eq!(&read(0).await.bytes[..], &whole);
    assert_eq!(&read(3).await.bytes[..], &whole[3..]);
    assert_eq!(&read(16).await.bytes[..], &whole[16..]);
    assert!(!read(0).await.is_last && read(26).await.bytes.is_empty() && read(999).await.bytes.is_empty());
    world.report(1, second, 1, &[exited(0)], at(102)).await.unwrap();
    assert!(read(0).await.is_last && read(26).await.is_last);
    assert_eq!(world.view(job_id).await.log_bytes, 26);
}

#[tokio::test]
async fn an_output_belongs_to_the_live_lease_only() {
    let world = World::new().await;
    let job_id = world.submit().await;
    let lease = world.place(job_id, 0, at(10)).await.unwrap();
    let output = |object: &str, sum: &str| StoredOutput { object: object.into(), bytes: 3, sha256: sum.into() };
    let record =
        async |object, sum| world.store.record_output(world.nodes[0], lease, &output(object, sum), at(11)).await;
    assert_eq!(record("a", "00").await.unwrap(), (job_id, None));
    assert_eq!(record("b", "00").await.unwrap(), (job_id, Some("b".into())), "the same again: the first one stays");
    assert_eq!(record("c", "11").await.unwrap(), (job_id, Some("a".into())), "another one takes its place");
    assert_eq!(world.store.job_output(world.renter, job_id).await.unwrap(), Some(output("c", "11")));
    assert_eq!(world.view(job_id).await.output.unwrap().bytes, 3);
    world.advance(job_id, Event::NodeSilent { lease_id: lease }, at(100)).await.unwrap();
    assert_eq!(refusal(record("d", "22").await), ErrorCode::LeaseEnded);
    assert_eq!(refusal(world.store.output_limit(world.nodes[0], lease).await), ErrorCode::LeaseEnded);
    world.place(job_id, 1, at(101)).await.unwrap();
    assert_eq!(world.view(job_id).await.output, None, "the new lease has handed nothing back yet");
}

#[tokio::test]
async fn a_job_is_shown_newest_first_and_never_with_the_values_of_its_environment() {
    let world = World::new().await;
    let (one, two) = (world.submit().await, world.submit().await);
    let (older, newer) = (one.min(two), one.max(two));
    let jobs = world.store.jobs(world.renter, None, 10).await.unwrap();
    assert_eq!(jobs.iter().map(|j| j.job_id).collect::<Vec<_>>(), [newer, older]);
    assert_eq!(world.store.jobs(world.renter, Some(newer), 10).await.unwrap()[0].job_id, older);
    assert_eq!(world.store.jobs(world.renter, None, 1).await.unwrap().len(), 1);
    assert_eq!(world.store.jobs(world.owner, None, 10).await.unwrap(), []);
    assert!(!serde_json::to_string(&jobs).unwrap().contains("hunter2"));
}

#[tokio::test]
async fn a_coordinator_killed_between_any_two_steps_loses_and_doubles_nothing() {
    let mut world = World::new().await.killed_and_started().await;
    let job_id = world.try_submit(&spec(), Some("k")).await.unwrap().job_id;
    world = world.killed_and_started().await;
    assert_eq!(world.try_submit(&spec(), Some("k")).await.unwrap(), Submitted { job_id, is_new: false });
    let lease = world.place(job_id, 0, at(10)).await.unwrap();
    world = world.killed_and_started().await;
    assert_eq!(world.place(job_id, 1, at(10)).await, None);
    let upload = LogUpload { offset: 0, bytes: &framed("log"), complete: true };
    let story =
        [LeaseChange::Pulling { per_mille: Some(7) }, LeaseChange::Running, LeaseChange::Collecting, exited(100_000)];
    for (sequence, what) in (1..).zip(story) {
        for _ in 0..2 {
            if sequence <= 3 {
                assert_eq!(world.store.append_log(world.nodes[0], lease, &upload).await.unwrap().0, 8);
            }
            let through = world.report(0, lease, sequence, std::slice::from_ref(&what), at(500)).await.unwrap();
            assert_eq!(through, Sequence(sequence));
            world = world.killed_and_started().await;
            world.books_balance().await;
        }
    }
    let view = world.view(job_id).await;
    assert_eq!((view.state, view.lease_count, view.cost, view.log_bytes), (JobState::Done, 1, usd("0.01"), 8));
    assert_eq!(view.lease.unwrap().phase, LeasePhase::Done);
    assert_eq!(world.store.receipts(world.nodes[0], Sequence(0)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn jobs_whose_time_ran_out_are_found_and_ended() {
    let world = World::new().await;
    let mut deadline = spec();
    deadline.limits.start_deadline_seconds = Some(60);
    let waiting = world.try_submit(&deadline, None).await.unwrap().job_id;
    let running = world.submit().await;
    let lease = world.place(running, 0, at(10)).await.unwrap();
    world.report(0, lease, 1, &[LeaseChange::Running], at(11)).await.unwrap();
    assert_eq!(world.store.overdue_jobs(at(60)).await.unwrap(), []);
    assert_eq!(world.store.overdue_jobs(at(61)).await.unwrap(), [waiting]);
    world.advance(waiting, Event::Tick, at(61)).await.unwrap();
    assert_eq!(world.view(waiting).await.state, JobState::Failed);
    assert_eq!(world.store.overdue_jobs(at(3600)).await.unwrap(), []);
    assert_eq!(world.store.overdue_jobs(at(11 + 3600 + 62)).await.unwrap(), [running]);
    world.advance(running, Event::Tick, at(11 + 3600 + 62)).await.unwrap();
    assert_eq!(world.store.overdue_jobs(at(11 + 3600 + 63)).await.unwrap(), [], "asked to stop once");
    assert_eq!(world.store.overdue_jobs(at(40_000)).await.unwrap(), [running], "and given up on much later");
    world.advance(running, Event::Tick, at(40_000)).await.unwrap();
    assert_eq!(world.view(running).await.state, JobState::Done);
    world.books_balance().await;
}
