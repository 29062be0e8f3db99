//! Commands that are run in containers which run already.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::AsyncWrite;

use super::RuntimeError;
use crate::wire::Secret;
use crate::wire::logs::LogStream;
use crate::wire::reach::TerminalSize;

/// The engine's identifier of a command in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExecId(pub String);

/// A command to be run in a running container, as the container's own user and with no more rights than it has.
#[derive(Debug, Clone)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// A terminal of this size; pipes when absent.
    pub tty: Option<TerminalSize>,
    /// Variables on top of the container's own.
    pub env: Vec<(String, Secret)>,
    /// Working directory; the container's own when absent.
    pub workdir: Option<String>,
    /// By which the command and its children are found again; [`EXEC_MARK`] carries it.
    pub mark: String,
}

/// Variable in the environment of a command and of what it starts, by which [`super::ContainerRuntime::exec_kill`] finds them.
pub const EXEC_MARK: &str = "FIZZ_SESSION";

/// A command that runs in a container.
pub struct Exec {
    /// For [`super::ContainerRuntime::exec_code`] and [`super::ContainerRuntime::exec_resize`].
    pub id: ExecId,
    /// Its standard input; shutting it down is the end of input.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it writes, at the pace at which this is read; a terminal writes to standard output. Ends when nobody writes any more.
    pub output: BoxStream<'static, Result<(LogStream, Bytes), RuntimeError>>,
}
