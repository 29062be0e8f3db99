//! Sessions and signed reports.

use std::time::Duration;

use fizz::http::HttpError;
use fizz::wire::enroll::SessionGrant;
use fizz::wire::enroll::{NonceGrant, NonceRequest, SessionRequest};
use fizz::wire::signed::{REPORT_SKEW_SECONDS_MAX, ReportKind, SignedReport};
use fizz::wire::{ErrorCode, NodeId, Nonce, Secret};
use serde_json::json;

use crate::harness::{Machine, World, code};

async fn open(world: &World, request: &SessionRequest) -> Result<SessionGrant, HttpError> {
    world.client.post("/v1/sessions").json(request).receive().await
}

async fn put_inventory(world: &World, session: &Secret, report: &SignedReport) -> Result<(), HttpError> {
    world.client.put("/v1/node/inventory").bearer(session).json(report).done().await
}

fn inventory(cpu_millis: u32) -> String {
    json!({
        "host": {"os": "Debian", "kernel": "6", "architecture": "amd64", "cpu_model": "x", "cpu_cores": 2, "cpu_threads": 2,
                 "memory_bytes": 1 << 30, "disk_bytes_free": 1 << 30},
        "gpus": [], "engine": {"name": "docker", "version": "28", "api_version": "1.48"},
        "offer": {"cpu_millis": cpu_millis, "memory_bytes": 1 << 29, "disk_bytes": 1 << 29, "gpus": 0, "price_min": 100_000},
    })
    .to_string()
}

#[tokio::test]
async fn a_signed_nonce_opens_one_session() {
    let world = World::new().await;
    let (machine, node_id) = world.node(1).await;
    let request = machine.session_request(node_id, machine.nonce(&world.client, node_id).await.nonce);
    let grant = open(&world, &request).await.unwrap();
    assert_eq!(grant.expires_at.duration_since(grant.server_time).as_secs(), 3600);
    assert_eq!(code(open(&world, &request).await), ErrorCode::NonceRejected, "a nonce is accepted once");
}

#[tokio::test]
async fn a_nonce_lives_two_minutes_and_belongs_to_its_node() {
    let world = World::new().await;
    let (first, first_id) = world.node(1).await;
    let (second, second_id) = world.node(2).await;
    let nonce = first.nonce(&world.client, first_id).await.nonce;
    assert_eq!(code(open(&world, &second.session_request(second_id, nonce)).await), ErrorCode::NonceRejected);
    world.turn(120);
    assert_eq!(code(open(&world, &first.session_request(first_id, nonce)).await), ErrorCode::NonceRejected);
    let made_up = first.session_request(first_id, Nonce::from_bytes([9; 16]));
    assert_eq!(code(open(&world, &made_up).await), ErrorCode::NonceRejected);
}

#[tokio::test]
async fn a_wrong_signature_opens_nothing_and_does_not_use_up_the_nonce() {
    let world = World::new().await;
    let (machine, node_id) = world.node(1).await;
    let nonce = machine.nonce(&world.client, node_id).await.nonce;
    let forged = Machine::new(2).session_request(node_id, nonce);
    assert_eq!(code(open(&world, &forged).await), ErrorCode::BadSignature);
    let mut altered = machine.session_request(node_id, nonce);
    altered.agent_version = "9.9.9".into();
    assert_eq!(code(open(&world, &altered).await), ErrorCode::BadSignature);
    assert!(open(&world, &machine.session_request(node_id, nonce)).await.is_ok());
}

#[tokio::test]
async fn an_unknown_node_gets_no_nonce() {
    let world = World::new().await;
    let stranger = NonceRequest { node_id: NodeId::generate(world.clock.now()) };
    let refused = world.client.post("/v1/sessions/nonce").json(&stranger).receive::<NonceGrant>().await;
    assert!(refused.as_ref().unwrap_err().to_string().contains("fizz enroll"), "{refused:?}");
    assert_eq!(code(refused), ErrorCode::NotFound);
}

#[tokio::test]
async fn a_session_ends_after_an_hour() {
    let world = World::new().await;
    let (machine, node_id) = world.node(1).await;
    let session = machine.session(&world.client, node_id).await;
    world.turn(3599);
    let report = machine.report(ReportKind::Inventory, node_id, 1, world.clock.now(), &inventory(2000));
    put_inventory(&world, &session, &report).await.unwrap();
    world.turn(1);
    let report = machine.report(ReportKind::Inventory, node_id, 2, world.clock.now(), &inventory(2000));
    assert_eq!(code(put_inventory(&world, &session, &report).await), ErrorCode::SessionExpired);
}

