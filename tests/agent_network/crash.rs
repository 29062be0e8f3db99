//! An agent that is killed anywhere takes its containers up again and starts none a second time.

use std::time::Duration;

use fizz::clock::Clock;
use fizz::wire::job::JobState;
use fizz::wire::lease::{LeaseEnd, LeasePhase};
use fizz::wire::node::NodeState;

use crate::world::{Node, World, within};

async fn ready() -> (World, Node) {
    let world = World::new().await;
    world.deposit(10).await;
    let mut node = world.node("a").await;
    node.until_state(NodeState::Idle).await;
    (world, node)
}

async fn restarted(world: &World) -> Node {
    Node::start(world.options("a", None), Clock::system()).await
}

#[tokio::test]
async fn killed_while_pulling_it_pulls_again_and_starts_once() {
    let (world, mut node) = ready().await;
    let job = world.submit("slow").await;
    let lease_id = node.until_phase(LeasePhase::Pulling).await;
    node.kill().await;
    let mut node = restarted(&world).await;
    assert_eq!(node.until_phase(LeasePhase::Running).await, lease_id);
    world.engine.release(lease_id);
    let done = within(world.renter().wait_final(job.job_id)).await.unwrap();
    assert_eq!((done.state, done.lease_count), (JobState::Done, 1));
    assert_eq!((world.engine.creates(lease_id), world.engine.starts(lease_id)), (1, 1));
}

#[tokio::test]
async fn killed_while_running_it_takes_the_container_up_again() {
    let (world, mut node) = ready().await;
    let job = world.submit("hold").await;
    let lease_id = node.until_phase(LeasePhase::Running).await;
    node.kill().await;
    let mut node = restarted(&world).await;
    assert_eq!(node.until_phase(LeasePhase::Running).await, lease_id);
    world.engine.release(lease_id);
    let done = within(world.renter().wait_final(job.job_id)).await.unwrap();
    assert_eq!(done.outcome, Some(LeaseEnd::Exited { code: 0 }));
    assert_eq!((world.engine.creates(lease_id), world.engine.starts(lease_id)), (1, 1));
}

#[tokio::test]
async fn a_container_that_ended_while_the_agent_was_dead_is_reported_with_its_log() {
    let (world, mut node) = ready().await;
    let job = world.submit("hold").await;
    let lease_id = node.until_phase(LeasePhase::Running).await;
    node.kill().await;
    world.engine.release(lease_id);
    let _node = restarted(&world).await;
    let done = within(world.renter().wait_final(job.job_id)).await.unwrap();
    assert_eq!(done.outcome, Some(LeaseEnd::Exited { code: 0 }));
    assert!(done.log_complete && done.log_bytes > 0);
    assert_eq!(world.engine.starts(lease_id), 1);
}

#[tokio::test]
async fn killed_while_collecting_it_hands_over_the_rest() {
    let (mut world, mut node) = ready().await;
    let job = world.submit("hold").await;
    let lease_id = node.until_phase(LeasePhase::Running).await;
    world.stop_coordinator().await;
    world.engine.release(lease_id);
    node.until_phase(LeasePhase::Collecting).await;
    node.kill().await;
    world.start_coordinator().await;
    let _node = restarted(&world).await;
    let done = within(world.renter().wait_final(job.job_id)).await.unwrap();
    assert_eq!(done.outcome, Some(LeaseEnd::Exited { code: 0 }));
    assert_eq!((world.engine.creates(lease_id), world.engine.starts(lease_id)), (1, 1));
}

#[tokio::test]
async fn killed_again_and_again_at_any_moment_each_lease_starts_once_and_is_paid_once() {
    let (world, node) = ready().await;
    node.kill().await;
    let job = world.renter().submit(&crate::world::job("hello"), "again").await.unwrap();
    let mut life = Duration::from_millis(20);
    let done = loop {
        let node = restarted(&world).await;
        let ended = tokio::time::timeout(life, world.renter().wait_final(job.job_id)).await;
        node.kill().await;
        if let Ok(done) = ended {
            break done.unwrap();
        }
        life += Duration::from_millis(25);
        assert!(life < Duration::from_secs(4), "the job does not get done");
    };
    assert_eq!((done.state, done.lease_count), (JobState::Done, 1));
    let lease_id = done.lease.unwrap().lease_id;
    assert_eq!((world.engine.creates(lease_id), world.engine.starts(lease_id)), (1, 1));
    // What is left is tidied up by the next start.
    let mut node = restarted(&world).await;
    node.until_state(NodeState::Idle).await;
    within(world.engine.until(lease_id, |status| status.is_none())).await;
}

