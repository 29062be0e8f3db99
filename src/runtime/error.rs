//! What an engine may answer instead of doing what it was asked.

use std::time::Duration;

use thiserror::Error;

/// Why the engine did not do it. Every sentence says what happened and, where it helps, what to type.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// Nothing listens at the address.
    #[error("no container engine answers at {address}; install Docker, or start it: `sudo systemctl start docker`")]
    NotRunning {
        /// Socket or URL.
        address: String,
        /// The system's own words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The socket is there, but not for us.
    #[error(
        "no permission to use {address}; add yourself to its group: `sudo usermod -aG docker $USER`, then log in again"
    )]
    PermissionDenied {
        /// Socket.
        address: String,
    },
    /// Too old to be used safely.
    #[error("the container engine speaks API {found}, fizz needs at least {needed}; update Docker to 20.10 or newer")]
    ApiTooOld {
        /// What it offers.
        found: String,
        /// What is needed.
        needed: &'static str,
    },
    /// No such image, or a private one.
    #[error("image '{image}' was not found, or it is private: {detail}")]
    ImageNotFound {
        /// As the job wrote it.
        image: String,
        /// The engine's words.
        detail: String,
    },
    /// For another processor.
    #[error("image '{image}' is for {found}, this machine is {here}")]
    WrongArchitecture {
        /// As the job wrote it.
        image: String,
        /// The image's architecture.
        found: String,
        /// This machine's.
        here: String,
    },
    /// The owner does not take images from there.
    #[error("image '{image}' is refused: {why}")]
    ImageRefused {
        /// As the job wrote it.
        image: String,
        /// Which rule is in the way.
        why: String,
    },
    /// Nobody whom the owner trusts has signed it.
    #[error(
        "image '{image}' is refused: {why}; this node takes only images that are signed by somebody its owner trusts"
    )]
    ImageUnsigned {
        /// As the job wrote it.
        image: String,
        /// What is missing.
        why: String,
    },
    /// The registry lets this node pull no more for now.
    #[error(
        "the registry of image '{image}' lets this node pull no more for now: {detail}; a login (`fizz run --registry-login-file`) \
         or a mirror (owner: images.mirror) gets around that"
    )]
    RegistryBusy {
        /// As the job wrote it.
        image: String,
        /// The registry's words.
        detail: String,
        /// When it may be asked again, where the registry says so.
        retry_after: Option<Duration>,
    },
    /// The registry broke off or cannot be reached.
    #[error("image '{image}' could not be pulled: {detail}")]
    PullFailed {
        /// As the job wrote it.
        image: String,
        /// The engine's words.
        detail: String,
    },
    /// The command is not in the image.
    #[error("the command was not found in the image: {detail}")]
    CommandNotFound {
        /// The engine's words.
        detail: String,
    },
    /// The command cannot be executed.
    #[error("the command cannot be executed: {detail}")]
    CommandNotExecutable {
        /// The engine's words.
        detail: String,
    },
    /// The engine does not accept what was asked for.
    #[error("the container engine refuses this container: {detail}")]
    InvalidSpec {
        /// The engine's words.
        detail: String,
    },
    /// Containers on a network might reach the owner's home.
    #[error("it could not be shown that jobs cannot reach this home's network: {why}; see `fizz doctor`")]
    IsolationNotShown {
        /// What was missing or reached.
        why: String,
    },
    /// The certificates for the engine, or its own.
    #[error("the container engine cannot be spoken to safely: {detail}")]
    EngineTls {
        /// What is wrong, and what to write.
        detail: String,
    },
    /// The owner does not allow it.
    #[error("this node's owner does not allow it: {detail}")]
    OwnerRefuses {
        /// What, and what would be allowed.
        detail: String,
    },
    /// The engine cannot hold strangers' containers.
    #[error("this container engine cannot be used for other people's containers: {detail}")]
    Unsafe {
        /// What is missing, and how to get it.
        detail: String,
    },
    /// The engine or one of its parts has a known hole that a container could use.
    #[error("no job is run here until this is mended: {finding}")]
    Vulnerable {
        /// Which, and what to install.
        finding: String,
    },
    /// The separation that the job or the owner wants cannot be had here.
    #[error("{wanted}")]
    NoIsolation {
        /// What was wanted, for people.
        wanted: String,
    },
    /// No space left.
    #[error("no disk space is left for the container engine: {detail}; free some: `docker system df`")]
    NoSpace {
        /// The engine's words.
        detail: String,
    },
    /// No such container (any more).
    #[error("the container is gone")]
    NoSuchContainer,
    /// No such path in the container.
    #[error("the container has no '{path}'")]
    NoSuchPath {
        /// The path asked for.
        path: String,
    },
    /// It went away in the middle of a start: whether the container runs, it may not know itself when it is back. Such a container
    /// must not be started again, or it could run twice at once; a new one can.
    #[error("the container engine went away while it started the container ({detail})")]
    StartInterrupted {
        /// What was heard of it.
        detail: String,
    },
    /// The engine took too long.
    #[error("the container engine did not answer within {seconds} s while asked to {what}")]
    TimedOut {
        /// What was asked.
        what: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// Anything else.
    #[error("the container engine failed to {what}: {detail}")]
    Engine {
        /// What was asked.
        what: &'static str,
        /// The engine's words.
        detail: String,
    },
}