#[tokio::test]
async fn each_credential_opens_only_its_own_doors() {
    let world = World::new().await;
    let (machine, node_id) = world.node(1).await;
    let session = machine.session(&world.client, node_id).await;
    let report = machine.report(ReportKind::Inventory, node_id, 1, world.clock.now(), &inventory(2000));
    for wrong in [&world.account.api_key, world.running.admin_token(), &Secret::new("x"), &Secret::new("")] {
        assert_eq!(code(put_inventory(&world, wrong, &report).await), ErrorCode::Unauthorized);
    }
    let made_up = Secret::new("fzs_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(code(put_inventory(&world, &made_up, &report).await), ErrorCode::SessionExpired);
    for wrong in [&session, &world.account.api_key, &Secret::new("fza_guess")] {
        let refused = world.client.get("/metrics").bearer(wrong).done().await;
        assert_eq!(code(refused), ErrorCode::Unauthorized);
    }
}

#[tokio::test]
async fn a_signed_report_is_accepted_once_however_long_one_waits() {
    let world = World::new().await;
    let (machine, node_id) = world.node(1).await;
    let session = machine.session(&world.client, node_id).await;
    // Made by a clock that runs ahead as far as allowed: it stays in time for twice the allowance.
    let ahead = Duration::from_secs(REPORT_SKEW_SECONDS_MAX.unsigned_abs());
    let at = world.clock.now().checked_add(ahead).unwrap();
    let report = machine.report(ReportKind::Inventory, node_id, 1, at, &inventory(2000));
    put_inventory(&world, &session, &report).await.unwrap();
    for _ in 0..13 {
        let again = code(put_inventory(&world, &session, &report).await);
        assert!(matches!(again, ErrorCode::NonceRejected | ErrorCode::ClockSkew), "{again:?}");
        world.turn(50);
        world.running.app().store.ping().await.unwrap();
    }
    assert_eq!(code(put_inventory(&world, &session, &report).await), ErrorCode::ClockSkew);
}

#[tokio::test]
async fn a_report_with_another_body_kind_or_key_is_refused() {
    let world = World::new().await;
    let (machine, node_id) = world.node(1).await;
    let session = machine.session(&world.client, node_id).await;
    let now = world.clock.now();
    let mut altered = machine.report(ReportKind::Inventory, node_id, 1, now, &inventory(1000));
    altered.body = inventory(2000);
    let other_kind = machine.report(ReportKind::Benchmarks, node_id, 1, now, &inventory(1000));
    let other_key = Machine::new(2).report(ReportKind::Inventory, node_id, 1, now, &inventory(1000));
    for bad in [&altered, &other_kind, &other_key] {
        assert_eq!(code(put_inventory(&world, &session, bad).await), ErrorCode::BadSignature);
    }
}

#[tokio::test]
async fn a_clock_a_day_off_is_named_with_how_far() {
    let world = World::new().await;
    let (machine, node_id) = world.node(1).await;
    let session = machine.session(&world.client, node_id).await;
    let day = Duration::from_secs(24 * 3600);
    for (at, words) in [
        (world.clock.now().checked_add(day).unwrap(), "86400 s ahead"),
        (world.clock.now().checked_sub(day).unwrap(), "86400 s behind"),
    ] {
        let report = machine.report(ReportKind::Inventory, node_id, 1, at, &inventory(2000));
        let refused = put_inventory(&world, &session, &report).await;
        assert!(refused.as_ref().unwrap_err().to_string().contains(words), "{refused:?}");
        assert_eq!(code(refused), ErrorCode::ClockSkew);
    }
}

#[tokio::test]
async fn an_offer_beyond_the_machine_and_a_body_that_is_none_are_refused_with_the_reason() {
    let world = World::new().await;
    let (machine, node_id) = world.node(1).await;
    let session = machine.session(&world.client, node_id).await;
    for (nonce, body, words) in [(1, inventory(2001), "thousandths of a core"), (2, "{}".to_owned(), "missing field")] {
        let report = machine.report(ReportKind::Inventory, node_id, nonce, world.clock.now(), &body);
        let refused = put_inventory(&world, &session, &report).await;
        assert!(refused.as_ref().unwrap_err().to_string().contains(words), "{refused:?}");
        assert_eq!(code(refused), ErrorCode::InvalidRequest);
    }
}
