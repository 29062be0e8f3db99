//! Commands in running containers, and tars unpacked into them.
//!
//! Invariants
//! - A command never has more rights than its container: no privileges, no other user, and what the container may not is kept.
//! - Output comes in the engine's own frames, with a terminal too: raw bytes of a terminal could pass for the head of an endless
//!   frame, which the client library would wait for in memory.
//! - A command outlives its streams in the engine, so every one carries a mark by which it is found and ended from inside.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::super::{ContainerId, EXEC_MARK, Exec, ExecId, ExecSpec, RuntimeError};
use super::{CALL_DEADLINE, DockerRuntime, START_DEADLINE, errors};
use crate::wire::logs::LogStream;
use crate::wire::reach::TerminalSize;

/// A folder may take so long to be unpacked, at the pace of whoever sends it.
const UNPACK_DEADLINE: Duration = Duration::from_secs(6 * 3600);
/// Between asking a command to end and ending it, in seconds.
const TERM_SECONDS: u32 = 1;

impl DockerRuntime {
    pub(super) async fn exec_in(&self, id: &ContainerId, spec: &ExecSpec) -> Result<Exec, RuntimeError> {
        let variables = spec.env.iter().filter(|(name, _)| !acts_on_toolkit(name));
        let mut env: Vec<String> = variables.map(|(name, value)| format!("{name}={}", value.expose())).collect();
        env.push(format!("{EXEC_MARK}={}", spec.mark));
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(spec.tty.is_some()),
            // No keys detach: every byte is the renter's.
            detach_keys: Some(String::new()),
            env: Some(env),
            cmd: Some(spec.command.clone()),
            privileged: Some(false),
            user: None,
            working_dir: spec.workdir.clone(),
        };
        let exec = self.begin(id, options).await?;
        if let Some(size) = spec.tty {
            // Best effort: a command that has ended already has no size.
            let _ = self.resize(&exec.id, size).await;
        }
        Ok(exec)
    }

    async fn begin(&self, id: &ContainerId, options: CreateExecOptions<String>) -> Result<Exec, RuntimeError> {
        let made = self.call("run a command", CALL_DEADLINE, self.docker.create_exec(&id.0, options)).await?;
        // Not told of the terminal here, it frames what it sends.
        let start = StartExecOptions { detach: false, tty: false, output_capacity: None };
        let started = self.call("run a command", START_DEADLINE, self.docker.start_exec(&made.id, Some(start))).await?;
        let StartExecResults::Attached { output, input } = started else {
            let detail = "it let go of the command at once".to_owned();
            return Err(RuntimeError::Engine { what: "run a command", detail });
        };
        let address = self.address.clone();
        let output = output.enumerate().map(move |(number, piece)| {
            let (stream, message) = match piece {
                Ok(LogOutput::StdErr { message }) => (LogStream::Stderr, message),
                Ok(LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message }) => {
                    (LogStream::Stdout, message)
                }
                Err(error) => return Err(errors::classify(&address, "run a command", error)),
            };
            // Some engines say it in the command's place when they could not begin it.
            let failed =
                (number == 0).then(|| std::str::from_utf8(&message).ok().and_then(errors::from_exec)).flatten();
            failed.map_or(Ok((stream, message)), Err)
        });
        Ok(Exec { id: ExecId(made.id), input, output: output.boxed() })
    }

    pub(super) async fn exit_code_of(&self, exec: &ExecId) -> Result<Option<i32>, RuntimeError> {
        let found = self.call("look at a command", CALL_DEADLINE, self.docker.inspect_exec(&exec.0)).await?;
        if found.running == Some(true) {
            return Ok(None);
        }
        Ok(found.exit_code.map(|code| i32::try_from(code).unwrap_or(-1)))
    }

    pub(super) async fn resize(&self, exec: &ExecId, size: TerminalSize) -> Result<(), RuntimeError> {
        let size = ResizeExecOptions { height: size.rows, width: size.columns };
        self.call("resize a terminal", CALL_DEADLINE, self.docker.resize_exec(&exec.0, size)).await
    }

    pub(super) async fn kill_marked(&self, id: &ContainerId, mark: &str) -> Result<(), RuntimeError> {
        // Nothing of the session's own words is in this line but an identifier of ours.
        let mark: String = mark.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let script = format!(
            "k() {{ for p in /proc/[0-9]*; do case \"$(cat $p/environ 2>/dev/null)\" in \
             *{EXEC_MARK}={mark}*) kill -$1 ${{p#/proc/}} 2>/dev/null;; esac; done; }}; k TERM; sleep {TERM_SECONDS}; k KILL"
        );
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            cmd: Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), script]),
            privileged: Some(false),
            ..CreateExecOptions::default()
        };
        let mut exec = self.begin(id, options).await?;
        let done = async { while exec.output.next().await.is_some() {} };
        let late = RuntimeError::TimedOut { what: "end a command", seconds: CALL_DEADLINE.as_secs() };
        tokio::time::timeout(CALL_DEADLINE, done).await.map_err(|_| late)
    }

    pub(super) async fn unpack_into(
        &self,
        id: &ContainerId,
        path: &str,
        tar: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), RuntimeError> {
        let options = UploadToContainerOptionsBuilder::new().path(path).build();
        let patient = self.docker.clone().with_timeout(UNPACK_DEADLINE);
        let upload = patient.upload_to_container(&id.0, Some(options), bollard::body_try_stream(tar));
        match self.call("write a folder", UNPACK_DEADLINE, upload).await {
            Err(RuntimeError::Engine { detail, .. }) if detail.contains("Could not find the file") => {
                Err(RuntimeError::NoSuchPath { path: path.to_owned() })
            }
            other => other,
        }
    }
}

/// Variables that GPU toolkits and loaders act on have no business here.
fn acts_on_toolkit(name: &str) -> bool {
    name == "LD_PRELOAD" || name.starts_with("NVIDIA_")
}
