//! A Docker engine of a test's own, so it needs root. It keeps everything in one folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{TestImage, wait_for};

/// Stopped when dropped, with nothing of it left mounted.
pub(crate) struct OwnEngine {
    folder: PathBuf,
    /// The program and its options, but for where it keeps things.
    command: Vec<String>,
    child: Option<Child>,
}

impl OwnEngine {
    /// Starts it in a network namespace of its own, with these options more.
    pub(crate) fn start(folder: &Path, options: &[&str]) -> Self {
        // The namespace is entered by exec, so the child is the engine itself.
        Self::run(folder, &[&["unshare", "-n", "dockerd", "--bridge=none", "--iptables=false"], options].concat())
    }

    /// Starts it in the network namespace of the test, whose firewall and bridges it manages.
    pub(crate) fn start_in_this_network(folder: &Path) -> Self {
        Self::run(folder, &["dockerd"])
    }

    fn run(folder: &Path, command: &[&str]) -> Self {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let mut engine = Self { folder: folder.to_owned(), command, child: None };
        engine.up();
        engine
    }

    /// Starts it again.
    pub(crate) fn up(&mut self) {
        // Killed processes may stay as zombies where nobody reaps them; their pid files would stop the next start.
        for stale in ["pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.path(stale));
        }
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .args(["-H", &self.address()])
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.path("log")).unwrap())
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_for("an engine of the test's own", || self.docker(&["version"]).is_some());
    }

    /// Ends it with a signal and waits for its end.
    pub(crate) fn down(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args([signal, &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// The process whose network namespace it is in.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
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
        self.down("-TERM");
        // An engine that was killed leaves its containerd behind.
        let pid = std::fs::read_to_string(self.path("exec/containerd/containerd.pid")).unwrap_or_default();
        let words = std::fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        if String::from_utf8_lossy(&words).contains(&*self.folder.to_string_lossy()) {
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
        unmount_below(&self.folder);
    }
}

/// Lets go of what is still mounted below a folder, so that it can be removed.
pub(crate) fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let paths = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    for path in paths.filter(|path| *path != folder && path.starts_with(folder)) {
        let _ = Command::new("umount").arg("-l").arg(path).status();
    }
}
