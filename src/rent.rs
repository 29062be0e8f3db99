//! The renter's client: submit a job, watch it, read its log, fetch its output.
//!
//! Invariants
//! - Submitting may be repeated: the idempotency key makes the coordinator answer with the first job.
//! - A log is followed by offset over whole frames: after a broken connection nothing comes twice and nothing is missed.
//! - A downloaded output is what the coordinator announced: its length and SHA-256 are checked before anybody uses it.

mod logs;
mod reach;

pub use logs::LogFollower;
pub use reach::{ReachInput, ReachSession};

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use crate::http::{ApiClient, Call, HttpError, Trust};
use crate::wire::account::AccountView;
use crate::wire::job::{JobList, JobSpec, JobView, MarketView, OutputView, SubmitJob};
use crate::wire::logs::FrameError;
use crate::wire::reach::ReachFrameError;
use crate::wire::{ErrorCode, IDEMPOTENCY_HEADER, JobId, Secret};

/// How often a call that failed for now is tried before the failure is reported.
const TRIES: u32 = 4;

/// Longest time between two looks at a job.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// How often in a row a coordinator may be away, several tries each time, before waiting is given up: some minutes.
const ABSENCES_MAX: u32 = 60;

/// An output download may take this long.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// Why the renter's client could not do something.
#[derive(Debug, Error)]
pub enum RentError {
    /// The call failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The log is no stream of frames.
    #[error("the log that came from the coordinator cannot be read")]
    Log(#[source] FrameError),
    /// What a session into a job answers is no stream of frames.
    #[error("what came from the job cannot be read")]
    Session(#[source] ReachFrameError),
    /// The job has handed back nothing.
    #[error("job {0} has handed back no output; only a job with an output folder does, once it has ended")]
    NoOutput(JobId),
    /// What came is not what was announced.
    #[error("the output of job {job} came damaged ({what}); fetch it again")]
    Damaged {
        /// Whose output.
        job: JobId,
        /// What does not fit.
        what: String,
    },
    /// The file cannot be written.
    #[error("the output cannot be written to disk")]
    Write(#[source] std::io::Error),
}

/// A renter's view of one coordinator. Clones share connections.
#[derive(Debug, Clone)]
pub struct RentClient {
    api: ApiClient,
    api_key: Secret,
}

impl RentClient {
    /// A client for the coordinator at `base`; nothing is sent yet.
    ///
    /// # Errors
    /// When the address or the authority's certificate cannot be used.
    pub fn new(base: &str, trust: &Trust, api_key: Secret) -> Result<Self, HttpError> {
        Ok(Self { api: ApiClient::new(base, trust)?, api_key })
    }

    /// The coordinator's address, for people.
    #[must_use]
    pub fn coordinator(&self) -> &str {
        self.api.base().as_str().trim_end_matches('/')
    }

    /// Submits a job. `key` names this submission: the same key never makes a second job.
    ///
    /// # Errors
    /// When the coordinator refuses, or cannot be reached after several tries.
    pub async fn submit(&self, spec: &JobSpec, key: &str) -> Result<JobView, RentError> {
        let body = SubmitJob { spec: spec.clone() };
        self.repeated(|| self.api.post("/v1/jobs").header(IDEMPOTENCY_HEADER, key).json(&body)).await
    }

    /// One job.
    ///
    /// # Errors
    /// When it is not there, or the call fails.
    pub async fn job(&self, job: JobId) -> Result<JobView, RentError> {
        self.repeated(|| self.api.get(&format!("/v1/jobs/{job}"))).await
    }

    /// The account's jobs, newest first.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn jobs(&self) -> Result<JobList, RentError> {
        self.repeated(|| self.api.get("/v1/jobs")).await
    }

    /// Asks a job to stop. It ends later, see [`RentClient::wait_final`]; a job that has ended stays as it is.
    ///
    /// # Errors
    /// When it is not there, or the call fails.
    pub async fn stop(&self, job: JobId) -> Result<(), RentError> {
        let mut tried = 0;
        loop {
            match self.api.delete(&format!("/v1/jobs/{job}")).bearer(&self.api_key).done().await {
                Ok(()) => return Ok(()),
                Err(error) => self.pause_or_fail(error, &mut tried).await?,
            }
        }
    }

    /// The account's money.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn account(&self) -> Result<AccountView, RentError> {
        self.repeated(|| self.api.get("/v1/account")).await
    }

    /// What can be rented now.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn market(&self) -> Result<MarketView, RentError> {
        self.repeated(|| self.api.get("/v1/market")).await
    }

