//! The state folder: one agent, one key, one database, each refused with a sentence when it cannot be trusted.

use std::os::unix::fs::PermissionsExt as _;

use fizz::agent::{self, AgentOptions};
use fizz::clock::Clock;
use fizz::control::{Answer, Client, Request};
use fizz::http::{Trust, install_crypto_provider};
use fizz::paths::StateDir;
use fizz::runtime::fake::FakeRuntime;
use fizz::wire::node::NodeState;

use crate::world::{Node, options, read};

fn alone() -> (tempfile::TempDir, StateDir, AgentOptions) {
    install_crypto_provider();
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path().join("node"));
    let engine = FakeRuntime::new(Clock::system());
    // Nobody listens there.
    let options = options(&state, &[("https://127.0.0.1:1", Trust::System)], None, &engine);
    (dir, state, options)
}

async fn refusal(options: AgentOptions) -> String {
    agent::build(options, Clock::system()).await.unwrap_err().to_string()
}

#[tokio::test]
async fn two_agents_on_one_folder_are_told_apart() {
    let (_dir, _state, options) = alone();
    let first = agent::build(options.clone(), Clock::system()).await.unwrap();
    let error = refusal(options.clone()).await;
    assert!(error.contains(&format!("another fizz (process {})", std::process::id())), "{error}");
    assert!(error.contains("FIZZ_STATE_DIR"), "{error}");
    drop(first);
    agent::build(options, Clock::system()).await.unwrap();
}

#[tokio::test]
async fn a_key_that_others_may_read_or_that_is_damaged_stops_the_start() {
    let (_dir, state, options) = alone();
    drop(agent::build(options.clone(), Clock::system()).await.unwrap());
    std::fs::set_permissions(state.identity(), std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = refusal(options.clone()).await;
    assert!(error.contains(&format!("chmod 600 {}", state.identity().display())), "{error}");
    std::fs::set_permissions(state.identity(), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(state.identity(), "nonsense").unwrap();
    let error = refusal(options).await;
    assert!(error.contains("is damaged") && error.contains("mv "), "{error}");
}

#[tokio::test]
async fn a_damaged_database_means_the_safe_state_and_stays_as_it_is() {
    let (_dir, state, options) = alone();
    drop(agent::build(options.clone(), Clock::system()).await.unwrap());
    let garbage = vec![0x5a_u8; 8192];
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", state.journal().display()));
    }
    std::fs::write(state.journal(), &garbage).unwrap();
    let mut node = Node::start(options, Clock::system()).await;
    let snapshot = node.until_state(NodeState::Paused).await;
    let why = snapshot.why.unwrap();
    assert!(why.contains("damaged") && why.contains("mv "), "{why}");
    assert_eq!(read(&state.journal()), garbage, "a file that cannot be trusted is kept");
    // It says so over the control socket too, and stops when asked.
    let Answer::Snapshot { snapshot } = Client::ask(&state.control_socket(), Request::Snapshot).await.unwrap() else {
        panic!("no snapshot")
    };
    assert_eq!(snapshot.state, NodeState::Paused);
    assert_eq!(Client::ask(&state.control_socket(), Request::Drain).await.unwrap(), Answer::Draining);
    crate::world::within(node.task).await.unwrap();
}

async fn open(state: &StateDir) -> sqlx::SqliteConnection {
    use sqlx::ConnectOptions as _;
    sqlx::sqlite::SqliteConnectOptions::new().filename(state.journal()).connect().await.unwrap()
}

#[tokio::test]
async fn a_database_of_a_newer_fizz_means_the_safe_state() {
    let (_dir, state, options) = alone();
    drop(agent::build(options.clone(), Clock::system()).await.unwrap());
    let mut other = open(&state).await;
    sqlx::query("PRAGMA user_version = 999").execute(&mut other).await.unwrap();
    drop(other);
    let mut node = Node::start(options, Clock::system()).await;
    let why = node.until_state(NodeState::Paused).await.why.unwrap();
    assert!(why.contains("newer fizz") && why.contains("update fizz"), "{why}");
}

#[tokio::test]
async fn a_locked_database_means_the_safe_state() {
    let (_dir, state, options) = alone();
    drop(agent::build(options.clone(), Clock::system()).await.unwrap());
    let mut other = open(&state).await;
    for statement in ["PRAGMA journal_mode = DELETE", "BEGIN EXCLUSIVE"] {
        sqlx::query(statement).execute(&mut other).await.unwrap();
    }
    let mut node = Node::start(options, Clock::system()).await;
    let why = node.until_state(NodeState::Paused).await.why.unwrap();
    assert!(why.contains("in use by another process") && why.contains("fuser"), "{why}");
}

#[tokio::test]
async fn without_a_coordinator_the_start_says_what_to_write() {
    let (_dir, _state, mut options) = alone();
    options.coordinators.clear();
    let error = refusal(options).await;
    assert!(error.contains("coordinators = [{ url ="), "{error}");
}
