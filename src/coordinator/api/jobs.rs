//! A renter's jobs.
//!
//! Invariant: somebody else's job is answered exactly as one that does not exist.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::coordinator::App;
use crate::coordinator::auth::AccountAuth;
use crate::coordinator::placement::Event;
use crate::coordinator::problem::{ApiError, Json, Path, Query};
use crate::coordinator::store::{LogPiece, NewJob, StoreError};
use crate::coordinator::validate;
use crate::coordinator::wake::Waiter;
use crate::wire::job::{JobList, JobView, SubmitJob};
use crate::wire::{AccountId, ErrorCode, IDEMPOTENCY_HEADER, JobId, LOG_MEDIA_TYPE, Problem};

const LIST_DEFAULT: u32 = 50;
const LIST_MAX: u32 = 500;
const KEY_BYTES_MAX: usize = 255;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(submit, list))
        .routes(routes!(show, stop))
        .routes(routes!(logs))
        .routes(routes!(output))
}

/// Submits a job. The same `Idempotency-Key` and body make the same job, however often they are sent.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "renter", request_body = SubmitJob,
    params(("idempotency-key" = Option<String>, Header, description = "Makes the call safe to repeat")),
    responses(
        (status = 201, body = JobView), (status = 200, body = JobView, description = "Submitted before"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")
    ),
    security(("api_key" = []))
)]
async fn submit(
    State(app): State<App>,
    account: AccountAuth,
    headers: HeaderMap,
    Json(SubmitJob { spec }): Json<SubmitJob>,
) -> Result<Response, ApiError> {
    let key = idempotency_key(&headers)?;
    let valid = validate::job(&spec).map_err(|e| ApiError::new(ErrorCode::InvalidJob, e.to_string()))?;
    let now = app.clock.now();
    let AccountAuth { account_id } = account;
    let new = NewJob { job_id: JobId::generate(now), account_id, spec: &spec, escrow: valid.escrow, key };
    let submitted = app.store.submit_job(&new, now).await?;
    if submitted.is_new {
        app.wake.match_jobs();
    }
    let status = if submitted.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(app.store.job(account_id, submitted.job_id).await?)).into_response())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_HEADER) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()));
    let detail = || format!("{IDEMPOTENCY_HEADER} must have 1 to {KEY_BYTES_MAX} printable ASCII characters");
    key.map(Some).ok_or_else(|| ApiError::new(ErrorCode::InvalidRequest, detail()))
}

/// Which jobs to list.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// At most so many, 1 to 500; 50 when absent.
    limit: Option<u32>,
    /// Only jobs older than this one.
    before: Option<JobId>,
}

/// The account's jobs, newest first.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "renter", params(Page),
    responses((status = 200, body = JobList), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("api_key" = []))
)]
async fn list(
    State(app): State<App>,
    account: AccountAuth,
    Query(page): Query<Page>,
) -> Result<Json<JobList>, ApiError> {
    let limit = page.limit.unwrap_or(LIST_DEFAULT).clamp(1, LIST_MAX);
    Ok(Json(JobList { jobs: app.store.jobs(account.account_id, page.before, limit).await? }))
}

/// One job.
#[utoipa::path(
    get, path = "/v1/jobs/{job_id}", tag = "renter", params(("job_id" = JobId, Path)),
    responses((status = 200, body = JobView), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("api_key" = []))
)]
async fn show(
    State(app): State<App>,
    account: AccountAuth,
    Path(job_id): Path<JobId>,
) -> Result<Json<JobView>, ApiError> {
    Ok(Json(app.store.job(account.account_id, job_id).await?))
}

