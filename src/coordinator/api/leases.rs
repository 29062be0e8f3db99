//! What nodes report about their leases. Every call may be repeated, delayed or reordered without harm.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::coordinator::App;
use crate::coordinator::auth::NodeAuth;
use crate::coordinator::outputs::{Expected, OutputError};
use crate::coordinator::problem::{ApiError, Json, Path, Query, RawBody};
use crate::coordinator::store::{LogUpload, StoreError};
use crate::wire::lease::{
    EventsAccepted, LeaseChange, LeaseEnd, LeaseEvents, LogAccepted, OutputAccepted, OutputFinished, OutputProgress,
};
use crate::wire::{ErrorCode, LOG_MEDIA_TYPE, LeaseId, NodeId, Problem};

/// Events in one call.
const EVENTS_MAX: usize = 1000;
/// Longest text of a node's own that is kept with an event.
const SENTENCE_CHARS_MAX: usize = 1000;
/// Bytes of one log upload.
const LOG_UPLOAD_BYTES_MAX: usize = 1 << 20;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(events))
        .routes(routes!(logs))
        .routes(routes!(output_part))
        .routes(routes!(output))
}

/// What happened to a lease on its node, in order.
#[utoipa::path(
    post, path = "/v1/leases/{lease_id}/events", tag = "node", params(("lease_id" = LeaseId, Path)),
    request_body = LeaseEvents,
    responses((status = 200, body = EventsAccepted), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("session" = []))
)]
async fn events(
    State(app): State<App>,
    node: NodeAuth,
    Path(lease_id): Path<LeaseId>,
    Json(LeaseEvents { mut events }): Json<LeaseEvents>,
) -> Result<Json<EventsAccepted>, ApiError> {
    if events.len() > EVENTS_MAX {
        return Err(ApiError::new(ErrorCode::TooLarge, format!("the limit is {EVENTS_MAX} events at once")));
    }
    events.sort_by_key(|event| event.sequence);
    events.iter_mut().for_each(|event| clip(&mut event.what));
    let now = app.clock.now();
    let (through, changes) = app.store.report_events(node.node_id, lease_id, &events, app.paymaster(), now).await?;
    changes.announce(&app.wake);
    Ok(Json(EventsAccepted { through }))
}

/// Sentences for people are kept, books are not.
fn clip(what: &mut LeaseChange) {
    let text = match what {
        LeaseChange::Starting { image_digest } => image_digest,
        LeaseChange::Frozen { reason } => reason,
        LeaseChange::Ended { end: LeaseEnd::Failed { detail, .. }, .. } => detail,
        LeaseChange::Ended { end: LeaseEnd::Evicted { reason }, .. } => reason,
        LeaseChange::Ended { end: LeaseEnd::Unhealthy { detail }, .. } => detail,
        LeaseChange::Ended { end: LeaseEnd::ServiceFailed { service, .. }, .. }
        | LeaseChange::Restarted { service, .. } => service,
        LeaseChange::Pulling { .. }
        | LeaseChange::Running
        | LeaseChange::Thawed
        | LeaseChange::Collecting
        | LeaseChange::Ended { .. }
        | LeaseChange::Unknown => return,
    };
    if let Some((end, _)) = text.char_indices().nth(SENTENCE_CHARS_MAX) {
        text.truncate(end);
    }
}

/// Where a log upload belongs.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LogAt {
    /// Framed bytes of this lease's log before the body.
    offset: u64,
    /// Whether nothing follows.
    #[serde(default)]
    complete: bool,
}

/// A piece of a lease's log in frames. An empty body at offset 0 asks from where to go on.
#[utoipa::path(
    post, path = "/v1/leases/{lease_id}/logs", tag = "node", params(("lease_id" = LeaseId, Path), LogAt),
    request_body(content = Vec<u8>, content_type = "application/vnd.fizz.log-frames"),
    responses((status = 200, body = LogAccepted), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("session" = []))
)]
async fn logs(
    State(app): State<App>,
    node: NodeAuth,
    Path(lease_id): Path<LeaseId>,
    Query(at): Query<LogAt>,
    headers: HeaderMap,
    RawBody(bytes): RawBody,
) -> Result<Json<LogAccepted>, ApiError> {
    if bytes.len() > LOG_UPLOAD_BYTES_MAX {
        return Err(ApiError::new(ErrorCode::TooLarge, format!("the limit is {LOG_UPLOAD_BYTES_MAX} bytes at once")));
    }
    let media_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    if !bytes.is_empty() && media_type.is_some_and(|m| m != LOG_MEDIA_TYPE.as_bytes()) {
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, format!("logs are sent as {LOG_MEDIA_TYPE}")));
    }
    let upload = LogUpload { offset: at.offset, bytes: &bytes, complete: at.complete };
    let (next_offset, job_id) = app.store.append_log(node.node_id, lease_id, &upload).await?;
    app.wake.job_changed(job_id);
    Ok(Json(LogAccepted { next_offset }))
}

