//! Silent and forgetful nodes, late and repeated words, and a coordinator that is killed.

use fizz::wire::ErrorCode;
use fizz::wire::job::JobState;
use fizz::wire::lease::{FailureKind, LeaseChange, LeaseEnd, LeasePhase};
use fizz::wire::node::NodeState;
use fizz::wire::{Amount, Sequence};

use crate::world::{World, code, exited, framed, job, usd};

/// Longer than the default grace.
const SILENCE_SECONDS: u64 = 106;

#[tokio::test]
async fn a_silent_node_loses_its_lease_another_gets_the_job_and_the_first_is_neither_heard_nor_paid() {
    let world = World::new().await;
    let mut first = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let lost = first.assigned().await.lease_id;
    first.report(lost, 1, &[LeaseChange::Running]).await.unwrap();
    first.log(lost, "offset=0", framed("first ")).await.unwrap();
    let lost_in_time = async {
        while world.view(job_id).await.lease.is_none_or(|l| l.phase != LeasePhase::Lost) {
            world.turn(2);
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), lost_in_time).await.unwrap();
    let mut second = world.node(2, "0.80").await;
    let lease = second.assigned().await;
    assert_eq!(lease.job_id, job_id);

    first.beat(NodeState::Working, &[lost]).await;
    assert_eq!(code(first.report(lost, 2, &[exited(0, 60_000)]).await), ErrorCode::LeaseEnded);
    assert_eq!(code(first.log(lost, "offset=11", framed("late")).await), ErrorCode::LeaseEnded);
    assert_eq!(first.assignments("wait=0").await.leases, []);
    second.log(lease.lease_id, "offset=0&complete=true", framed("second")).await.unwrap();
    second.report(lease.lease_id, 1, &[LeaseChange::Running, exited(0, 0)]).await.unwrap();
    let view = world.until_state(job_id, JobState::Done).await;
    assert_eq!((view.lease_count, view.cost), (2, Amount::ZERO));
    assert_eq!(world.log(job_id, "follow=true").await, "first second");
    assert_eq!(world.earned().await, Amount::ZERO);
    world.books_balance().await;
}

#[tokio::test]
async fn a_node_that_fails_a_job_by_its_own_fault_is_passed_over() {
    let world = World::new().await;
    let (mut cheap, mut dear) = (world.node(1, "0.40").await, world.node(2, "0.80").await);
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let lease = cheap.assigned().await.lease_id;
    let end = LeaseEnd::Failed { why: FailureKind::NoSpace, detail: "the disk is full".into() };
    cheap.report(lease, 1, &[LeaseChange::Ended { end, ran_millis: 0 }]).await.unwrap();
    assert_eq!(dear.assigned().await.job_id, job_id);
    world.books_balance().await;
}

#[tokio::test]
async fn a_job_that_is_queued_again_says_how_it_failed_and_when_it_is_tried_again() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let lease = node.assigned().await.lease_id;
    let detail = "image 'busybox' could not be pulled: lookup registry-1.docker.io: no such host".to_owned();
    let end = LeaseEnd::Failed { why: FailureKind::ImagePullFailed, detail };
    node.report(lease, 1, &[LeaseChange::Ended { end, ran_millis: 0 }]).await.unwrap();
    let told = "queued again: node 'node-1' could not run it (image 'busybox' could not be pulled: \
                lookup registry-1.docker.io: no such host); ";
    world.until(job_id, |v| v.why == format!("{told}the next try comes within 5 s")).await;
    node.beat(NodeState::Paused, &[]).await;
    world.turn(1);
    let view = world.until(job_id, |v| v.why == format!("{told}no node is online and takes jobs")).await;
    assert_eq!(view.state, JobState::Queued);
}

