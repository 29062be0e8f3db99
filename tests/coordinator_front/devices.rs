//! Device codes: a person approves a machine.

use fizz::http::HttpError;
use fizz::wire::enroll::*;
use fizz::wire::{ErrorCode, Secret};

use crate::harness::{Machine, World, code};

async fn begin(world: &World, machine: &Machine) -> PendingEnrollment {
    let status = machine.enroll(&world.client, None).await.unwrap();
    let EnrollStatus::Pending(pending) = status else { panic!("{status:?}") };
    pending
}

async fn poll(world: &World, pending: &PendingEnrollment) -> EnrollStatus {
    poll_with(world, pending, &pending.poll_token).await.unwrap()
}

async fn poll_with(world: &World, pending: &PendingEnrollment, token: &Secret) -> Result<EnrollStatus, HttpError> {
    let path = format!("/v1/enrollments/{}/poll", pending.enrollment_id);
    world.client.post(&path).json(&EnrollPoll { poll_token: token.clone() }).receive().await
}

async fn decide(world: &World, user_code: &str, decision: &str) -> Result<EnrollmentView, HttpError> {
    let path = format!("/v1/account/enrollments/{user_code}/{decision}");
    world.client.post(&path).bearer(&world.account.api_key).receive().await
}

async fn page(world: &World, method: http::Method, path: &str, form: &str) -> (u16, String, String) {
    let pem = world.running.ca_pem().unwrap();
    let authority = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
    let browser = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let answer = browser
        .request(method, world.running.url().join(path).unwrap())
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.to_owned())
        .send()
        .await
        .unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    (answer.status().as_u16(), policy, answer.text().await.unwrap())
}

#[tokio::test]
async fn an_approved_machine_is_a_node_of_the_account_and_polls_find_out() {
    let world = World::new().await;
    let machine = Machine::new(1);
    let pending = begin(&world, &machine).await;
    assert_eq!(begin(&world, &machine).await, pending, "asking again finds the same enrolment");
    assert_eq!(pending.user_code.len(), 9);
    assert!(pending.verification_url_complete.ends_with(&format!("/activate?code={}", pending.user_code)));
    assert!(matches!(poll(&world, &pending).await, EnrollStatus::Pending(_)));
    let typed = pending.user_code.to_lowercase().replace('-', "");
    let view = decide(&world, &typed, "approve").await.unwrap();
    assert_eq!((view.decision, view.node_name.as_str()), (EnrollDecision::Approved, "machine-1"));
    let node_id = view.node_id.unwrap();
    assert_eq!(poll(&world, &pending).await, EnrollStatus::Approved { node_id });
    assert_eq!(decide(&world, &typed, "approve").await.unwrap(), view, "approving twice is harmless");
    assert_eq!(code(decide(&world, &typed, "deny").await), ErrorCode::Conflict);
    assert_eq!(machine.enroll(&world.client, None).await.unwrap(), EnrollStatus::Approved { node_id });
    machine.session(&world.client, node_id).await;
}

#[tokio::test]
async fn a_denied_machine_stays_out() {
    let world = World::new().await;
    let pending = begin(&world, &Machine::new(1)).await;
    let view = decide(&world, &pending.user_code, "deny").await.unwrap();
    assert_eq!((view.decision, view.node_id), (EnrollDecision::Denied, None));
    assert_eq!(poll(&world, &pending).await, EnrollStatus::Denied);
    assert_eq!(code(decide(&world, &pending.user_code, "approve").await), ErrorCode::Conflict);
}

#[tokio::test]
async fn a_code_runs_out_after_fifteen_minutes() {
    let world = World::new().await;
    let machine = Machine::new(1);
    let pending = begin(&world, &machine).await;
    world.turn(15 * 60 - 1);
    assert!(matches!(poll(&world, &pending).await, EnrollStatus::Pending(_)));
    world.turn(1);
    assert_eq!(poll(&world, &pending).await, EnrollStatus::Expired);
    let refused = decide(&world, &pending.user_code, "approve").await;
    assert!(refused.as_ref().unwrap_err().to_string().contains("has run out"), "{refused:?}");
    assert_eq!(code(refused), ErrorCode::NotFound);
    assert_ne!(begin(&world, &machine).await.user_code, pending.user_code, "asking again gives a fresh code");
}

#[tokio::test]
async fn only_the_machine_that_asked_may_poll() {
    let world = World::new().await;
    let (mine, other) = (begin(&world, &Machine::new(1)).await, begin(&world, &Machine::new(2)).await);
    for wrong in [&other.poll_token, &Secret::new("fzp_wrong"), &Secret::new("")] {
        assert_eq!(code(poll_with(&world, &mine, wrong).await), ErrorCode::Unauthorized);
    }
}

#[tokio::test]
async fn the_page_shows_the_machine_and_lets_its_owner_approve() {
    let world = World::new().await;
    let mut machine = Machine::new(1);
    machine.name = "<b>evil</b> {{code}}".into();
    let pending = begin(&world, &machine).await;
    let get = http::Method::GET;
    let (status, policy, html) = page(&world, get, &format!("/activate?code={}", pending.user_code), "").await;
    assert_eq!(status, 200);
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(html.contains(&pending.user_code) && html.contains("&lt;b&gt;evil&lt;/b&gt; &#123;&#123;code}}"), "{html}");
    assert!(!html.contains("<script") && !html.contains("<b>evil"), "{html}");

    let form = |key: &str, decision: &str| format!("code={}&api_key={key}&decision={decision}", pending.user_code);
    let post = http::Method::POST;
    let (status, _, html) = page(&world, post.clone(), "/activate", &form("fzk_wrong", "approve")).await;
    assert_eq!(status, 401);
    assert!(html.contains("no account has this API key") && html.contains("role=\"alert\""), "{html}");
    let key = world.account.api_key.expose();
    let (status, _, html) = page(&world, post, "/activate", &form(key, "approve")).await;
    assert_eq!(status, 200, "{html}");
    assert!(html.contains("now belongs to your account") && !html.contains(key), "{html}");
    assert!(matches!(poll(&world, &pending).await, EnrollStatus::Approved { .. }));
}

#[tokio::test]
async fn guessing_codes_is_slowed_down() {
    let world = World::new().await;
    let mut codes = Vec::new();
    for _ in 0..25 {
        codes.push(code(decide(&world, "BCDFGHJK", "approve").await));
    }
    assert_eq!(codes[0], ErrorCode::NotFound);
    assert_eq!(codes[24], ErrorCode::RateLimited);
    let (status, _, html) = page(&world, http::Method::GET, "/activate?code=BCDF-GHJK", "").await;
    assert_eq!(status, 429, "{html}");
    world.turn(60);
    assert_eq!(code(decide(&world, "BCDFGHJK", "approve").await), ErrorCode::NotFound);
}
