//! Coordinators that are down, slow, talking nonsense or not who they should be, and clocks that are off.

use std::time::Duration;

use axum::http::StatusCode;
use fizz::clock::Clock;
use fizz::control::{LinkState, Snapshot};
use fizz::http::Trust;
use fizz::wire::node::NodeState;

use crate::servers::{BadServer, Validity, answering, relay};
use crate::world::{Node, World, options, turning};

fn unreachable_because(snapshot: &Snapshot, words: &str) -> bool {
    matches!(&snapshot.coordinator.state, LinkState::Unreachable { why, .. } if why.contains(words))
}

async fn node_at(world: &World, server: &BadServer) -> Node {
    let trust = Trust::Pinned { pem: server.ca_pem.clone() };
    let options = options(&world.state_dir("a"), &[(&server.url, trust)], None, &world.engine);
    Node::start(options, Clock::system()).await
}

#[tokio::test]
async fn a_coordinator_that_is_down_at_the_start_is_waited_for() {
    let mut world = World::new().await;
    let token = world.join_token().await;
    world.stop_coordinator().await;
    let mut node = Node::start(world.options("a", Some(token)), Clock::system()).await;
    node.until("told that it cannot be reached", |s| unreachable_because(s, "cannot be reached")).await;
    world.start_coordinator().await;
    node.until_state(NodeState::Idle).await;
}

#[tokio::test]
async fn a_coordinator_that_goes_and_comes_back_is_found_again() {
    let mut world = World::new().await;
    let mut node = world.node("a").await;
    node.until("connected", |s| {
        s.state == NodeState::Idle && matches!(s.coordinator.state, LinkState::Connected { .. })
    })
    .await;
    world.stop_coordinator().await;
    node.until("unreachable", |s| unreachable_because(s, "")).await;
    world.start_coordinator().await;
    node.until("connected again", |s| matches!(s.coordinator.state, LinkState::Connected { .. })).await;
}

#[tokio::test]
async fn the_second_address_serves_while_the_first_is_down() {
    let world = World::new().await;
    let token = world.join_token().await;
    let addresses = [("https://127.0.0.1:1", world.trust.clone()), (world.url.as_str(), world.trust.clone())];
    let options = options(&world.state_dir("a"), &addresses, Some(token), &world.engine);
    let mut node = Node::start(options, Clock::system()).await;
    let snapshot = node.until_state(NodeState::Idle).await;
    assert_eq!(snapshot.coordinator.url, world.url);
}

#[tokio::test]
async fn a_server_that_talks_nonsense_is_named_as_no_coordinator() {
    let world = World::new().await;
    let html = "<html>Welcome to nginx!</html>";
    for (status, words) in [(StatusCode::OK, "no Fizz coordinator"), (StatusCode::BAD_GATEWAY, "502")] {
        let server = answering(status, html, Validity::Now).await;
        let mut node = node_at(&world, &server).await;
        node.until(words, |s| unreachable_because(s, words)).await;
        node.kill().await;
    }
}

#[tokio::test]
async fn a_slow_coordinator_is_waited_for() {
    let world = World::new().await;
    let address = world.coordinator.as_ref().unwrap().address();
    let relay = relay(address, Duration::from_millis(150)).await;
    let token = world.join_token().await;
    let options = options(&world.state_dir("a"), &[(&relay.url, world.trust.clone())], Some(token), &world.engine);
    let mut node = Node::start(options, Clock::system()).await;
    node.until_state(NodeState::Idle).await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let world = World::new().await;
    let other = answering(StatusCode::OK, "", Validity::Now).await;
    let trust = Trust::Pinned { pem: other.ca_pem.clone() };
    let options = options(&world.state_dir("a"), &[(&world.url, trust)], None, &world.engine);
    let mut node = Node::start(options, Clock::system()).await;
    let snapshot = node.until("refused", |s| unreachable_because(s, "is not to be trusted")).await;
    assert_eq!(snapshot.state, NodeState::Enrolling);
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_called_expired() {
    let world = World::new().await;
    let server = answering(StatusCode::OK, "{}", Validity::Past).await;
    let mut node = node_at(&world, &server).await;
    node.until("refused", |s| unreachable_because(s, "expired")).await;
}

#[tokio::test]
async fn a_clock_that_is_a_day_off_costs_a_warning_and_nothing_else() {
    let world = World::new().await;
    for (name, hours, words) in [("a", -24, "hours behind"), ("b", 24, "hours ahead")] {
        let off = jiff::SignedDuration::from_hours(hours);
        let clock = Clock::manual(Clock::system().now().checked_add(off).unwrap());
        let _pump = turning(&clock);
        let token = world.join_token().await;
        let mut node = Node::start(world.options(name, Some(token)), clock).await;
        let warned = |s: &Snapshot| s.state == NodeState::Idle && s.warnings.iter().any(|w| w.contains(words));
        let snapshot = node.until(words, warned).await;
        assert!(snapshot.warnings.iter().any(|w| w.contains("timedatectl set-ntp true")), "{:?}", snapshot.warnings);
        node.drain().await;
    }
}
