//! Jobs from submission to pay.

use fizz::agent::Outcome;
use fizz::clock::Clock;
use fizz::control::{Answer, Client, Request};
use fizz::wire::job::JobState;
use fizz::wire::lease::{LeaseEnd, LeasePhase};
use fizz::wire::node::NodeState;
use fizz::wire::{Amount, Sequence};

use crate::world::{Node, World, within};

#[tokio::test]
async fn a_job_runs_to_its_end_and_the_node_is_paid() {
    let world = World::new().await;
    world.deposit(10).await;
    let mut node = world.node("a").await;
    node.until_state(NodeState::Idle).await;
    let submitted = world.submit("hello").await;
    let done = within(world.renter().wait_final(submitted.job_id)).await.unwrap();
    assert_eq!((done.state, done.outcome), (JobState::Done, Some(LeaseEnd::Exited { code: 0 })));
    assert_eq!(done.escrow, Amount::ZERO);
    let lease_id = done.lease.unwrap().lease_id;
    node.until("free again", |s| s.leases.is_empty() && s.state == NodeState::Idle).await;
    assert!(world.engine.container(lease_id).is_none(), "the container is gone");
    let socket = world.state_dir("a").control_socket();
    let Answer::Earnings { earnings, stale } = Client::ask(&socket, Request::Earnings).await.unwrap() else {
        panic!("no earnings")
    };
    assert_eq!((earnings.leases_paid, stale), (1, None));
}

#[tokio::test]
async fn without_an_engine_the_node_is_paused_and_recovers_by_itself() {
    let world = World::new().await;
    world.engine.set_up(false);
    let mut node = world.node("a").await;
    let snapshot = node.until_state(NodeState::Paused).await;
    assert!(snapshot.why.is_some());
    world.engine.set_up(true);
    node.until_state(NodeState::Idle).await;
}

#[tokio::test]
async fn the_engine_may_stop_and_start_in_the_middle_of_a_job() {
    let world = World::new().await;
    world.deposit(10).await;
    let mut node = world.node("a").await;
    node.until_state(NodeState::Idle).await;
    let job = world.submit("hold").await;
    let lease_id = node.until_phase(LeasePhase::Running).await;
    world.engine.set_up(false);
    node.until_state(NodeState::Paused).await;
    world.engine.set_up(true);
    node.until_state(NodeState::Working).await;
    world.engine.release(lease_id);
    let done = within(world.renter().wait_final(job.job_id)).await.unwrap();
    assert_eq!((done.outcome, done.lease_count), (Some(LeaseEnd::Exited { code: 0 }), 1));
    assert_eq!(world.engine.starts(lease_id), 1);
}

#[tokio::test]
async fn the_coordinator_may_restart_in_the_middle_of_a_job() {
    let mut world = World::new().await;
    world.deposit(10).await;
    let mut node = world.node("a").await;
    node.until_state(NodeState::Idle).await;
    let job = world.submit("hold").await;
    let lease_id = node.until_phase(LeasePhase::Running).await;
    world.stop_coordinator().await;
    world.engine.release(lease_id);
    node.until_phase(LeasePhase::Collecting).await;
    world.start_coordinator().await;
    let done = within(world.renter().wait_final(job.job_id)).await.unwrap();
    assert_eq!(done.outcome, Some(LeaseEnd::Exited { code: 0 }));
    assert_eq!(world.engine.starts(lease_id), 1);
}

