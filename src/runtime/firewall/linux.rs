//! The way to the kernel: `nft` as a child process, with a deadline and bounded output; and what the kernel tells of routes.
//!
//! It takes CAP_NET_ADMIN and nothing else. A program that was given the capability by its file (`setcap`) does not pass it to
//! a child by itself, so it is lent to this one child.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::thread::{CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::NftError;
use super::rules::{DOORS, TABLE};
use super::surroundings::KernelTables;
use crate::runtime::network::BRIDGE_PREFIX;

const DEADLINE: Duration = Duration::from_secs(10);
/// What is read of one of nft's streams; our table's listing has a few kB.
const OUTPUT_MAX: u64 = 1 << 20;
/// What is read of a kernel table.
const TABLE_MAX: u64 = 4 << 20;
/// Where nft is when it is not in the search path: that of an ordinary user leaves the system's programs out.
const USUAL: &[&str] = &["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// Hands a script to `nft -f -`. All of it becomes true at once, or nothing does.
///
/// # Errors
/// [`NftError`].
pub async fn apply(script: &str) -> Result<(), NftError> {
    let output = nft(&["-f", "-"], script).await?;
    if output.status.success() { Ok(()) } else { Err(failure(&output)) }
}

/// The table as the kernel holds it, without what its sets gather; `None` when it is not there.
///
/// # Errors
/// [`NftError`].
pub async fn listing() -> Result<Option<String>, NftError> {
    list("inet", TABLE).await
}

/// The table of a lease's bridge, as [`listing`].
///
/// # Errors
/// [`NftError`].
pub async fn gate_listing(bridge: &str) -> Result<Option<String>, NftError> {
    list("ip", bridge).await
}

/// What the set of name servers holds.
///
/// # Errors
/// [`NftError`].
pub async fn doors() -> Result<String, NftError> {
    let output = nft(&["list", "set", "inet", TABLE, DOORS], "").await?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(failure(&output))
    }
}

/// The bridges that have a table of their own, and whether each is there.
///
/// # Errors
/// [`NftError`].
pub async fn gates() -> Result<Vec<(String, bool)>, NftError> {
    let output = nft(&["list", "tables", "ip"], "").await?;
    if !output.status.success() {
        return Err(failure(&output));
    }
    // Those of this program's own network namespace, which another view (`/sys`) may not be of. Where nothing is told, none is
    // taken for gone.
    let interfaces = table("/proc/net/dev");
    let is_there = |bridge: &str| {
        let mut names = interfaces.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
        interfaces.is_empty() || names.any(|name| name == bridge)
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let bridges = text.lines().filter_map(|line| line.strip_prefix("table ip ")).map(str::trim);
    let ours = bridges.filter(|bridge| bridge.starts_with(BRIDGE_PREFIX));
    Ok(ours.map(|bridge| (bridge.to_owned(), is_there(bridge))).collect())
}

async fn list(family: &str, name: &str) -> Result<Option<String>, NftError> {
    let output = nft(&["-s", "-t", "list", "table", family, name], "").await?;
    if output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let error = failure(&output);
    let absent = matches!(&error, NftError::Failed { detail } if detail.contains("No such file or directory"));
    if absent { Ok(None) } else { Err(error) }
}

fn failure(output: &Output) -> NftError {
    let words = String::from_utf8_lossy(&output.stderr);
    if words.contains("Operation not permitted") || words.contains("must be root") {
        return NftError::NotPermitted;
    }
    NftError::Failed {
        detail: words.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given").to_owned(),
    }
}

async fn nft(arguments: &[&str], input: &str) -> Result<Output, NftError> {
    let program = find().ok_or(NftError::Missing)?;
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    let broken = |error: std::io::Error| NftError::Failed { detail: error.to_string() };
    let child = with_capability_to_lend(|| command.spawn()).map_err(broken)?;
    let seconds = DEADLINE.as_secs();
    tokio::time::timeout(DEADLINE, talk(child, input))
        .await
        .map_err(|_| NftError::TimedOut { seconds })?
        .map_err(broken)
}

/// Writes and reads side by side: whoever did one after the other could wait for a full pipe for ever.
async fn talk(mut child: Child, input: &str) -> std::io::Result<Output> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read says why on its other streams.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let read_out = async {
        match stdout {
            Some(stream) => stream.take(OUTPUT_MAX).read_to_end(&mut out).await.map(drop),
            None => Ok(()),
        }
    };
    let read_err = async {
        match stderr {
            Some(stream) => stream.take(OUTPUT_MAX).read_to_end(&mut err).await.map(drop),
            None => Ok(()),
        }
    };
    let ((), out_read, err_read) = tokio::join!(write, read_out, read_err);
    out_read.and(err_read)?;
    let status = child.wait().await?;
    Ok(Output { status, stdout: out, stderr: err })
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = USUAL.iter().map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join("nft")).find(|file| file.is_file())
}

/// Runs `spawn` on this thread with CAP_NET_ADMIN to be inherited, if this program has it, and takes that back.
fn with_capability_to_lend<T>(spawn: impl FnOnce() -> T) -> T {
    let lent = lend(true);
    let spawned = spawn();
    if lent {
        lend(false);
    }
    spawned
}

/// Whether it was changed: not where the capability is missing, nor where children inherit it already.
fn lend(on: bool) -> bool {
    let Ok(mut sets) = capabilities(None) else { return false };
    let ours = CapabilitySet::NET_ADMIN;
    if !sets.permitted.contains(ours) || sets.inheritable.contains(ours) == on {
        return false;
    }
    if on {
        sets.inheritable.insert(ours);
        set_capabilities(None, sets).is_ok() && configure_capability_in_ambient_set(ours, true).is_ok()
    } else {
        let lowered = configure_capability_in_ambient_set(ours, false).is_ok();
        sets.inheritable.remove(ours);
        set_capabilities(None, sets).is_ok() && lowered
    }
}

/// The kernel's tables; empty where it does not tell.
#[must_use]
pub fn kernel_tables() -> KernelTables {
    KernelTables {
        route: table("/proc/net/route"),
        fib_trie: table("/proc/net/fib_trie"),
        if_inet6: table("/proc/net/if_inet6"),
    }
}

fn table(path: &str) -> String {
    let mut bytes = Vec::new();
    match std::fs::File::open(path).and_then(|file| file.take(TABLE_MAX).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}
