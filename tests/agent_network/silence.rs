//! Long silences: an hour without a network, and owners who shut their machine down.

use std::time::Duration;

use fizz::agent::Outcome;
use fizz::agent::signals::Stop;
use fizz::clock::Clock;
use fizz::control::Snapshot;
use fizz::wire::Amount;
use fizz::wire::job::JobState;
use fizz::wire::lease::{LeaseEnd, LeasePhase};
use fizz::wire::node::NodeState;

use crate::servers::relay;
use crate::world::{Node, World, options, turning, within};

const HOUR: Duration = Duration::from_secs(3600);
/// For so long a node may be silent here.
const GRACE_SECONDS: u64 = 10;

/// A world that lives by a clock of its own, and a node that reaches its coordinator over a cable that can be cut.
async fn by_the_clock() -> (World, crate::servers::Relay, Clock, tokio::task::JoinSet<()>) {
    let clock = Clock::manual(Clock::system().now());
    let pump = turning(&clock);
    let world = World::with(clock.clone(), GRACE_SECONDS).await;
    world.deposit(10).await;
    let address = world.coordinator.as_ref().unwrap().address();
    let relay = relay(address, Duration::ZERO).await;
    (world, relay, clock, pump)
}

/// A node that holds a job which runs.
async fn working(world: &World, url: &str, clock: &Clock, drain_deadline: Duration) -> Node {
    let token = world.join_token().await;
    let addresses = [(url, world.trust.clone())];
    let mut options = options(&world.state_dir("a"), &addresses, Some(token), &world.engine);
    options.drain_deadline = drain_deadline;
    let mut node = Node::start(options, clock.clone()).await;
    node.until_state(NodeState::Idle).await;
    node
}

#[tokio::test]
async fn after_an_hour_without_a_network_the_job_was_placed_again_and_is_paid_once() {
    let (world, mut relay, clock, _pump) = by_the_clock().await;
    let mut node = working(&world, &relay.url, &clock, HOUR).await;
    let job = world.submit("hold").await;
    let first = node.until_phase(LeasePhase::Running).await;
    relay.cut().await;
    // A coordinator that finds its own clock an hour on takes it that it slept itself, and waits.
    clock.advance(Duration::from_secs(2 * GRACE_SECONDS));
    let renter = world.renter();
    let back = within(async {
        loop {
            let view = renter.job(job.job_id).await.unwrap();
            if view.state == JobState::Queued {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(back.await.cost, Amount::ZERO, "nothing is paid for what nobody heard of");
    // It ends while nobody hears of it; the node has its end and its log.
    clock.advance(HOUR);
    world.engine.release(first);
    relay.mend().await;
    let anew = |s: &Snapshot| s.leases.iter().any(|l| l.phase == LeasePhase::Running && l.lease_id != first);
    let snapshot = node.until("a new lease", anew).await;
    let second = snapshot.leases.iter().find(|l| l.phase == LeasePhase::Running).unwrap().lease_id;
    assert!(world.engine.container(first).is_none(), "what nobody wants any more is gone");
    world.engine.release(second);
    let done = within(renter.wait_final(job.job_id)).await.unwrap();
    assert_eq!((done.outcome, done.lease_count), (Some(LeaseEnd::Exited { code: 0 }), 2));
    let store = &world.coordinator.as_ref().unwrap().app().store;
    let ledger = store.ledger_view().await.unwrap();
    assert_eq!((ledger.sum, ledger.unbalanced), (Amount::ZERO, 0));
    assert!(done.paid_millis.is_some_and(|millis| (1..60_000).contains(&millis)), "{:?}", done.paid_millis);
}

#[tokio::test]
async fn a_job_whose_coordinator_was_away_for_minutes_goes_on_where_it_is_and_is_paid_for_all_of_them() {
    let (mut world, relay, clock, _pump) = by_the_clock().await;
    let mut node = working(&world, &relay.url, &clock, HOUR).await;
    let job = world.submit("hold").await;
    let lease = node.until_phase(LeasePhase::Running).await;
    world.stop_coordinator().await;
    // Less than the job may run.
    clock.advance(Duration::from_secs(500));
    world.start_coordinator().await;
    world.engine.release(lease);
    let done = within(world.renter().wait_final(job.job_id)).await.unwrap();
    assert_eq!((done.outcome, done.lease_count), (Some(LeaseEnd::Exited { code: 0 }), 1));
    assert!(done.paid_millis.is_some_and(|millis| (500_000..560_000).contains(&millis)), "{:?}", done.paid_millis);
}

#[tokio::test]
async fn a_shutdown_hands_back_within_what_systems_grant_whatever_the_owner_allows_a_drain() {
    let (world, relay, clock, _pump) = by_the_clock().await;
    let mut node = working(&world, &relay.url, &clock, HOUR).await;
    let job = world.submit("hold").await;
    let lease = node.until_phase(LeasePhase::Running).await;
    node.stop.send(Stop::Drain).unwrap();
    node.until_state(NodeState::Draining).await;
    // systemd waits 90 s and `docker stop` of a whole engine less; the rest is for handing over.
    clock.advance(Duration::from_secs(45));
    assert_eq!(within(node.task).await.unwrap(), Outcome::Drained);
    assert!(world.engine.container(lease).is_none());
    assert_eq!(world.renter().job(job.job_id).await.unwrap().state, JobState::Queued);
}
