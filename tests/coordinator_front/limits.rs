//! What one caller may ask for.

use fizz::wire::account::{AccountCreated, NewAccount};
use fizz::wire::{ErrorCode, PROBLEM_MEDIA_TYPE, Problem};
use http::Method;

use crate::harness::{World, code};

async fn raw(world: &World, method: Method, path: &str, body: Vec<u8>) -> (reqwest::Response, Problem) {
    let pem = world.running.ca_pem().unwrap();
    let authority = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let request = client.request(method, world.running.url().join(path).unwrap());
    let request = request.bearer_auth(world.running.admin_token().expose()).header("content-type", "application/json");
    let answer = request.body(body).send().await.unwrap();
    let head = http::Response::builder().status(answer.status());
    let (headers, text) = (answer.headers().clone(), answer.text().await.unwrap());
    let problem = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut rebuilt = head.body("").unwrap();
    *rebuilt.headers_mut() = headers;
    (rebuilt.into(), problem)
}

#[tokio::test]
async fn every_refusal_is_a_problem_with_a_code_a_request_id_and_safe_headers() {
    let world = World::new().await;
    let big = vec![b' '; (1 << 20) + 1];
    for (method, path, body, expected) in [
        (Method::GET, "/nowhere", vec![], ErrorCode::NotFound),
        (Method::DELETE, "/healthz", vec![], ErrorCode::MethodNotAllowed),
        (Method::POST, "/v1/admin/accounts", b"{nonsense".to_vec(), ErrorCode::InvalidRequest),
        (Method::POST, "/v1/admin/accounts", b"{}".to_vec(), ErrorCode::InvalidRequest),
        (Method::POST, "/v1/admin/accounts", b"\xff\xfe".to_vec(), ErrorCode::InvalidRequest),
        (Method::POST, "/v1/admin/accounts", big, ErrorCode::TooLarge),
        (Method::POST, "/v1/enrollments/not-an-id/poll", b"{\"poll_token\":\"x\"}".to_vec(), ErrorCode::NotFound),
    ] {
        let (answer, problem) = raw(&world, method, path, body).await;
        assert_eq!(problem.code, expected, "{path}: {problem:?}");
        assert_eq!(answer.status().as_u16(), expected.status());
        assert_eq!(answer.headers()["content-type"], PROBLEM_MEDIA_TYPE);
        assert_eq!(answer.headers()["x-request-id"].len(), 16);
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    }
}

#[tokio::test]
async fn a_body_that_hides_its_size_is_cut_off_at_the_limit() {
    let world = World::new().await;
    let pieces = futures_util::stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(vec![b' '; 64 << 10])));
    let call = world.client.post("/v1/admin/accounts").bearer(world.running.admin_token());
    let call = call.body("application/json", reqwest::Body::wrap_stream(pieces));
    assert_eq!(code(call.done().await), ErrorCode::TooLarge);
}

#[tokio::test]
async fn another_media_type_is_refused_as_such() {
    let world = World::new().await;
    let call = world.client.post("/v1/admin/accounts").bearer(world.running.admin_token()).body("text/plain", "{}");
    assert_eq!(code(call.done().await), ErrorCode::UnsupportedMediaType);
}

#[tokio::test]
async fn names_must_be_names() {
    let world = World::new().await;
    for name in ["", "   ", "a\nb", &"x".repeat(64)] {
        let call = world.client.post("/v1/admin/accounts").bearer(world.running.admin_token());
        let refused = call.json(&NewAccount { name: name.into() }).receive::<AccountCreated>().await;
        assert_eq!(code(refused), ErrorCode::InvalidRequest, "{name:?}");
    }
}

#[tokio::test]
async fn a_credential_that_asks_too_often_waits_and_others_do_not() {
    let world = World::with(|config| config.requests_per_minute_per_token = 60).await;
    let ask = |token: fizz::wire::Secret| {
        let client = world.client.clone();
        async move { client.get("/metrics").bearer(&token).done().await }
    };
    let admin = world.running.admin_token().clone();
    let mut refused = None;
    for _ in 0..10 {
        if let Err(error) = ask(admin.clone()).await {
            refused = Some(error);
        }
    }
    let problem = refused.as_ref().and_then(|error| error.problem()).unwrap();
    assert_eq!((problem.code, problem.retry_after_seconds), (ErrorCode::RateLimited, Some(1)));
    assert_eq!(code(ask(world.account.api_key.clone()).await), ErrorCode::Unauthorized, "another credential passes");
    world.turn(1);
    ask(admin.clone()).await.unwrap();
    assert_eq!(code(ask(admin).await), ErrorCode::RateLimited);
}

#[tokio::test]
async fn an_address_that_asks_too_often_waits_whatever_its_credentials_but_health_is_always_told() {
    let world = World::with(|config| config.requests_per_minute_per_address = 100).await;
    let mut last = None;
    for n in 0..12 {
        let token = fizz::wire::Secret::new(format!("fzk_{n}"));
        last = Some(code(world.client.get("/metrics").bearer(&token).done().await));
    }
    assert_eq!(last, Some(ErrorCode::RateLimited));
    world.client.get("/healthz").done().await.unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_is_answered_with_a_timeout() {
    let world = World::with(|config| config.request_timeout_seconds = 1).await;
    let endless = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let call = world.client.post("/v1/admin/accounts").bearer(world.running.admin_token());
    let call = call.body("application/json", reqwest::Body::wrap_stream(endless));
    assert_eq!(code(call.done().await), ErrorCode::Timeout);
}
