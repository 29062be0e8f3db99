//! Errors at the edge: what happened, why, what to type next, and the exit code that goes with it.
//!
//! Invariants
//! - Every error a person sees passes through [`CliError`]; the chain of causes is printed once, here.
//! - The exit codes are a contract with scripts; the table [`EXIT_CODES`] is what help and manual page print.

use std::error::Error;
use std::fmt;

use crate::http::HttpError;
use crate::wire::ErrorCode;

/// Why a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything else that went wrong.
    Error,
    /// The command line is wrong.
    Usage,
    /// The configuration or the stored state is wrong.
    Config,
    /// The coordinator cannot be reached or trusted.
    Unreachable,
    /// The coordinator refuses: credential, money or permission.
    Refused,
    /// There is no container engine.
    NoEngine,
    /// `fizz run` could not run the job.
    CannotRun,
    /// A job's own exit code.
    Job(u8),
}

impl Exit {
    /// The number the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Error => 1,
            Self::Usage => 2,
            Self::Config => 3,
            Self::Unreachable => 4,
            Self::Refused => 5,
            Self::NoEngine => 6,
            Self::CannotRun => 125,
            Self::Job(code) => code,
        }
    }
}

/// The table for people.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    success
  1    an error that fits nothing below
  2    the command line is wrong
  3    the configuration or the stored state is wrong
  4    the coordinator cannot be reached or cannot be trusted
  5    the coordinator refuses: credential, money or permission
  6    no container engine

`fizz run` and `fizz job logs --exit-code` end with the job's own code, else:
  124  the job reached its --timeout
  125  the job could not be run
  126  its command cannot be executed
  127  its command is not in the image
  130  stopped by Ctrl-C before it started, or left running by a second one
  137  the job ran out of memory, or was killed

`fizz exec` ends with its command's own code, else 125.";

/// An error with the code to end with.
#[derive(Debug)]
pub struct CliError {
    exit: Exit,
    what: String,
    next: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CliError {
    /// Something went wrong, and nothing more special can be said of it than `what`.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), next: None, source: None }
    }

    /// The command line is wrong.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// Adds the innermost reason.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what to do about it; a sentence.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The same error under another exit code.
    #[must_use]
    pub fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The code to end with.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.exit
    }
}

/// What happened, why, and what next, in one paragraph.
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what.trim_end_matches('.'))?;
        let mut said = self.what.clone();
        let mut cause: Option<&dyn Error> = self.source.as_deref().map(|s| s as &dyn Error);
        while let Some(error) = cause {
            let text = error.to_string();
            // Libraries repeat their source in their own words; saying it once is enough.
            if !said.contains(&text) {
                write!(f, ": {}", text.trim_end_matches('.'))?;
                said = text;
            }
            cause = error.source();
        }
        if let Some(next) = &self.next {
            write!(f, ".\n{}", capitalised(next.trim_end_matches('.')))?;
        }
        Ok(())
    }
}

impl Error for CliError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn Error + 'static))
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

impl From<HttpError> for CliError {
    fn from(error: HttpError) -> Self {
        let exit = match &error {
            HttpError::BadUrl { .. } | HttpError::BadAuthority(_) => Exit::Config,
            HttpError::Setup(_) => Exit::Error,
            HttpError::Unreachable { .. }
            | HttpError::BadCertificate { .. }
            | HttpError::TimedOut { .. }
            | HttpError::Garbage { .. } => Exit::Unreachable,
            HttpError::Problem(problem) => exit_for_code(problem.code),
        };
        // A problem's Display already ends with the next step.
        Self::new(exit, error.to_string()).because(error)
    }
}

/// The exit code for a coordinator's answer.
const fn exit_for_code(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::Unauthorized
        | ErrorCode::SessionExpired
        | ErrorCode::Forbidden
        | ErrorCode::NotInteractive
        | ErrorCode::TokenInvalid
        | ErrorCode::TokenUsed
        | ErrorCode::TokenExpired
        | ErrorCode::BadSignature
        | ErrorCode::NonceRejected
        | ErrorCode::ClockSkew
        | ErrorCode::InsufficientFunds
        | ErrorCode::AgentTooOld
        | ErrorCode::RateLimited => Exit::Refused,
        ErrorCode::Unavailable | ErrorCode::Timeout => Exit::Unreachable,
        ErrorCode::InvalidRequest
        | ErrorCode::InvalidJob
        | ErrorCode::NotFound
        | ErrorCode::MethodNotAllowed
        | ErrorCode::Conflict
        | ErrorCode::OffsetGap
        | ErrorCode::LeaseEnded
        | ErrorCode::ChallengeOver
        | ErrorCode::NotRunning
        | ErrorCode::SessionOver
        | ErrorCode::TooManySessions
        | ErrorCode::TooLarge
        | ErrorCode::UnsupportedMediaType
        | ErrorCode::Internal
        | ErrorCode::Unknown => Exit::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Problem;

    fn refused(code: ErrorCode) -> CliError {
        HttpError::Problem(Box::new(Problem::new(code, "it is so"))).into()
    }

    #[test]
    fn a_wrong_key_and_an_empty_purse_are_refusals_and_an_overload_is_unreachable() {
        assert_eq!(refused(ErrorCode::Unauthorized).exit(), Exit::Refused);
        assert_eq!(refused(ErrorCode::InsufficientFunds).exit(), Exit::Refused);
        assert_eq!(refused(ErrorCode::Unavailable).exit(), Exit::Unreachable);
        assert_eq!(refused(ErrorCode::NotFound).exit(), Exit::Error);
    }

    #[test]
    fn an_error_says_what_why_and_what_next_and_nothing_twice() {
        let io = std::io::Error::other("permission denied");
        let error = CliError::new(Exit::Config, "the key file cannot be read").because(io).next("type chmod 600 key");
        assert_eq!(error.to_string(), "the key file cannot be read: permission denied.\nType chmod 600 key");
        let error = refused(ErrorCode::Unauthorized).to_string();
        assert_eq!(error.matches("it is so").count(), 1, "{error}");
    }

    #[test]
    fn every_exit_code_is_in_the_table() {
        let all =
            [Exit::Error, Exit::Usage, Exit::Config, Exit::Unreachable, Exit::Refused, Exit::NoEngine, Exit::CannotRun];
        for exit in all {
            assert!(EXIT_CODES.contains(&format!("\n  {:<3}  ", exit.code())), "{exit:?}");
        }
    }
}
