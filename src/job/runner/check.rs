//! Trying whether a container works: a command in it, or a connection to it over its lease's network.
//!
//! Invariants
//! - A try ends at its timeout; a command that has not ended then is killed.
//! - Of what the container answers only a little is read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::job::health::{Health, Verdict};
use crate::job::machine::Heard;
use crate::runtime::{ContainerId, ContainerRuntime, ContainerStatus, ExecSpec, RuntimeError};
use crate::wire::job::{HealthCheck, HealthTest};

/// By which a check's command is found when it must be killed.
const MARK: &str = "fizz-health";
/// What of a command's words or of an HTTP answer is kept.
const WORDS_BYTES_MAX: usize = 200;
/// How long the end of a command's output and its exit code may be apart.
const CODE_ATTEMPTS_MAX: u32 = 20;

/// Checks a container until it is unhealthy or gone; says so, and once that it is healthy.
pub(super) async fn watch(
    runtime: Arc<dyn ContainerRuntime>,
    clock: Clock,
    id: ContainerId,
    check: HealthCheck,
    index: usize,
    heard: mpsc::Sender<(usize, Heard)>,
) {
    let mut health = Health::new(&check, clock.steady());
    let timeout = Duration::from_secs(u64::from(check.timeout_seconds.max(1)));
    loop {
        tokio::time::sleep(health.pause()).await;
        let tried = match try_once(runtime.as_ref(), &id, &check.test, timeout).await {
            Ok(tried) => tried,
            Err(RuntimeError::NoSuchContainer) => return,
            // The engine is away or busy: that says nothing of the container.
            Err(_) => continue,
        };
        let verdict = health.tried(tried.is_ok(), clock.steady());
        let said = match verdict {
            Verdict::Same => continue,
            Verdict::Healthy => Heard::Healthy,
            Verdict::Unhealthy => Heard::Unhealthy { detail: tried.err().unwrap_or_default() },
        };
        let is_last = verdict == Verdict::Unhealthy;
        if heard.send((index, said)).await.is_err() || is_last {
            return;
        }
    }
}

/// One try; the inner error is what the container did wrong, in words.
async fn try_once(
    runtime: &dyn ContainerRuntime,
    id: &ContainerId,
    test: &HealthTest,
    timeout: Duration,
) -> Result<Result<(), String>, RuntimeError> {
    // What is frozen, over or only just being started says nothing.
    if !matches!(runtime.inspect(id).await?, ContainerStatus::Running { .. }) {
        return Err(RuntimeError::Engine { what: "try a container", detail: "it does not run".to_owned() });
    }
    let seconds = timeout.as_secs();
    match test {
        HealthTest::Exec { command } => match tokio::time::timeout(timeout, run(runtime, id, command)).await {
            Ok(done) => done,
            Err(_) => {
                // Best effort: it ends with the container at the latest.
                let _ = runtime.exec_kill(id, MARK).await;
                Ok(Err(format!("the check's command did not end within {seconds} s")))
            }
        },
        HealthTest::Tcp { port } | HealthTest::Http { port, .. } => {
            let Some(address) = runtime.address(id).await? else {
                return Ok(Err("the container has no address to be tried at".to_owned()));
            };
            let address = SocketAddr::from((address, *port));
            let path = match test {
                HealthTest::Http { path, .. } => Some(path.as_str()),
                HealthTest::Exec { .. } | HealthTest::Tcp { .. } | HealthTest::Unknown => None,
            };
            let tried = tokio::time::timeout(timeout, connect(address, path)).await;
            Ok(tried.unwrap_or_else(|_| {
                Err(format!(
                    "port {port} did not answer within {seconds} s (where the container engine runs in a virtual machine, use a \
                     check by command)"
                ))
            }))
        }
        HealthTest::Unknown => Ok(Err("this version of fizz does not know the kind of check".to_owned())),
    }
}

