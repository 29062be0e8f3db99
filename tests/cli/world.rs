//! The binary with a home of its own, and a coordinator with a node whose engine follows scripts.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fizz::agent::signals::{self, Stop};
use fizz::agent::{self, AgentOptions, BenchmarkSource, CoordinatorAddress, EngineSource, Outcome};
use fizz::clock::Clock;
use fizz::config::{ByteSize, OfferConfig};
use fizz::coordinator::{self, CoordinatorConfig, Running};
use fizz::http::{Trust, install_crypto_provider};
use fizz::paths::StateDir;
use fizz::runtime::fake::{FakeImage, FakeRuntime, Step};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Nothing here takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary in a home of its own, without any of our own settings.
pub(crate) fn fizz(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fizz"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FIZZ_")) {
        command.env_remove(name);
    }
    command.args(args).env("HOME", home).env("NO_COLOR", "1").current_dir(home);
    command.env("FIZZ_CONFIG", home.join("fizz.toml")).env("FIZZ_STATE_DIR", home.join("state"));
    if !home.join("fizz.toml").exists() {
        std::fs::write(home.join("fizz.toml"), "").unwrap();
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs it to its end.
pub(crate) async fn run(home: &Path, args: &[&str]) -> Ended {
    Ended::of(within(fizz(home, args).output()).await.unwrap())
}

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code().unwrap(), out: output.stdout, err }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap().trim_end()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap()
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }
}

/// A coordinator with one account that has money, and one node.
pub(crate) struct Live {
    pub(crate) home: TempDir,
    pub(crate) engine: FakeRuntime,
    running: Option<Running>,
    config: CoordinatorConfig,
    pub(crate) url: String,
    ca_file: PathBuf,
    stop: watch::Sender<Stop>,
    node: JoinHandle<Outcome>,
}

impl Live {
    /// Starts everything through the command line where there is a command for it.
    pub(crate) async fn start() -> Self {
        install_crypto_provider();
        let home = tempfile::tempdir().unwrap();
        let data_dir = home.path().join("coordinator");
        let config = CoordinatorConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            data_dir: data_dir.clone(),
            heartbeat_interval_millis: 300,
            ..CoordinatorConfig::default()
        };
        let running = coordinator::start(config.clone(), Clock::system()).await.unwrap();
        let config = CoordinatorConfig { listen: running.address(), ..config };
        let url = running.url().as_str().trim_end_matches('/').to_owned();
        let ca_file = data_dir.join("ca.pem");
        let engine = engine();
        let (stop, stopped) = signals::channel();
        let mut live = Self {
            home,
            engine,
            running: Some(running),
            config,
            url,
            ca_file,
            stop,
            node: tokio::spawn(async { Outcome::Left }),
        };
        live.open_account().await;
        let token = live.home.path().join("join.token");
        live.run(&["coordinator", "token", "create", "--out", token.to_str().unwrap()]).await.expect(0);
        let token = std::fs::read_to_string(token).unwrap();
        let agent = agent::build(live.options(token.trim()), Clock::system()).await.unwrap();
        live.node = tokio::spawn(agent.run(stopped));
        live
    }

    async fn open_account(&self) {
        let key_file = self.key_file();
        let made = self.run(&["coordinator", "account", "create", "attic", "--key-file", &key_file]).await.expect(0);
        let account = made.text().to_owned();
        self.run(&["coordinator", "account", "deposit", &account, "100", "--key", "first"]).await.expect(0);
        self.run(&["coordinator", "account", "deposit", &account, "100", "--key", "first"]).await.expect(0);
    }

    pub(crate) fn key_file(&self) -> String {
        self.home.path().join("api.key").to_str().unwrap().to_owned()
    }

    fn options(&self, token: &str) -> AgentOptions {
        let pem = std::fs::read(&self.ca_file).unwrap();
        AgentOptions {
            state_dir: StateDir::new(self.home.path().join("node")),
            name: "attic".to_owned(),
            coordinators: vec![CoordinatorAddress { url: self.url.clone(), trust: Trust::Pinned { pem } }],
            join_token: Some(fizz::wire::Secret::new(token)),
            // Named, for a machine with little free disk lends none by itself.
            offer: OfferConfig { disk: Some(ByteSize(2 << 30)), ..OfferConfig::default() },
            engine: EngineSource::Given(Arc::new(self.engine.clone())),
            ceiling: fizz::config::Ceiling::default(),
            benchmark: BenchmarkSource::Skip,
            prover: None,
            drain_deadline: Duration::from_secs(5),
            reconcile_every: Duration::from_secs(1),
        }
    }

    /// A command with coordinator, authority, key and data folder set in the environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = fizz(self.home.path(), args);
        command.env("FIZZ_COORDINATOR", &self.url).env("FIZZ_CA_FILE", &self.ca_file);
        command.env("FIZZ_API_KEY_FILE", self.key_file());
        command.env("FIZZ_COORDINATOR_DIR", self.home.path().join("coordinator"));
        command
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        Ended::of(within(self.command(args).output()).await.unwrap())
    }

    /// A command of the node's owner.
    pub(crate) fn owner(&self, args: &[&str]) -> Command {
        let mut command = fizz(self.home.path(), args);
        command.env("FIZZ_STATE_DIR", self.home.path().join("node"));
        command
    }

    /// Stops the coordinator as an operator would and starts it again on the same port and folder.
    pub(crate) async fn restart_coordinator(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown(Duration::from_millis(200)).await;
        }
        self.running = Some(coordinator::start(self.config.clone(), Clock::system()).await.unwrap());
    }

    /// Lets every container that holds go on.
    pub(crate) fn release_all(&self) {
        for container in self.engine.containers() {
            self.engine.release(container.lease_id);
        }
    }

    pub(crate) async fn stop(mut self) {
        // A node that was drained by command may be gone already.
        let _ = self.stop.send(Stop::Drain);
        within(self.node).await.unwrap();
        if let Some(running) = self.running.take() {
            running.shutdown(Duration::from_millis(200)).await;
        }
    }
}

fn engine() -> FakeRuntime {
    let engine = FakeRuntime::new(Clock::system());
    let images = [
        ("hello", vec![Step::line("hello")]),
        ("mixed", vec![Step::Out(vec![0xff, 0, b'\n']), Step::Err(b"trouble\n".to_vec()), Step::Exit(3)]),
        ("hold", vec![Step::line("begin"), Step::Hold, Step::line("end")]),
        ("stubborn", vec![Step::IgnoreTerm, Step::line("begin"), Step::Hold]),
        ("chatty", vec![Step::line("begin"), Step::Hold, Step::line("more"), Step::Hold]),
        ("worker", vec![Step::File("/work/seed".to_owned(), b"seed".to_vec()), Step::line("begin"), Step::Hold]),
        ("hungry", vec![Step::OutOfMemory]),
        ("maker", vec![Step::File("/output/picture.png".to_owned(), b"PNG".to_vec())]),
    ];
    for (name, script) in images {
        engine.add_image(name, FakeImage::running(script));
    }
    engine
}

/// The first line a command writes to standard output, while it goes on.
pub(crate) async fn first_line(child: &mut Child) -> String {
    use tokio::io::AsyncBufReadExt as _;
    let mut line = String::new();
    let mut out = tokio::io::BufReader::with_capacity(1, child.stdout.as_mut().unwrap());
    within(out.read_line(&mut line)).await.unwrap();
    line
}

pub(crate) fn interrupt(child: &Child) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::INT).unwrap();
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("took too long")
}