    /// Waits until nothing about the job will change any more. Patient with a coordinator that is away for a moment.
    ///
    /// # Errors
    /// When the job is not there, or the coordinator stays away.
    pub async fn wait_final(&self, job: JobId) -> Result<JobView, RentError> {
        let mut pause = Duration::from_millis(5);
        let mut failures = 0;
        loop {
            match self.job(job).await {
                Ok(view) if view.state.is_final() => return Ok(view),
                Ok(_) => failures = 0,
                Err(RentError::Http(error)) if error.is_temporary() && failures < ABSENCES_MAX => {
                    failures += 1;
                    pause = LOOK_MAX;
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    /// The log as it is up to now.
    #[must_use]
    pub fn read_logs(&self, job: JobId, from_offset: u64) -> LogFollower {
        LogFollower::new(self.clone(), job, from_offset, false)
    }

    /// The log from `from_offset` on until no more will come, across broken connections.
    #[must_use]
    pub fn follow_logs(&self, job: JobId, from_offset: u64) -> LogFollower {
        LogFollower::new(self.clone(), job, from_offset, true)
    }

    /// Writes the job's output tar to `file` and checks it; the file is then rewound to its start.
    ///
    /// # Errors
    /// [`RentError::NoOutput`], [`RentError::Damaged`], [`RentError::Write`], or a failed call.
    pub async fn download_output(&self, job: JobId, file: &mut tokio::fs::File) -> Result<OutputView, RentError> {
        let announced = self.job(job).await?.output.ok_or(RentError::NoOutput(job))?;
        let call = self.api.get(&format!("/v1/jobs/{job}/output")).bearer(&self.api_key).timeout(DOWNLOAD_TIMEOUT);
        let mut answer = call.open().await.map_err(|error| no_output(error, job))?;
        let mut hash = Sha256::new();
        let mut bytes: u64 = 0;
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.api.classify(&error))? {
            bytes += chunk.len() as u64;
            if bytes > announced.bytes {
                break;
            }
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(RentError::Write)?;
        }
        file.flush().await.map_err(RentError::Write)?;
        if bytes != announced.bytes {
            let what = format!("{} bytes were announced and {bytes} or more came", announced.bytes);
            return Err(RentError::Damaged { job, what });
        }
        if hex::encode(hash.finalize()) != announced.sha256 {
            return Err(RentError::Damaged { job, what: "its SHA-256 is another".to_owned() });
        }
        file.rewind().await.map_err(RentError::Write)?;
        Ok(announced)
    }

    async fn repeated<T: serde::de::DeserializeOwned>(&self, call: impl Fn() -> Call) -> Result<T, RentError> {
        let mut tried = 0;
        loop {
            match call().bearer(&self.api_key).receive().await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.pause_or_fail(error, &mut tried).await?,
            }
        }
    }

    /// Waits before the next try, or reports the failure when trying again is of no use.
    async fn pause_or_fail(&self, error: HttpError, tried: &mut u32) -> Result<(), RentError> {
        *tried += 1;
        if !error.is_temporary() || *tried >= TRIES {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(150) * 3_u32.pow(*tried - 1)).await;
        Ok(())
    }
}

fn no_output(error: HttpError, job: JobId) -> RentError {
    if error.problem().is_some_and(|problem| problem.code == ErrorCode::NotFound) {
        RentError::NoOutput(job)
    } else {
        error.into()
    }
}
