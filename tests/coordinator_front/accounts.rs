//! Accounts and the operator.

use fizz::http::HttpError;
use fizz::wire::account::{AccountView, Deposit, JoinTokenCreated, LedgerView, NewJoinToken};
use fizz::wire::node::{NodeList, NodeState};
use fizz::wire::{AccountId, Amount, ErrorCode, IDEMPOTENCY_HEADER};

use crate::harness::{World, code};

async fn deposit(world: &World, account: AccountId, micros: i64, key: &str) -> Result<AccountView, HttpError> {
    let call = world.client.post(&format!("/v1/admin/accounts/{account}/deposits")).bearer(world.running.admin_token());
    let call = if key.is_empty() { call } else { call.header(IDEMPOTENCY_HEADER, key) };
    call.json(&Deposit { amount: Amount::from_micros(micros) }).receive().await
}

#[tokio::test]
async fn a_deposit_sent_twice_is_made_once_and_the_ledger_sums_to_zero() {
    let world = World::new().await;
    let id = world.account.account_id;
    let after = deposit(&world, id, 5_000_000, "first").await.unwrap();
    assert_eq!((after.name.as_str(), after.balance), ("ada", Amount::from_micros(5_000_000)));
    assert_eq!(deposit(&world, id, 5_000_000, "first").await.unwrap(), after);
    assert_eq!(code(deposit(&world, id, 6_000_000, "first").await), ErrorCode::Conflict);
    let view: AccountView = world.client.get("/v1/account").bearer(&world.account.api_key).receive().await.unwrap();
    assert_eq!(view, after);
    let admin = world.running.admin_token();
    let ledger: LedgerView = world.client.get("/v1/admin/ledger").bearer(admin).receive().await.unwrap();
    assert_eq!((ledger.sum, ledger.transactions, ledger.unbalanced), (Amount::ZERO, 1, 0));
}

#[tokio::test]
async fn a_deposit_of_nothing_below_nothing_to_nobody_or_without_a_key_is_refused() {
    let world = World::new().await;
    let id = world.account.account_id;
    for (micros, key) in [(0, "a"), (-1, "b"), (1, ""), (1, &"k".repeat(129))] {
        assert_eq!(code(deposit(&world, id, micros, key).await), ErrorCode::InvalidRequest, "{micros} {key:?}");
    }
    assert_eq!(code(deposit(&world, AccountId::generate(world.clock.now()), 1, "c").await), ErrorCode::NotFound);
}

#[tokio::test]
async fn the_operator_sees_every_node_by_name() {
    let world = World::new().await;
    let (second, _) = world.node(2).await;
    let (first, first_id) = world.node(1).await;
    let admin = world.running.admin_token();
    let list: NodeList = world.client.get("/v1/admin/nodes").bearer(admin).receive().await.unwrap();
    let names: Vec<_> = list.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, [first.name.as_str(), second.name.as_str()]);
    let node = &list.nodes[0];
    assert_eq!((node.node_id, node.state, node.online, node.leases), (first_id, NodeState::Enrolling, false, 0));
}

#[tokio::test]
async fn a_join_token_lives_between_a_minute_and_thirty_days() {
    let world = World::new().await;
    for expires_seconds in [0, 59, 30 * 24 * 3600 + 1, u64::MAX] {
        let call = world.client.post("/v1/account/join-tokens").bearer(&world.account.api_key);
        let refused = call.json(&NewJoinToken { expires_seconds }).receive::<JoinTokenCreated>().await;
        assert_eq!(code(refused), ErrorCode::InvalidRequest, "{expires_seconds}");
    }
    world.join_token(60).await;
    world.join_token(30 * 24 * 3600).await;
}

#[tokio::test]
async fn the_metrics_count_what_was_answered() {
    let world = World::new().await;
    world.client.get("/healthz").done().await.unwrap();
    let answer = world.client.get("/metrics").bearer(world.running.admin_token()).open().await.unwrap();
    let text = answer.text().await.unwrap();
    for line in [
        "fizz_http_requests_total{method=\"GET\",route=\"/healthz\",status=\"200\"} 1",
        "fizz_http_requests_total{method=\"POST\",route=\"/v1/admin/accounts\",status=\"200\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
    for line in ["fizz_nodes 0", "fizz_nodes_online 0", "fizz_leases_live 0", "fizz_ledger_sum_microusd 0"] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
    assert!(text.contains("fizz_database_bytes "), "{text}");
}