#[tokio::test]
async fn a_drain_hands_running_jobs_back_at_its_deadline() {
    let world = World::new().await;
    world.deposit(10).await;
    let token = world.join_token().await;
    let mut options = world.options("a", Some(token));
    options.drain_deadline = std::time::Duration::from_millis(300);
    let mut node = Node::start(options, Clock::system()).await;
    node.until_state(NodeState::Idle).await;
    let job = world.submit("hold").await;
    let lease_id = node.until_phase(LeasePhase::Running).await;
    assert_eq!(node.drain().await, Outcome::Drained);
    assert!(world.engine.container(lease_id).is_none(), "the container is gone");
    let waits = world.renter().job(job.job_id).await.unwrap();
    assert_eq!(waits.state, JobState::Queued, "the job waits for another node: {}", waits.why);
    let mut other = world.node("b").await;
    let second = other.until_phase(LeasePhase::Running).await;
    assert_ne!(second, lease_id);
    world.engine.release(second);
    let done = within(world.renter().wait_final(job.job_id)).await.unwrap();
    assert_eq!((done.state, done.lease_count), (JobState::Done, 2));
}

#[tokio::test]
async fn a_drain_waits_for_a_job_that_ends_in_time() {
    let world = World::new().await;
    world.deposit(10).await;
    let mut node = world.node("a").await;
    node.until_state(NodeState::Idle).await;
    let job = world.submit("hold").await;
    let lease_id = node.until_phase(LeasePhase::Running).await;
    let socket = world.state_dir("a").control_socket();
    assert_eq!(Client::ask(&socket, Request::Drain).await.unwrap(), Answer::Draining);
    node.until_state(NodeState::Draining).await;
    world.engine.release(lease_id);
    assert_eq!(within(node.task).await.unwrap(), Outcome::Drained);
    let done = world.renter().job(job.job_id).await.unwrap();
    assert_eq!((done.state, done.lease_count), (JobState::Done, 1));
}

#[tokio::test]
async fn a_stopped_job_ends_on_its_node() {
    let world = World::new().await;
    world.deposit(10).await;
    let mut node = world.node("a").await;
    node.until_state(NodeState::Idle).await;
    let job = world.submit("hold").await;
    node.until_phase(LeasePhase::Running).await;
    world.renter().stop(job.job_id).await.unwrap();
    let done = within(world.renter().wait_final(job.job_id)).await.unwrap();
    assert_eq!(done.state, JobState::Cancelled);
    node.until("free again", |s| s.leases.is_empty()).await;
}

#[tokio::test]
async fn receipts_are_chained_and_signed() {
    use fizz::wire::signed::{receipt_message, receipt_sha256};
    let world = World::new().await;
    world.deposit(10).await;
    let mut node = world.node("a").await;
    node.until_state(NodeState::Idle).await;
    for _ in 0..2 {
        let job = world.renter().submit(&crate::world::job("hello"), &uuid::Uuid::new_v4().to_string()).await.unwrap();
        within(world.renter().wait_final(job.job_id)).await.unwrap();
    }
    node.until("free again", |s| s.leases.is_empty()).await;
    node.kill().await;
    let client = client_of(&world).await;
    let list = client.receipts(Sequence(0)).await.unwrap();
    assert_eq!(list.receipts.len(), 2);
    let mut previous = "0".repeat(64);
    for receipt in &list.receipts {
        assert_eq!(receipt.previous_sha256, previous);
        previous = receipt_sha256(receipt);
        let key = ed25519_dalek::VerifyingKey::from_bytes(list.coordinator_key.as_bytes()).unwrap();
        let signature = ed25519_dalek::Signature::from_bytes(receipt.signature.as_bytes());
        key.verify_strict(&receipt_message(receipt), &signature).unwrap();
    }
}

/// The node's own client, once its agent has let go of the folder.
async fn client_of(world: &World) -> fizz::agent::client::Client {
    use fizz::agent::identity::{Identity, StateLock};
    let state = world.state_dir("a");
    let lock = StateLock::take(&state).unwrap();
    let identity = Identity::load_or_create(&state, &lock).unwrap();
    let journal = fizz::agent::journal::Journal::open(&state.journal()).await.unwrap();
    let node_id = journal.meta("node_id").await.unwrap().unwrap().parse().unwrap();
    let client =
        fizz::agent::client::Client::new(&world.options("a", None).coordinators, identity, Clock::system()).unwrap();
    client.set_node_id(node_id);
    client
}
