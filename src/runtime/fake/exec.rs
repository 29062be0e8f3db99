//! Commands in containers of the fake engine: a few that tests need, and a command that nobody knows.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, watch};

use super::super::{ContainerId, ContainerStatus, Exec, ExecId, ExecSpec, RuntimeError};
use super::FakeRuntime;
use crate::wire::logs::LogStream;

/// The commands that were ever run: their marks and exit codes.
#[derive(Debug, Clone, Default)]
pub(super) struct Commands(Arc<Mutex<HashMap<ExecId, Command>>>);

#[derive(Debug)]
struct Command {
    mark: String,
    code: Option<i32>,
    kill: watch::Sender<bool>,
}

type Piece = Result<(LogStream, Bytes), RuntimeError>;

impl Commands {
    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<ExecId, Command>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn code(&self, exec: &ExecId) -> Option<i32> {
        self.table().get(exec).and_then(|command| command.code)
    }

    pub(super) fn kill(&self, mark: &str) {
        for command in self.table().values().filter(|command| command.mark.starts_with(mark)) {
            command.kill.send_replace(true);
        }
    }

    /// How many have not ended.
    pub(super) fn running(&self) -> usize {
        self.table().values().filter(|command| command.code.is_none()).count()
    }
}

impl FakeRuntime {
    /// Commands that run in containers now.
    #[must_use]
    pub fn commands_running(&self) -> usize {
        self.commands.running()
    }

    /// `cat`, `echo WORDS…`, `exit CODE` and `hold` (until killed); 127 for everything else.
    pub(super) fn run_command(&self, id: &ContainerId, spec: &ExecSpec) -> Result<Exec, RuntimeError> {
        if !matches!(self.world().find(id)?.status(), ContainerStatus::Running { .. }) {
            return Err(RuntimeError::Engine { what: "run a command", detail: "it does not run".to_owned() });
        }
        let (kill, killed) = watch::channel(false);
        let mut table = self.commands.table();
        let exec = ExecId(format!("exec{:04}", table.len()));
        table.insert(exec.clone(), Command { mark: spec.mark.clone(), code: None, kill });
        drop(table);
        let (input, stdin) = tokio::io::duplex(64 << 10);
        let (stdout, output) = mpsc::channel(4);
        let (commands, id, words) = (self.commands.clone(), exec.clone(), spec.command.clone());
        tokio::spawn(async move {
            let code = follow(&words, stdin, &stdout, killed).await;
            if let Some(command) = commands.table().get_mut(&id) {
                command.code = Some(code);
            }
        });
        let output = stream::unfold(output, |mut output| async move { Some((output.recv().await?, output)) });
        Ok(Exec { id: exec, input: Box::pin(input), output: output.boxed() })
    }

    pub(super) fn unpack_tar(&self, id: &ContainerId, path: &str, tar: &[u8]) -> Result<(), RuntimeError> {
        let broken = |error: std::io::Error| RuntimeError::Engine { what: "write a folder", detail: error.to_string() };
        let mut archive = tar::Archive::new(tar);
        let mut world = self.world();
        let container = world.find(id)?;
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            if entry.header().entry_type().is_file() {
                let name = format!("{}/{}", path.trim_end_matches('/'), entry.path().map_err(broken)?.display());
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(broken)?;
                container.files.insert(name, bytes);
            }
        }
        Ok(())
    }
}

async fn follow(
    words: &[String],
    mut stdin: tokio::io::DuplexStream,
    stdout: &mpsc::Sender<Piece>,
    mut killed: watch::Receiver<bool>,
) -> i32 {
    let say = async |stream, bytes: Bytes| stdout.send(Ok((stream, bytes))).await.is_ok();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let work = async {
        match words.as_slice() {
            ["cat"] => {
                let mut piece = vec![0; 16 << 10];
                loop {
                    match stdin.read(&mut piece).await {
                        Ok(n) if n > 0 && say(LogStream::Stdout, Bytes::copy_from_slice(&piece[..n])).await => {}
                        Ok(_) | Err(_) => return 0,
                    }
                }
            }
            ["echo", rest @ ..] => {
                say(LogStream::Stdout, format!("{}\n", rest.join(" ")).into()).await;
                0
            }
            ["exit", code] => {
                say(LogStream::Stderr, Bytes::from_static(b"going\n")).await;
                code.parse().unwrap_or(2)
            }
            ["hold"] => {
                say(LogStream::Stdout, Bytes::from_static(b"holds\n")).await;
                std::future::pending().await
            }
            _ => 127,
        }
    };
    tokio::select! {
        code = work => code,
        _ = killed.wait_for(|killed| *killed) => 137,
    }
}
