//! Sessions into running jobs: the renter's two streams and the node's two.
//!
//! Invariants
//! - Only a job that asked for it is reached, only by its own renter, and only while its container runs.
//! - A node sees sessions into its own leases and no others.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::coordinator::App;
use crate::coordinator::auth::{AccountAuth, NodeAuth};
use crate::coordinator::problem::{ApiError, Json, Path};
use crate::coordinator::relay::{Route, Session, Way};
use crate::wire::job::JobView;
use crate::wire::lease::LeasePhase;
use crate::wire::reach::{NewReach, PendingReach, ReachOpened, ReachWish};
use crate::wire::{AccountId, ErrorCode, JobId, LeaseId, NodeId, Problem, REACH_MEDIA_TYPE, ReachId};

/// Words of a command, and variables.
const WORDS_MAX: usize = 1000;
/// Bytes of a command and its variables together; they are kept while the session lasts.
const COMMAND_BYTES_MAX: usize = 64 << 10;
/// Bytes of a path.
const PATH_BYTES_MAX: usize = 4096;
/// When a job has ended, its session gets so long for its last words.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(open))
        .routes(routes!(renter_input))
        .routes(routes!(renter_output))
        .routes(routes!(node_input))
        .routes(routes!(node_output))
}

/// Begins a session into a running job: a command, or a copy. Both of its streams are to be opened within half a minute.
#[utoipa::path(
    post, path = "/v1/jobs/{job_id}/sessions", tag = "renter", params(("job_id" = JobId, Path)), request_body = NewReach,
    responses((status = 201, body = ReachOpened), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("api_key" = []))
)]
async fn open(
    State(app): State<App>,
    account: AccountAuth,
    Path(job_id): Path<JobId>,
    Json(new): Json<NewReach>,
) -> Result<Response, ApiError> {
    let job = app.store.job(account.account_id, job_id).await?;
    let (lease_id, node_id) = reachable(&job)?;
    check(&job, &new)?;
    let session_id = ReachId::generate(app.clock.now());
    let pending = PendingReach { session_id, lease_id, service: new.service, what: new.what };
    let route = Route { account_id: account.account_id, job_id, node_id, pending };
    let gone = until_gone(Arc::clone(&app), account.account_id, job_id, lease_id);
    app.relay.open(route, gone)?;
    app.wake.node_changed(node_id);
    Ok((StatusCode::CREATED, Json(ReachOpened { session_id })).into_response())
}

/// The lease and node through which a job is reached now.
fn reachable(job: &JobView) -> Result<(LeaseId, NodeId), ApiError> {
    if !job.spec.interactive {
        return Err(ApiError::new(ErrorCode::NotInteractive, ""));
    }
    let phase = job.lease.as_ref().filter(|_| !job.state.is_final()).map(|lease| lease.phase);
    match (&job.lease, phase) {
        (Some(lease), Some(LeasePhase::Running)) => Ok((lease.lease_id, lease.node_id)),
        (_, Some(LeasePhase::Frozen)) => {
            Err(ApiError::new(ErrorCode::NotRunning, "its node has frozen it for its owner's sake; it goes on later"))
        }
        _ => Err(ApiError::new(ErrorCode::NotRunning, job.why.clone())),
    }
}

fn check(job: &JobView, new: &NewReach) -> Result<(), ApiError> {
    let refuse = |detail: String| Err(ApiError::new(ErrorCode::InvalidRequest, detail));
    if let Some(service) = &new.service
        && !job.spec.services.iter().any(|known| known.name == *service)
    {
        return refuse(format!("the job has no service '{service}'"));
    }
    match &new.what {
        ReachWish::Exec { command, env, workdir, .. } => {
            let words = command.iter().chain(env.keys()).chain(workdir);
            if command.is_empty() || command.len() + env.len() > WORDS_MAX {
                return refuse(format!("a command has 1 to {WORDS_MAX} words and variables"));
            }
            if words.chain(command.first()).any(|word| word.contains('\0')) || command[0].is_empty() {
                return refuse("no word of a command holds a zero byte, and its program has a name".to_owned());
            }
            let values = env.values().map(|value| value.expose().len());
            let bytes: usize = command.iter().chain(env.keys()).map(String::len).chain(values).sum();
            if bytes > COMMAND_BYTES_MAX || workdir.as_ref().is_some_and(|path| path.len() > PATH_BYTES_MAX) {
                return refuse(format!("a command and its variables have at most {COMMAND_BYTES_MAX} bytes"));
            }
            if env.keys().any(|name| name.is_empty() || name.contains('=')) {
                return refuse("the name of a variable is not empty and holds no '='".to_owned());
            }
            Ok(())
        }
        ReachWish::CopyOut { path } | ReachWish::CopyIn { path } => {
            if path.starts_with('/') && path.len() <= PATH_BYTES_MAX && !path.contains('\0') {
                return Ok(());
            }
            refuse(format!("a path in the job begins with '/' and has at most {PATH_BYTES_MAX} bytes"))
        }
        ReachWish::Unknown => refuse("this coordinator knows exec, copy_out and copy_in".to_owned()),
    }
}

