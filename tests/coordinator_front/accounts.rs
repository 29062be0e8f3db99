//! Accounts and the operator.

use fizz::wire::ErrorCode;
use fizz::wire::account::{JoinTokenCreated, NewJoinToken};

use crate::harness::{World, code};

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
    assert!(text.contains("fizz_database_bytes "), "{text}");
}