#[tokio::test]
async fn a_lease_its_node_does_not_know_any_more_is_placed_again() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let forgotten = node.assigned().await.lease_id;
    node.beat(NodeState::Working, &[]).await;
    world.turn(1);
    // Heard all the time, so not silent; but the lease is never listed.
    let ended = async {
        loop {
            world.turn(20);
            node.beat(NodeState::Idle, &[]).await;
            let view = world.view(job_id).await;
            if view.lease.as_ref().is_some_and(|l| l.lease_id != forgotten || l.phase == LeasePhase::Failed) {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.unwrap();
    assert_eq!(code(node.report(forgotten, 1, &[exited(0, 1)]).await), ErrorCode::LeaseEnded);
    world.books_balance().await;
}

#[tokio::test]
async fn repeated_and_reordered_events_are_taken_once_and_in_order() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let lease = node.assigned().await.lease_id;
    world.turn(50);
    node.beat(NodeState::Working, &[lease]).await;
    assert_eq!(node.report(lease, 3, &[exited(0, 36_000)]).await.unwrap(), Sequence(0));
    let story = [LeaseChange::Running, LeaseChange::Collecting, exited(0, 36_000)];
    for _ in 0..3 {
        assert_eq!(node.report(lease, 1, &story).await.unwrap(), Sequence(3));
    }
    assert_eq!(code(node.report(lease, 4, &[LeaseChange::Running]).await), ErrorCode::LeaseEnded);
    let view = world.view(job_id).await;
    assert_eq!((view.state, view.cost), (JobState::Done, usd("0.001")));
    world.books_balance().await;
}

#[tokio::test]
async fn a_node_that_says_it_ran_for_years_is_paid_for_what_the_coordinator_saw() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let lease = node.assigned().await.lease_id;
    world.turn(36);
    node.report(lease, 1, &[LeaseChange::Running, exited(0, u64::MAX)]).await.unwrap();
    assert_eq!(world.view(job_id).await.cost, usd("0.001"));
    world.books_balance().await;
}

#[tokio::test]
async fn a_coordinator_killed_at_each_state_of_a_lease_loses_and_doubles_nothing() {
    let mut world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit_with_key(&job(), "k").await.unwrap().job_id;
    world = world.kill_and_start().await;
    node.reconnect(&world).await;
    assert_eq!(world.submit_with_key(&job(), "k").await.unwrap().job_id, job_id);
    let lease = node.assigned().await.lease_id;
    let story = [
        LeaseChange::Pulling { per_mille: None },
        LeaseChange::Starting { image_digest: "sha256:0".into() },
        LeaseChange::Running,
        LeaseChange::Frozen { reason: "a game".into() },
        LeaseChange::Thawed,
        LeaseChange::Collecting,
        exited(0, 36_000),
    ];
    for (sequence, what) in (1..).zip(story) {
        world = world.kill_and_start().await;
        node.connect(world.client()).await;
        world.turn(20);
        node.beat(NodeState::Working, &[lease]).await;
        if sequence == 6 {
            node.log(lease, "offset=0&complete=true", framed("log")).await.unwrap();
        }
        assert_eq!(node.report(lease, sequence, &[what]).await.unwrap(), Sequence(sequence));
        world.books_balance().await;
    }
    world = world.kill_and_start().await;
    let view = world.view(job_id).await;
    assert_eq!((view.state, view.lease_count, view.cost), (JobState::Done, 1, usd("0.001")));
    assert_eq!(world.log(job_id, "follow=true").await, "log");
    assert_eq!((world.spendable().await, world.earned().await), (usd("9.999"), usd("0.00095")));
    world.books_balance().await;
}

#[tokio::test]
async fn a_coordinator_that_was_away_gives_every_node_a_fresh_grace() {
    let mut world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let lease = node.assigned().await.lease_id;
    node.report(lease, 1, &[LeaseChange::Running]).await.unwrap();
    world.clock.advance(std::time::Duration::from_secs(10 * SILENCE_SECONDS));
    world = world.kill_and_start().await;
    node.connect(world.client()).await;
    world.turn(SILENCE_SECONDS - 10);
    node.beat(NodeState::Working, &[lease]).await;
    world.turn(SILENCE_SECONDS - 10);
    assert_eq!(node.report(lease, 2, &[exited(0, 5)]).await.unwrap(), Sequence(2));
    assert_eq!(world.view(job_id).await.state, JobState::Done);
}

#[tokio::test]
async fn a_book_that_a_node_writes_about_its_failure_is_cut_to_a_few_sentences() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let lease = node.assigned().await.lease_id;
    let end = LeaseEnd::Failed { why: FailureKind::InvalidSpec, detail: "é".repeat(200_000) };
    node.report(lease, 1, &[LeaseChange::Ended { end, ran_millis: 0 }]).await.unwrap();
    let view = world.view(job_id).await;
    assert_eq!(view.state, JobState::Failed);
    assert!(serde_json::to_string(&view).unwrap().len() < 10_000);
}
