//! What every request passes: its id, the rate limits, size and time limits, the panic catcher, headers and counts.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use super::limits::{Allowance, RateLimiter, allowance};
use super::problem::{ApiError, REQUEST_ID};
use super::secrets::{random_bytes, sha256};
use super::{App, CoordinatorConfig};
use crate::clock::Steady;
use crate::wire::ErrorCode;

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The rate limits of one coordinator.
#[derive(Debug)]
pub(crate) struct RateLimits {
    by_address: Mutex<RateLimiter<IpAddr>>,
    by_credential: Mutex<RateLimiter<[u8; 16]>>,
    by_guesser: Mutex<RateLimiter<IpAddr>>,
}

impl RateLimits {
    /// As configured; a tenth of a minute's calls may come at once.
    pub(crate) fn new(config: &CoordinatorConfig) -> Self {
        let limiter = |per_minute: u32| (per_minute, (per_minute / 10).max(1));
        let (address, credential) =
            (limiter(config.requests_per_minute_per_address), limiter(config.requests_per_minute_per_token));
        Self {
            by_address: Mutex::new(RateLimiter::new(address.0, address.1)),
            by_credential: Mutex::new(RateLimiter::new(credential.0, credential.1)),
            by_guesser: Mutex::new(RateLimiter::new(20, 20)),
        }
    }

    fn check(&self, address: IpAddr, headers: &HeaderMap, now: Steady) -> Result<(), ApiError> {
        lock(&self.by_address).check(network(address), now).map_err(refusal)?;
        if let Some(credential) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) {
            let mut key = [0; 16];
            key.copy_from_slice(&sha256(credential)[..16]);
            lock(&self.by_credential).check(key, now).map_err(refusal)?;
        }
        Ok(())
    }

    /// For calls that try a short code or ask for one: twenty a minute from one address.
    pub(crate) fn check_guess(&self, address: IpAddr, now: Steady) -> Result<(), ApiError> {
        lock(&self.by_guesser).check(network(address), now).map_err(refusal)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One subscriber has a whole IPv6 /64, so it is one caller.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

fn refusal(wait: Duration) -> ApiError {
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    ApiError::new(ErrorCode::RateLimited, format!("try again in {seconds} s")).retry_after(seconds)
}

/// Runs a request within its limits.
pub(crate) async fn guard(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let started = app.clock.steady();
    let id = hex::encode(random_bytes::<8>());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let span = tracing::debug_span!("request", %id, %method, route);
    let limited = REQUEST_ID.scope(id.clone(), limited(&app, peer.ip(), request, next)).instrument(span);
    let mut response = limited.await;
    add_headers(response.headers_mut(), &id);
    let took = app.clock.steady().since(started);
    app.metrics.observe(known(&method), &route, response.status().as_u16(), took);
    tracing::debug!(%id, %method, route, status = response.status().as_u16(), micros = took.as_micros(), "answered");
    response
}

async fn limited(app: &App, address: IpAddr, mut request: Request, next: Next) -> Response {
    let Allowance { body_bytes_max, time_max, counted } = allowance(request.method(), request.uri().path());
    if counted && let Err(refused) = app.limits.check(address, request.headers(), app.clock.steady()) {
        return refused.into_response();
    }
    match body_bytes_max {
        Some(max) if announced_bytes(request.headers()) > max => {
            return ApiError::new(ErrorCode::TooLarge, format!("the limit is {max} bytes")).into_response();
        }
        Some(max) => DefaultBodyLimit::max(max).apply(&mut request),
        None => DefaultBodyLimit::disable().apply(&mut request),
    }
    let time_max = time_max.unwrap_or(Duration::from_secs(app.config.request_timeout_seconds.max(1)));
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(time_max, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => panicked(&*panic).into_response(),
        Err(_) => {
            let detail = format!("it was given {} s", time_max.as_secs());
            ApiError::new(ErrorCode::Timeout, detail).into_response()
        }
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> ApiError {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("no text"), "a request handler panicked");
    ApiError::fault()
}

fn announced_bytes(headers: &HeaderMap) -> usize {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A method as a label: what a caller invents is one label.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

/// Headers for every answer; a handler's own value stays.
fn add_headers(headers: &mut HeaderMap, id: &str) {
    let fixed = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in fixed {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID_HEADER, id);
    }
}

/// The answer where no route fits.
pub(crate) async fn not_found(request: Request) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("no call has the path {}", shortened(request.uri().path())))
}

/// The answer where the route exists and the method does not.
pub(crate) async fn method_not_allowed(request: Request) -> ApiError {
    let (method, path) = (request.method(), shortened(request.uri().path()));
    ApiError::new(ErrorCode::MethodNotAllowed, format!("{path} does not take {method}"))
}

fn shortened(path: &str) -> String {
    path.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::wire::Problem;
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tower::ServiceExt as _;

    async fn broken() -> &'static str {
        panic!("a secret of the inside")
    }

    #[tokio::test]
    async fn a_panic_becomes_a_problem_that_tells_only_the_request_id() {
        crate::http::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let config = CoordinatorConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: folder.path().to_owned(),
            ..CoordinatorConfig::default()
        };
        let running = crate::coordinator::start(config, Clock::system()).await.unwrap();
        let guarded = from_fn_with_state(running.app().clone(), guard);
        let router: Router = Router::new().route("/broken", get(broken)).layer(guarded);
        let peer = ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 5)));
        let request = Request::get("/broken").extension(peer).body(Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        let problem: Problem = serde_json::from_slice(&to_bytes(answer.into_body(), 4096).await.unwrap()).unwrap();
        assert_eq!(problem.code, ErrorCode::Internal);
        assert_eq!(problem.detail, Some(format!("request id {id}")));
    }

    #[test]
    fn a_whole_ipv6_subscriber_is_one_caller_and_mapped_addresses_are_what_they_map() {
        let parse = |text: &str| network(text.parse().unwrap());
        assert_eq!(parse("2001:db8:1:2::1"), parse("2001:db8:1:2:ffff::9"));
        assert_ne!(parse("2001:db8:1:2::1"), parse("2001:db8:1:3::1"));
        assert_eq!(parse("::ffff:192.0.2.7"), parse("192.0.2.7"));
        assert_ne!(parse("192.0.2.7"), parse("192.0.2.8"));
    }
}