async fn run(
    runtime: &dyn ContainerRuntime,
    id: &ContainerId,
    command: &[String],
) -> Result<Result<(), String>, RuntimeError> {
    let spec = ExecSpec { command: command.to_vec(), tty: None, env: Vec::new(), workdir: None, mark: MARK.to_owned() };
    let mut exec = match runtime.exec(id, &spec).await {
        Ok(exec) => exec,
        // The engine is there and could not run it: the command is not in the image.
        Err(RuntimeError::Engine { detail, .. }) => return Ok(Err(format!("the check could not be run: {detail}"))),
        Err(error) => return not_begun(error).map(Err),
    };
    let mut words = Vec::new();
    while let Some(piece) = exec.output.next().await {
        let (_, bytes) = match piece {
            Ok(piece) => piece,
            Err(error) => return not_begun(error).map(Err),
        };
        let room = WORDS_BYTES_MAX - words.len();
        words.extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
    }
    for _ in 0..CODE_ATTEMPTS_MAX {
        match runtime.exec_code(&exec.id).await? {
            Some(0) => return Ok(Ok(())),
            Some(code) => return Ok(Err(format!("the check ended with exit code {code}{}", said(&words)))),
            // Its output was closed before it ended.
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    Ok(Err("the check closed its output and did not end".to_owned()))
}

/// A command that is not in the container is the check's own fault; everything else says nothing of it.
fn not_begun(error: RuntimeError) -> Result<String, RuntimeError> {
    let own = matches!(error, RuntimeError::CommandNotFound { .. } | RuntimeError::CommandNotExecutable { .. });
    if own { Ok(error.to_string()) } else { Err(error) }
}

fn said(words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    let line: String = words.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.is_empty() { line } else { format!(": {line}") }
}

/// Connects; with a path, asks for it and looks at the status.
async fn connect(address: SocketAddr, path: Option<&str>) -> Result<(), String> {
    let port = address.port();
    let mut stream =
        TcpStream::connect(address).await.map_err(|error| format!("port {port} does not answer: {error}"))?;
    let Some(path) = path else { return Ok(()) };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: fizz\r\nConnection: close\r\n\r\n");
    let broken = |error: std::io::Error| format!("port {port} broke off: {error}");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut head = Vec::new();
    while head.len() < WORDS_BYTES_MAX && !head.contains(&b'\n') {
        let room = (WORDS_BYTES_MAX - head.len()) as u64;
        if (&mut stream).take(room).read_buf(&mut head).await.map_err(broken)? == 0 {
            break;
        }
    }
    match status_of(&head) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("GET {path} on port {port} answered {status}")),
        None => Err(format!("what answers on port {port} does not speak HTTP")),
    }
}

/// The status out of an answer's first line.
fn status_of(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_status_is_read_off_the_first_line_and_nothing_else_passes_for_one() {
        assert_eq!(status_of(b"HTTP/1.1 204 No Content\r\nX: y"), Some(204));
        assert_eq!(status_of(b"HTTP/1.0 503\n"), Some(503));
        for bad in [&b"SSH-2.0-OpenSSH"[..], b"", b"HTTP/1.1", b"HTTP/1.1 no\r\n", b"\xff\xfe 200\n"] {
            assert_eq!(status_of(bad), None);
        }
    }

    #[tokio::test]
    async fn a_port_that_listens_answers_and_a_status_decides() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            for answer in ["", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 500 Oops\r\n\r\n", "hello\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                if !answer.is_empty() {
                    let read = stream.read(&mut request).await.unwrap();
                    assert!(request[..read].starts_with(b"GET /live HTTP/1.1\r\n"));
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        assert_eq!(connect(address, None).await, Ok(()));
        assert_eq!(connect(address, Some("/live")).await, Ok(()));
        assert!(connect(address, Some("/live")).await.unwrap_err().contains("answered 500"));
        assert!(connect(address, Some("/live")).await.unwrap_err().contains("does not speak HTTP"));
        server.await.unwrap();
        assert!(connect(address, None).await.unwrap_err().contains("does not answer"));
    }
}