#[tokio::test]
async fn a_second_signal_leaves_the_container_to_the_next_start() {
    let (world, mut node) = ready().await;
    let job = world.submit("hold").await;
    let lease_id = node.until_phase(LeasePhase::Running).await;
    node.stop.send(fizz::agent::signals::Stop::Leave).unwrap();
    assert_eq!(within(node.task).await.unwrap(), fizz::agent::Outcome::Left);
    let mut node = restarted(&world).await;
    assert_eq!(node.until_phase(LeasePhase::Running).await, lease_id);
    world.engine.release(lease_id);
    let done = within(world.renter().wait_final(job.job_id)).await.unwrap();
    assert_eq!((done.state, world.engine.starts(lease_id)), (JobState::Done, 1));
}

#[tokio::test]
async fn a_container_that_no_lease_owns_is_removed_when_the_engine_tells_of_it() {
    use fizz::runtime::{ContainerRuntime as _, ContainerSpec};
    use fizz::wire::LeaseId;
    let world = World::new().await;
    world.deposit(10).await;
    let token = world.join_token().await;
    // No reconciling by the clock while the test waits.
    let options =
        fizz::agent::AgentOptions { reconcile_every: Duration::from_secs(3600), ..world.options("a", Some(token)) };
    let mut node = Node::start(options, Clock::system()).await;
    let node_id = node.until_state(NodeState::Idle).await.node_id.unwrap();
    // The coordinator's wish is known with the first job.
    let job = world.submit("hello").await;
    within(world.renter().wait_final(job.job_id)).await.unwrap();
    let image = world.engine.ensure_image("hold", tokio::sync::mpsc::channel(1).0).await.unwrap();
    let lease_id = LeaseId::generate(Clock::system().now());
    let orphan = ContainerSpec::new(node_id, lease_id, image.image_id);
    let container = world.engine.create(&orphan).await.unwrap();
    world.engine.start(&container).await.unwrap();
    within(world.engine.until(orphan.lease_id, |status| status.is_none())).await;
    assert_eq!(world.engine.starts(orphan.lease_id), 1);
    node.kill().await;
}

#[tokio::test]
async fn a_container_that_no_lease_owns_is_removed_and_a_strangers_is_not() {
    use fizz::runtime::network::LeaseNetworkSpec;
    use fizz::runtime::{ContainerRuntime as _, ContainerSpec};
    use fizz::wire::job::Reach;
    use fizz::wire::{LeaseId, NodeId};
    let (world, mut node) = ready().await;
    let node_id = node.until_state(NodeState::Idle).await.node_id.unwrap();
    let now = Clock::system().now();
    let (progress, _) = tokio::sync::mpsc::channel(1);
    let image = world.engine.ensure_image("hold", progress).await.unwrap();
    let spec = |node_id| ContainerSpec::new(node_id, LeaseId::generate(now), image.image_id.clone());
    let (orphan, stranger) = (spec(node_id), spec(NodeId::generate(now)));
    world.engine.create(&orphan).await.unwrap();
    world.engine.create(&stranger).await.unwrap();
    let network = |spec: &ContainerSpec| LeaseNetworkSpec {
        node_id: spec.node_id,
        lease_id: spec.lease_id,
        generation: 1,
        reach: Reach::None,
        domains: Vec::new(),
    };
    let alone = LeaseNetworkSpec { lease_id: LeaseId::generate(now), ..network(&orphan) };
    for wanted in [network(&orphan), alone, network(&stranger)] {
        world.engine.ensure_network(&wanted).await.unwrap();
    }
    // The coordinator's wish becomes known with the first job.
    world.submit("hello").await;
    within(world.engine.until(orphan.lease_id, |status| status.is_none())).await;
    assert!(world.engine.container(stranger.lease_id).is_some());
    within(async {
        while world.engine.all_networks().len() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(world.engine.all_networks()[0].lease_id, stranger.lease_id, "the stranger's network stays");
}