/// Stops a job: one that waits is cancelled at once, one that runs when its node has stopped it. Repeats are harmless.
#[utoipa::path(
    delete, path = "/v1/jobs/{job_id}", tag = "renter", params(("job_id" = JobId, Path)),
    responses((status = 200, body = JobView), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("api_key" = []))
)]
async fn stop(
    State(app): State<App>,
    account: AccountAuth,
    Path(job_id): Path<JobId>,
) -> Result<Json<JobView>, ApiError> {
    // Whose job it is is checked first; it never changes.
    app.store.job(account.account_id, job_id).await?;
    let now = app.clock.now();
    if let Ok(changes) = app.store.advance_job(job_id, Event::StopRequested, app.paymaster(), now).await? {
        changes.announce(&app.wake);
    }
    Ok(Json(app.store.job(account.account_id, job_id).await?))
}

/// From where to read a log, and whether to wait for more.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LogFrom {
    /// Framed bytes to skip.
    #[serde(default)]
    offset: u64,
    /// Whether to go on until the job is final.
    #[serde(default)]
    follow: bool,
}

/// A job's whole log in frames, over all its leases; with `follow` until the job is final.
#[utoipa::path(
    get, path = "/v1/jobs/{job_id}/logs", tag = "renter", params(("job_id" = JobId, Path), LogFrom),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/vnd.fizz.log-frames"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")
    ),
    security(("api_key" = []))
)]
async fn logs(
    State(app): State<App>,
    account: AccountAuth,
    Path(job_id): Path<JobId>,
    Query(from): Query<LogFrom>,
) -> Result<Response, ApiError> {
    // Watched before the first read, so that nothing between reading and waiting is missed.
    let changed = app.wake.watch_job(job_id);
    let first = app.store.read_log(account.account_id, job_id, from.offset).await?;
    let reader = LogReader {
        app: Arc::clone(&app),
        account_id: account.account_id,
        job_id,
        offset: from.offset,
        follow: from.follow,
        changed,
        at: At::Piece(first),
    };
    let frames = Body::from_stream(stream::try_unfold(reader, LogReader::next));
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(LOG_MEDIA_TYPE))], frames).into_response())
}

/// Reads a log at the pace of its reader: one piece in memory at a time.
struct LogReader {
    app: App,
    account_id: AccountId,
    job_id: JobId,
    offset: u64,
    follow: bool,
    changed: Waiter<JobId>,
    at: At,
}

enum At {
    Piece(LogPiece),
    Reading,
    Ended,
}

impl LogReader {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, StoreError> {
        loop {
            let piece = match std::mem::replace(&mut self.at, At::Reading) {
                At::Ended => return Ok(None),
                At::Piece(piece) => piece,
                At::Reading => self.app.store.read_log(self.account_id, self.job_id, self.offset).await?,
            };
            if piece.is_last {
                self.at = At::Ended;
            }
            if !piece.bytes.is_empty() {
                self.offset += piece.bytes.len() as u64;
                return Ok(Some((piece.bytes, self)));
            }
            if piece.is_last || !self.follow {
                return Ok(None);
            }
            tokio::select! {
                () = self.changed.changed() => {}
                () = self.app.stopping.cancelled() => return Ok(None),
            }
        }
    }
}

/// The output folder as a tar.
#[utoipa::path(
    get, path = "/v1/jobs/{job_id}/output", tag = "renter", params(("job_id" = JobId, Path)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/x-tar"), (status = "4XX", body = Problem, content_type = "application/problem+json")
    ),
    security(("api_key" = []))
)]
async fn output(State(app): State<App>, account: AccountAuth, Path(job_id): Path<JobId>) -> Result<Response, ApiError> {
    let Some(stored) = app.store.job_output(account.account_id, job_id).await? else {
        return Err(ApiError::new(ErrorCode::NotFound, format!("job {job_id} has handed back no output")));
    };
    let body = Body::from_stream(app.outputs.get(&stored).await?);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/x-tar")),
        (CONTENT_LENGTH, HeaderValue::from(stored.bytes)),
    ];
    let sum = HeaderValue::from_str(&stored.sha256).map(|sum| [("x-fizz-sha256", sum)]);
    match sum {
        Ok(sum) => Ok((headers, sum, body).into_response()),
        Err(_) => Ok((headers, body).into_response()),
    }
}
