//! Nodes that prove their hardware to a coordinator, from the challenge to what their owners see.

use std::path::PathBuf;
use std::time::Duration;

use fizz::agent::AgentOptions;
use fizz::clock::Clock;
use fizz::control::{Answer, Client, Request, Snapshot};
use fizz::wire::challenge::ProofState;
use fizz::wire::node::{NodeList, NodeState};

use crate::world::{Node, World};

fn provable(options: AgentOptions) -> AgentOptions {
    AgentOptions { prover: Some(PathBuf::from(env!("CARGO_BIN_EXE_fizz"))), ..options }
}

fn is(state: ProofState) -> impl Fn(&Snapshot) -> bool {
    move |snapshot| snapshot.proof.as_ref().is_some_and(|proof| proof.state == state)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_enrols_is_challenged_and_proven_and_its_owner_and_the_operator_see_it() {
    let world = World::new().await;
    let token = world.join_token().await;
    let mut node = Node::start(provable(world.options("a", Some(token))), Clock::system()).await;
    let snapshot = node.until("proven", is(ProofState::Proven)).await;
    assert_eq!(snapshot.state, NodeState::Idle);
    assert!(snapshot.proof.unwrap().passed_at.is_some());
    let admin = world.coordinator.as_ref().unwrap().admin_token().clone();
    let nodes: NodeList = world.api().get("/v1/admin/nodes").bearer(&admin).receive().await.unwrap();
    assert_eq!(nodes.nodes[0].proof.as_ref().unwrap().state, ProofState::Proven);
    // The owner asks for another one.
    let socket = world.state_dir("a").control_socket();
    let first = node.snapshots.borrow().proof.as_ref().unwrap().passed_at;
    assert_eq!(Client::ask(&socket, Request::Prove).await.unwrap(), Answer::Asked);
    node.until("proven again", |s| s.proof.as_ref().is_some_and(|proof| proof.passed_at > first)).await;
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_of_one_owner_are_challenged_together_and_both_proven() {
    let world = World::new().await;
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        let token = world.join_token().await;
        nodes.push(Node::start(provable(world.options(name, Some(token))), Clock::system()).await);
    }
    for node in &mut nodes {
        node.until("proven", is(ProofState::Proven)).await;
    }
    for node in nodes {
        node.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_compute_stays_unproven_goes_on_and_still_gets_jobs() {
    let world = World::new().await;
    world.deposit(5).await;
    let token = world.join_token().await;
    let broken = AgentOptions { prover: Some(PathBuf::from("/bin/false")), ..world.options("a", Some(token)) };
    let mut node = Node::start(broken, Clock::system()).await;
    node.until("known", is(ProofState::Unproven)).await;
    let job = world.submit("hello").await;
    world.renter().wait_final(job.job_id).await.unwrap();
    node.until("paid", |s| s.earnings.as_ref().is_some_and(|earned| earned.leases_paid > 0)).await;
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_comes_before_a_challenge() {
    let world = World::new().await;
    world.deposit(5).await;
    let job = world.submit("hold").await;
    let token = world.join_token().await;
    let mut node = Node::start(provable(world.options("a", Some(token))), Clock::system()).await;
    node.until_state(NodeState::Working).await;
    let admin = world.coordinator.as_ref().unwrap().admin_token().clone();
    let nodes: NodeList = world.api().get("/v1/admin/nodes").bearer(&admin).receive().await.unwrap();
    assert_eq!(nodes.nodes[0].proof.as_ref().unwrap().state, ProofState::Unproven);
    world.renter().stop(job.job_id).await.unwrap();
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, node.until("proven afterwards", is(ProofState::Proven))).await.unwrap();
    node.drain().await;
}
