//! The built binary as processes that are started, frozen and killed.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The binary under test.
pub(crate) const FIZZ: &str = env!("CARGO_BIN_EXE_fizz");

/// So much of what a process said is shown when a test fails; the reason must not drown in it.
const LINES_SHOWN: usize = 30;

/// A process that can be started again the same way. It does not outlive the test.
pub(crate) struct Process {
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    pub(crate) fn new(arguments: Vec<String>, variables: Vec<(&'static str, String)>, log: PathBuf) -> Self {
        Self { arguments, variables, log, child: None }
    }

    /// Runs fizz with this process's variables, and none of the user's own.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(FIZZ);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FIZZ_")) {
            command.env_remove(name);
        }
        // No graphics driver: the node is not measured by this test.
        command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).args(arguments);
        command
    }

    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut command = self.command(&arguments);
        command.env("FIZZ_LOG", "info").stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// `kill -9`; it is gone when this returns.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it was started");
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself:\n{}", self.said());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Kills it if it runs.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// It does nothing until [`Process::thaw`].
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// The end of what it said.
    pub(crate) fn said(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(text.get(text.len().saturating_sub(8000)..).unwrap_or_default()).into_owned()
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it was started");
        kill_process(Pid::from_child(child), signal).unwrap();
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "what a process said is what explains a failed test")]
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let newest = lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default();
            eprintln!("--- {} said at the end\n{}", self.arguments.join(" "), newest.join("\n"));
        }
    }
}
