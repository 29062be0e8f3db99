//! Errors as they travel: RFC 9457 problem+json with a stable code.
//!
//! The code is the contract. Its sentence and next step are kept here, on the client's side of the wire too, so that every
//! view says the same thing in the same words.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:fizz:problem:<code>`.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// Short title, the same for every problem of this code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What exactly happened this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// Seconds to wait before trying again, where that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $title:literal, $next:literal;)*) => {
        /// What went wrong, for programs. New codes may come; old readers see `Unknown`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
            /// A code this build does not know.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// Every code this build knows.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as it is written.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* Self::Unknown => "unknown" }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* Self::Unknown => 500 }
            }

            /// The sentence for people.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* Self::Unknown => "The coordinator answered with an error this version does not know" }
            }

            /// What to do next, for people.
            #[must_use]
            pub const fn next_step(self) -> &'static str {
                match self { $(Self::$name => $next,)* Self::Unknown => "Update fizz, then try again." }
            }
        }
    };
}

error_codes! {
    /// The body or a parameter is not valid.
    InvalidRequest = "invalid_request", 400, "The request is not valid", "Correct what the detail names and send it again.";
    /// The job cannot be run as described.
    InvalidJob = "invalid_job", 422, "The job cannot be run as described", "Correct what the detail names and submit it again.";
    /// No or a wrong credential.
    Unauthorized = "unauthorized", 401, "The credential is missing, wrong or revoked", "Check the API key in FIZZ_API_KEY or in the file named by --api-key-file.";
    /// The session ended.
    SessionExpired = "session_expired", 401, "The session has ended", "The agent opens a new one by itself.";
    /// The credential does not allow this.
    Forbidden = "forbidden", 403, "This credential does not allow that", "Use a credential of the account that owns it.";
    /// Nothing there.
    NotFound = "not_found", 404, "There is no such thing here", "List what there is: `fizz job list`.";
    /// Method not allowed.
    MethodNotAllowed = "method_not_allowed", 405, "That method is not allowed here", "See /v1/openapi.json.";
    /// The join token is not known.
    TokenInvalid = "token_invalid", 403, "The join token is not known", "Copy it whole, or make a new one: `fizz coordinator token create`.";
    /// The join token was used.
    TokenUsed = "token_used", 403, "The join token has been used already; each enrols one node", "Make a new one: `fizz coordinator token create`.";
    /// The join token ran out.
    TokenExpired = "token_expired", 403, "The join token has expired", "Make a new one: `fizz coordinator token create`.";
    /// A signature does not fit.
    BadSignature = "bad_signature", 401, "The signature does not fit the key", "Enrol this machine again: `fizz enroll`.";
    /// A nonce came twice or too late.
    NonceRejected = "nonce_rejected", 401, "The nonce was used before or has expired", "The agent asks for a new one by itself.";
    /// The node's clock is too far off.
    ClockSkew = "clock_skew", 401, "The report's time is too far from the coordinator's clock", "Set this machine's clock: `timedatectl set-ntp true`.";
    /// Not enough money.
    InsufficientFunds = "insufficient_funds", 402, "The account cannot cover this job", "Add money, or lower --max-price or --timeout.";
    /// A conflict with the present state.
    Conflict = "conflict", 409, "That contradicts what the coordinator knows", "Look at the present state and try again.";
    /// An offset past the end.
    OffsetGap = "offset_gap", 409, "Bytes before this offset are missing", "Send from the offset in the detail.";
    /// The lease is over for this node.
    LeaseEnded = "lease_ended", 410, "The lease has ended", "Nothing to do: the node stops it by itself.";
    /// The job was not submitted as interactive.
    NotInteractive = "not_interactive", 403, "This job lets nobody in while it runs", "Submit it as an interactive one: `fizz run --interactive`.";
    /// The job's container does not run now.
    NotRunning = "not_running", 409, "The job does not run now", "See where it stands: `fizz job show`.";
    /// A session into a job has ended.
    SessionOver = "session_over", 410, "This session into the job is over", "Begin a new one.";
    /// Too many sessions at once.
    TooManySessions = "too_many_sessions", 409, "There are too many sessions into that job or node already", "End one of them, then try again.";
    /// The challenge is over.
    ChallengeOver = "challenge_over", 410, "The challenge is over", "Nothing to do: another one comes.";
    /// Too large.
    TooLarge = "too_large", 413, "That is larger than the coordinator accepts", "Send less; the detail names the limit.";
    /// Wrong media type.
    UnsupportedMediaType = "unsupported_media_type", 415, "The body's media type is not supported here", "See /v1/openapi.json.";
    /// Agent too old.
    AgentTooOld = "agent_too_old", 426, "This version of the agent is too old for the coordinator", "Update fizz on this machine.";
    /// Too many requests.
    RateLimited = "rate_limited", 429, "Too many requests", "Wait for the time in Retry-After.";
    /// Took too long.
    Timeout = "timeout", 408, "The request took too long", "Try again.";
    /// Our fault.
    Internal = "internal", 500, "The coordinator has a fault", "Try again; if it stays, tell the operator the request id.";
    /// Stopping or starting.
    Unavailable = "unavailable", 503, "The coordinator is starting, stopping or overloaded", "Try again in a few seconds.";
}

impl Problem {
    /// A problem of `code` with its usual title and status.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            type_uri: format!("urn:fizz:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            detail: (!detail.is_empty()).then_some(detail),
            code,
            retry_after_seconds: None,
        }
    }
}

/// What happened, why, and what to do next, in one paragraph.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = if self.code == ErrorCode::Unknown { self.title.as_str() } else { self.code.title() };
        f.write_str(title)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {}", detail.trim_end_matches('.'))?;
        }
        write!(f, ". {}", self.code.next_step())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_json_and_an_unknown_one_reads_as_unknown() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.as_str()));
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), *code);
        }
        assert_eq!(serde_json::from_str::<ErrorCode>("\"from_the_future\"").unwrap(), ErrorCode::Unknown);
    }

    #[test]
    fn a_problem_says_what_why_and_what_next() {
        let problem = Problem::new(ErrorCode::InsufficientFunds, "the job needs $1.00 and the account has $0.25");
        assert_eq!(
            problem.to_string(),
            "The account cannot cover this job: the job needs $1.00 and the account has $0.25. \
             Add money, or lower --max-price or --timeout."
        );
    }
}