/// Comes back, with a sentence, when the lease can be reached no more.
async fn until_gone(app: App, account: AccountId, job_id: JobId, lease: LeaseId) -> String {
    let mut changed = app.wake.watch_job(job_id);
    loop {
        let runs = match app.store.job(account, job_id).await {
            Ok(job) => job.lease.is_some_and(|now| {
                now.lease_id == lease && matches!(now.phase, LeasePhase::Running | LeasePhase::Frozen)
            }),
            // The database is away; the session needs none.
            Err(_) => true,
        };
        if !runs {
            tokio::time::sleep(LAST_WORDS).await;
            return "the job's container has ended".to_owned();
        }
        tokio::select! {
            () = changed.changed() => {}
            () = app.stopping.cancelled() => return "the coordinator is restarting; begin again in a moment".to_owned(),
        }
    }
}

/// What the renter sends: input, sizes of the terminal, the end of input. Answered when all of it is handed on.
#[utoipa::path(
    post, path = "/v1/jobs/{job_id}/sessions/{session_id}/input", tag = "renter",
    params(("job_id" = JobId, Path), ("session_id" = ReachId, Path)),
    request_body(content = Vec<u8>, content_type = "application/vnd.fizz.reach-frames"),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("api_key" = []))
)]
async fn renter_input(
    State(app): State<App>,
    account: AccountAuth,
    Path((job_id, session_id)): Path<(JobId, ReachId)>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let session = app.relay.of_renter(account.account_id, job_id, session_id)?;
    session.write(Way::ToNode, body.into_data_stream()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the job answers, as it comes; the last frame is an exit code or a sentence on why the session broke off.
#[utoipa::path(
    get, path = "/v1/jobs/{job_id}/sessions/{session_id}/output", tag = "renter",
    params(("job_id" = JobId, Path), ("session_id" = ReachId, Path)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/vnd.fizz.reach-frames"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")
    ),
    security(("api_key" = []))
)]
async fn renter_output(
    State(app): State<App>,
    account: AccountAuth,
    Path((job_id, session_id)): Path<(JobId, ReachId)>,
) -> Result<Response, ApiError> {
    stream(&app.relay.of_renter(account.account_id, job_id, session_id)?, Way::ToRenter)
}

/// What the renter of a session sends. Opening it takes the session up.
#[utoipa::path(
    get, path = "/v1/node/sessions/{session_id}/input", tag = "node", params(("session_id" = ReachId, Path)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/vnd.fizz.reach-frames"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")
    ),
    security(("session" = []))
)]
async fn node_input(
    State(app): State<App>,
    node: NodeAuth,
    Path(session_id): Path<ReachId>,
) -> Result<Response, ApiError> {
    stream(&app.relay.of_node(node.node_id, session_id)?, Way::ToNode)
}

/// What a session's command or copy answers. Answered when the renter has all of it.
#[utoipa::path(
    post, path = "/v1/node/sessions/{session_id}/output", tag = "node", params(("session_id" = ReachId, Path)),
    request_body(content = Vec<u8>, content_type = "application/vnd.fizz.reach-frames"),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("session" = []))
)]
async fn node_output(
    State(app): State<App>,
    node: NodeAuth,
    Path(session_id): Path<ReachId>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let session = app.relay.of_node(node.node_id, session_id)?;
    session.write(Way::ToRenter, body.into_data_stream()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn stream(session: &Arc<Session>, way: Way) -> Result<Response, ApiError> {
    let frames = Body::from_stream(session.read(way)?);
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(REACH_MEDIA_TYPE))], frames).into_response())
}
