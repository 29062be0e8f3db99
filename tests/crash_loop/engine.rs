//! A Docker engine of our own that is killed and started again on what it left.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::arena;
use crate::docker_support::lent_image;
use crate::process_support::{LOOK, PATIENCE};

/// How an engine dies that left a network half made: its networks are known and have no addresses.
const NETWORK_PANIC: &str = "libnetwork.(*controller).reservePools";

/// Docker 20.10 waits without a limit for the end of what it finds running as it comes up, also where nobody will report it. It
/// gives everything 10 s to end by itself and 10 s to be killed first.
const HUNG: Duration = Duration::from_secs(45);
/// So much of what it said is shown when it fails.
const LINES_SHOWN: usize = 20;
const LINE_CHARS: usize = 300;

pub(crate) struct Engine {
    folder: PathBuf,
    child: Option<Child>,
    /// How often it hung as it started.
    pub(crate) hung: u32,
}

impl Engine {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.join("engine"), child: None, hung: 0 }
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// Starts it and waits until it answers. One that gives up while it starts, or hangs, is started again, as by whoever looks
    /// after it.
    pub(crate) async fn start(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let clock = fizz::clock::Clock::system();
        let begin = clock.steady();
        let mut spawned = begin;
        while !self.answers() {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait().unwrap()
            {
                eprintln!("the engine gave up as it started: {status}");
                self.child = None;
                // Docker 20.10, killed in the middle of making a network, cannot start on what it left until that is removed.
                let said = std::fs::read(self.path("log")).unwrap_or_default();
                if String::from_utf8_lossy(&said).contains(NETWORK_PANIC) {
                    eprintln!("it cannot read its own networks; they are removed");
                    std::fs::remove_file(self.path("data/network/files/local-kv.db")).unwrap();
                    std::fs::File::create(self.path("log")).unwrap();
                }
            }
            if clock.steady().since(spawned) > HUNG {
                eprintln!("the engine hangs as it starts; it is started again:\n{}", self.said());
                self.hung += 1;
                self.end();
            }
            if self.child.is_none() {
                self.child = Some(self.spawn());
                spawned = clock.steady();
            }
            assert!(clock.steady().since(begin) < PATIENCE, "the engine does not come up:\n{}", self.said());
            tokio::time::sleep(LOOK).await;
        }
    }

    fn answers(&self) -> bool {
        let version = Command::new("timeout").args(["5", "docker", "-H", &self.address(), "version"]).output();
        version.unwrap().status.success()
    }

    fn spawn(&self) -> Child {
        std::fs::create_dir_all(&self.folder).unwrap();
        // Its process numbers may belong to somebody else by now, which would stop it.
        for stale in ["pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.path(stale));
        }
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        Command::new("dockerd")
            .args([
                "--bridge=none",
                "--iptables=false",
                "--exec-opt",
                "native.cgroupdriver=cgroupfs",
                "-H",
                &self.address(),
            ])
            .args(["--cgroup-parent", &arena::control_group()])
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("this test needs dockerd: apt-get install docker.io")
    }

    /// `kill -9`. Its containers live on until it comes back.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it was started");
        assert!(child.try_wait().unwrap().is_none(), "the engine ended by itself:\n{}", self.said());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends it if it runs.
    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The docker command line, asked about this engine.
    pub(crate) fn docker(&self, args: &[&str]) -> Output {
        Command::new("timeout").args(["30", "docker", "-H", &self.address()]).args(args).output().unwrap()
    }

    /// The same, and it must not fail; the lines it prints.
    pub(crate) fn lines(&self, args: &[&str]) -> Vec<String> {
        let output = self.docker(args);
        assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// An image of this machine's static busybox.
    pub(crate) fn import(&self, name: &str) {
        let tar = self.path("image.tar");
        std::fs::write(&tar, lent_image(name)).unwrap();
        self.lines(&["load", "-q", "-i", tar.to_str().unwrap()]);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The end of what it said.
    fn said(&self) -> String {
        let text = std::fs::read(self.path("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<String> = text.lines().map(|line| line.chars().take(LINE_CHARS).collect()).collect();
        lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The namespace ends soon after; whatever it left ends there.
        self.end();
    }
}
