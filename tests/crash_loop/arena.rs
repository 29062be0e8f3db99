//! Namespaces of our own around a test: it runs itself again inside, and whatever it started there ends with it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Tells the inner run where its memory disk is.
const INSIDE: &str = "FIZZ_CRASH_INSIDE";

/// Runs as process 1 of the inner namespaces: brings the loopback up, mounts the memory disk, reaps what is orphaned.
const INIT: &str = r#"ip link set lo up && mount -t tmpfs -o size=2g,mode=700 tmpfs "$0" && "$@"; exit $?"#;

/// So many lines at its end tell why the inner run failed.
const LAST_LINES: usize = 24;

/// The memory disk, in the inner run.
pub(crate) fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

/// Runs the test of this name again, inside.
pub(crate) fn run(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    let groups = ControlGroups(folder.path().file_name().unwrap().to_string_lossy().into_owned());
    // A test that is killed takes everything along: the signal goes from parent to child.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", INIT])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(INSIDE, folder.path())
        .stdin(Stdio::null())
        // Its own lines about tests would be counted as if they were ours; what it has to say is on standard error.
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs unshare and setpriv (util-linux)");
    let last_lines = pass_on(BufReader::new(child.stderr.take().unwrap()));
    let status = child.wait().unwrap();
    drop(groups);
    assert!(status.success(), "{status}; this test needs root; its last lines:\n{}", last_lines.join("\n"));
}

/// Shows every line as it comes, captured or not, and returns the last ones: the reason of a failure.
fn pass_on(lines: impl BufRead) -> Vec<String> {
    let mut last = VecDeque::new();
    for line in lines.split(b'\n') {
        let line = line.unwrap();
        std::io::stderr().write_all(&[&line[..], b"\n"].concat()).unwrap();
        last.push_back(String::from_utf8_lossy(&line).into_owned());
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
    last.into()
}

/// The name of the inner engine's control group, known by its folder's name.
pub(crate) fn control_group() -> String {
    format!("/{}", inside().unwrap().file_name().unwrap().to_string_lossy())
}

/// What is left of the control groups that the inner engine made; they are no part of any namespace.
struct ControlGroups(String);

impl Drop for ControlGroups {
    fn drop(&mut self) {
        // Only empty folders can be removed, deepest first; a group that is still in use stays, and so do its parents.
        let find = format!("find /sys/fs/cgroup -depth -type d -path '*/{}*' -exec rmdir {{}} + 2>/dev/null", self.0);
        let _ = Command::new("sh").args(["-c", &find]).status();
    }
}