/// Which part of which tar.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PartAt {
    /// Bytes of the tar before the body.
    offset: u64,
    /// SHA-256 of the whole tar, hex.
    sha256: String,
}

/// A part of the output folder's tar, at most 8 MiB, durable when it is answered. An empty body asks from where to go on.
#[utoipa::path(
    post, path = "/v1/leases/{lease_id}/output/parts", tag = "node", params(("lease_id" = LeaseId, Path), PartAt),
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses((status = 200, body = OutputProgress), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("session" = []))
)]
async fn output_part(
    State(app): State<App>,
    node: NodeAuth,
    Path(lease_id): Path<LeaseId>,
    Query(at): Query<PartAt>,
    RawBody(bytes): RawBody,
) -> Result<Json<OutputProgress>, ApiError> {
    let sha256 = checked_sha256(&at.sha256)?;
    let (job_id, limit_bytes) = app.store.output_limit(node.node_id, lease_id).await?;
    if let Some(recorded) = app.store.recorded_output(lease_id, &sha256).await? {
        return Ok(Json(OutputProgress { next_offset: recorded.bytes }));
    }
    let expected = Expected { job_id, lease_id, sha256: &sha256, limit_bytes };
    let next_offset = if bytes.is_empty() {
        app.outputs.next_offset(expected).await?
    } else {
        app.outputs.put_part(expected, at.offset, bytes).await?
    };
    Ok(Json(OutputProgress { next_offset }))
}

/// All parts of the output are sent; it is visible to the renter once it is whole and its SHA-256 is right.
#[utoipa::path(
    put, path = "/v1/leases/{lease_id}/output", tag = "node", params(("lease_id" = LeaseId, Path)), request_body = OutputFinished,
    responses((status = 200, body = OutputAccepted), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("session" = []))
)]
async fn output(
    State(app): State<App>,
    node: NodeAuth,
    Path(lease_id): Path<LeaseId>,
    Json(OutputFinished { bytes, sha256 }): Json<OutputFinished>,
) -> Result<Json<OutputAccepted>, ApiError> {
    let sha256 = checked_sha256(&sha256)?;
    // A task of its own: a caller that hangs up never leaves an object behind that is neither recorded nor removed.
    let taken = tokio::spawn(take_output(app, node.node_id, lease_id, sha256, bytes));
    taken.await.unwrap_or_else(|error| Err(ApiError::internal(&error))).map(Json)
}

async fn take_output(
    app: App,
    node_id: NodeId,
    lease_id: LeaseId,
    sha256: String,
    bytes: u64,
) -> Result<OutputAccepted, ApiError> {
    let (job_id, limit_bytes) = app.store.output_limit(node_id, lease_id).await?;
    if let Some(recorded) = app.store.recorded_output(lease_id, &sha256).await? {
        return Ok(OutputAccepted { bytes: recorded.bytes, sha256 });
    }
    let expected = Expected { job_id, lease_id, sha256: &sha256, limit_bytes };
    let stored = app.outputs.assemble(expected, bytes).await?;
    match app.store.record_output(node_id, lease_id, &stored, app.clock.now()).await {
        Ok((job_id, surplus)) => {
            if let Some(object) = surplus {
                app.outputs.remove(&object).await;
            }
            app.outputs.drop_parts(lease_id, None).await;
            app.wake.job_changed(job_id);
            Ok(OutputAccepted { bytes: stored.bytes, sha256 })
        }
        // Not recorded, and the object is this upload's alone: what an earlier upload delivered stays.
        Err(error @ (StoreError::Refused { .. } | StoreError::Busy)) => {
            app.outputs.remove(&stored.object).await;
            Err(error.into())
        }
        // Whether the row was written is not known.
        Err(error) => Err(error.into()),
    }
}

fn checked_sha256(announced: &str) -> Result<String, ApiError> {
    if announced.len() == 64 && announced.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(announced.to_ascii_lowercase());
    }
    Err(ApiError::new(ErrorCode::InvalidRequest, "a SHA-256 has 64 hexadecimal digits"))
}

impl From<OutputError> for ApiError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Gap { .. } => Self::new(ErrorCode::OffsetGap, error.to_string()),
            OutputError::TooLarge { .. } => Self::new(ErrorCode::TooLarge, error.to_string()),
            OutputError::Broken(_) | OutputError::WrongSum { .. } => {
                Self::new(ErrorCode::InvalidRequest, error.to_string())
            }
            OutputError::Folder { .. } | OutputError::Address { .. } | OutputError::Store(_) => Self::internal(&error),
        }
    }
}
