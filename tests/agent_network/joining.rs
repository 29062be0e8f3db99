//! Joining a network by token and by code.

use fizz::agent::BenchmarkSource;
use fizz::agent::enroll::{EnrollOptions, EnrollStep, Enrollment};
use fizz::clock::Clock;
use fizz::control::{Answer, Client, LinkState, Request};
use fizz::wire::Secret;
use fizz::wire::node::NodeState;

use crate::world::{Node, World, within};

#[tokio::test]
async fn a_join_token_lets_the_node_in_and_the_snapshot_shows_it() {
    let world = World::new().await;
    let mut node = world.node("a").await;
    let snapshot = node.until("idle with its offer", |s| s.state == NodeState::Idle && s.offer.is_some()).await;
    assert!(snapshot.node_id.is_some());
    assert_eq!(snapshot.score, Some(7));
    assert!(matches!(snapshot.coordinator.state, LinkState::Connected { .. }));
    let socket = world.state_dir("a").control_socket();
    let Answer::Snapshot { snapshot: seen } = Client::ask(&socket, Request::Snapshot).await.unwrap() else {
        panic!("no snapshot")
    };
    assert_eq!((seen.node_id, seen.state), (snapshot.node_id, NodeState::Idle));
}

#[tokio::test]
async fn a_restarted_node_is_the_same_node_and_needs_no_token() {
    let world = World::new().await;
    let mut node = world.node("a").await;
    let first = node.until_state(NodeState::Idle).await.node_id;
    node.kill().await;
    let mut again = Node::start(world.options("a", None), Clock::system()).await;
    assert_eq!(again.until_state(NodeState::Idle).await.node_id, first);
}

#[tokio::test]
async fn without_a_token_a_person_approves_the_code_that_the_snapshot_shows() {
    let world = World::new().await;
    let mut node = Node::start(world.options("a", None), Clock::system()).await;
    let waiting = |s: &fizz::control::Snapshot| s.why.as_deref().is_some_and(|w| w.contains("enter the code"));
    let snapshot = node.until("waiting for approval", waiting).await;
    assert_eq!(snapshot.state, NodeState::Enrolling);
    let why = snapshot.why.unwrap();
    let code = why.rsplit(' ').next().unwrap();
    let path = format!("/v1/account/enrollments/{code}/approve");
    world.api().post(&path).bearer(&world.account.api_key).done().await.unwrap();
    node.until_state(NodeState::Idle).await;
}

#[tokio::test]
async fn the_command_line_enrols_step_by_step_and_again_without_harm() {
    let world = World::new().await;
    let options = |join_token| EnrollOptions {
        state_dir: world.state_dir("a"),
        name: "attic".to_owned(),
        coordinators: world.options("a", None).coordinators,
        join_token,
    };
    let mut enrollment = Enrollment::open(options(None), Clock::system()).await.unwrap();
    let EnrollStep::Approve(pending) = enrollment.next().await.unwrap() else { panic!("no code") };
    let path = format!("/v1/account/enrollments/{}/approve", pending.user_code);
    world.api().post(&path).bearer(&world.account.api_key).done().await.unwrap();
    let EnrollStep::Enrolled { node_id, already } = within(enrollment.next()).await.unwrap() else { panic!("not in") };
    assert!(!already);
    drop(enrollment);
    let mut again = Enrollment::open(options(None), Clock::system()).await.unwrap();
    assert_eq!(again.next().await.unwrap(), EnrollStep::Enrolled { node_id, already: true });
}

#[tokio::test]
async fn a_denied_code_is_told() {
    let world = World::new().await;
    let mut options = world.options("a", None);
    options.name = "cellar".to_owned();
    let mut enrollment = Enrollment::open(
        EnrollOptions {
            state_dir: options.state_dir,
            name: options.name,
            coordinators: options.coordinators,
            join_token: None,
        },
        Clock::system(),
    )
    .await
    .unwrap();
    let EnrollStep::Approve(pending) = enrollment.next().await.unwrap() else { panic!("no code") };
    let path = format!("/v1/account/enrollments/{}/deny", pending.user_code);
    world.api().post(&path).bearer(&world.account.api_key).done().await.unwrap();
    let error = within(enrollment.next()).await.unwrap_err().to_string();
    assert!(error.contains("denied") && error.contains("fizz enroll"), "{error}");
}

#[tokio::test]
async fn a_token_that_is_used_or_garbage_is_told_and_nothing_is_lost() {
    let world = World::new().await;
    let token = world.join_token().await;
    let mut first = Node::start(world.options("a", Some(token.clone())), Clock::system()).await;
    first.until_state(NodeState::Idle).await;
    for (name, token, words) in [("b", token, "has been used already"), ("c", Secret::new("fzj_garbage"), "not known")]
    {
        let mut node = Node::start(world.options(name, Some(token)), Clock::system()).await;
        let told = |s: &fizz::control::Snapshot| s.why.as_deref().is_some_and(|w| w.contains(words));
        let snapshot = node.until(words, told).await;
        assert_eq!(snapshot.state, NodeState::Enrolling);
        assert!(snapshot.why.unwrap().contains("fizz coordinator token create"));
    }
}

#[tokio::test]
async fn a_machine_that_cannot_be_measured_is_lent_without_a_score_and_says_why() {
    let world = World::new().await;
    let token = world.join_token().await;
    let mut options = world.options("a", Some(token));
    options.benchmark =
        BenchmarkSource::Child { program: "/nonexistent/fizz".into(), timeout: std::time::Duration::from_secs(5) };
    let mut node = Node::start(options, Clock::system()).await;
    let snapshot = node.until("idle with its offer", |s| s.state == NodeState::Idle && s.offer.is_some()).await;
    assert_eq!(snapshot.score, None);
    assert!(snapshot.warnings.iter().any(|w| w.starts_with("this machine has no score")), "{:?}", snapshot.warnings);
}

#[tokio::test]
async fn an_offer_larger_than_the_machine_pauses_the_node_and_names_the_key() {
    let world = World::new().await;
    let token = world.join_token().await;
    let mut options = world.options("a", Some(token));
    options.offer.cpus = Some("1024".parse().unwrap());
    let mut node = Node::start(options, Clock::system()).await;
    let snapshot = node.until_state(NodeState::Paused).await;
    assert!(snapshot.why.as_deref().is_some_and(|w| w.contains("offer.cpus")), "{:?}", snapshot.why);
}

#[tokio::test]
async fn a_network_that_does_not_know_the_node_is_shown_and_enrolling_again_joins_it() {
    let (old, new) = (World::new().await, World::new().await);
    let mut node = old.node("a").await;
    let known = node.until_state(NodeState::Idle).await.node_id.unwrap();
    node.drain().await;
    let mut options = old.options("a", None);
    options.coordinators = new.options("a", None).coordinators;
    let mut node = Node::start(options.clone(), Clock::system()).await;
    node.until("told to enrol", |s| s.warnings.iter().any(|w| w.contains("fizz enroll"))).await;
    node.drain().await;
    let mut enrollment = Enrollment::open(
        EnrollOptions {
            state_dir: options.state_dir.clone(),
            name: options.name.clone(),
            coordinators: options.coordinators.clone(),
            join_token: Some(new.join_token().await),
        },
        Clock::system(),
    )
    .await
    .unwrap();
    let EnrollStep::Enrolled { node_id, already } = enrollment.next().await.unwrap() else { panic!("not in") };
    assert!(!already && node_id != known);
    drop(enrollment);
    let mut node = Node::start(options, Clock::system()).await;
    node.until("without warnings", |s| s.state == NodeState::Idle && s.warnings.is_empty()).await;
}
