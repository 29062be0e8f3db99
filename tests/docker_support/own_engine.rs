//! A Docker engine of a test's own, in a network namespace of its own, so it needs root.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{TestImage, wait_for};

/// An engine that keeps everything in a folder; stopped when dropped.
pub(crate) struct OwnEngine {
    folder: PathBuf,
    child: Child,
}

impl OwnEngine {
    /// Starts it with these options more.
    pub(crate) fn start(folder: &Path, options: &[&str]) -> Self {
        let path = |name: &str| folder.join(name);
        let child = Command::new("unshare")
            .args(["-n", "dockerd", "--bridge=none", "--iptables=false", "-H"])
            .arg(format!("unix://{}", path("docker.sock").display()))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .args(options)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        let engine = Self { folder: folder.to_owned(), child };
        wait_for("an engine of the test's own", || engine.docker(&["version"]).is_some());
        engine
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.folder.join("docker.sock").display())
    }

    /// The process whose network namespace it is in.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the docker command line says of it, if it succeeds.
    pub(crate) fn docker(&self, args: &[&str]) -> Option<String> {
        let output = Command::new("docker").args(["-H", &self.address()]).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The same image in this engine.
    pub(crate) fn take(&self, image: &TestImage) {
        let mut save = Command::new("docker").args(["save", &image.name]).stdout(Stdio::piped()).spawn().unwrap();
        let load = Command::new("docker")
            .args(["-H", &self.address(), "load", "-q"])
            .stdin(save.stdout.take().unwrap())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(load.success() && save.wait().unwrap().success());
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if let Some(ids) = self.docker(&["ps", "-aq"]) {
            for id in ids.lines() {
                let _ = self.docker(&["rm", "-f", id]);
            }
        }
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
