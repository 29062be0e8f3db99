//! Agents and engines without root: an ordinary user's own Podman and Docker, and an ordinary user's agent with an engine of the
//! system that maps container users. On a machine with cgroup v1 rootless engines limit nothing, whatever they say: there the agent
//! must notice. No test here runs a job on one whose limits hold.
#![cfg(feature = "coordinator")]
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use docker_support::ordinary_user::{OrdinaryUser, kill};
use docker_support::{in_time, wait_for};
use fizz::clock::Clock;
use fizz::coordinator::{self, CoordinatorConfig, Running};
use fizz::http::{ApiClient, Trust, install_crypto_provider};
use fizz::rent::RentClient;
use fizz::runtime::RuntimeError;
use fizz::runtime::docker::DockerRuntime;
use fizz::wire::account::{AccountCreated, JoinTokenCreated, NewAccount, NewJoinToken};
use fizz::wire::job::{JobSpec, JobState, JobView};
use fizz::wire::lease::LeaseEnd;
use fizz::wire::{Amount, JobId, LeaseId};

/// A coordinator with a renter, and an ordinary user whose agent may join.
struct World {
    coordinator: Running,
    renter: RentClient,
    join_token: String,
    user: OrdinaryUser,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        install_crypto_provider();
        let (folder, user) = (tempfile::tempdir().unwrap(), OrdinaryUser::new());
        let config = CoordinatorConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            data_dir: folder.path().join("coordinator"),
            heartbeat_interval_millis: 500,
            lease_grace_seconds: Some(60),
            ..CoordinatorConfig::default()
        };
        let coordinator = coordinator::start(config, Clock::system()).await.unwrap();
        let ca = coordinator.ca_pem().unwrap().to_owned();
        user.write(&user.home().join("ca.pem"), &ca);
        let trust = Trust::Pinned { pem: ca.into_bytes() };
        let api = ApiClient::new(coordinator.url().as_str(), &trust).unwrap();
        let name = NewAccount { name: "attic".to_owned() };
        let call = api.post("/v1/admin/accounts").bearer(coordinator.admin_token()).json(&name);
        let account: AccountCreated = call.receive().await.unwrap();
        let now = Clock::system().now();
        let money = Amount::from_micros(10_000_000);
        coordinator.app().store.deposit(account.account_id, money, "first", now).await.unwrap();
        let wish = NewJoinToken { expires_seconds: 600 };
        let call = api.post("/v1/account/join-tokens").bearer(&account.api_key).json(&wish);
        let token: JoinTokenCreated = call.receive().await.unwrap();
        let renter = RentClient::new(coordinator.url().as_str(), &trust, account.api_key).unwrap();
        let join_token = token.join_token.expose().to_owned();
        Self { coordinator, renter, join_token, user, _folder: folder }
    }

    /// The program under test as this user, with a configuration that names this engine.
    fn fizz(&self, engine: &str, arguments: &[&str]) -> Command {
        let url = self.coordinator.url().as_str().trim_end_matches('/');
        let config = format!(
            "[[coordinators]]\nurl = \"{url}\"\nca_file = \"{}\"\n[engine]\naddress = \"{engine}\"\n[sandbox]\nroot = \"remapped\"\n",
            self.user.home().join("ca.pem").display()
        );
        let file = self.user.home().join("fizz.toml");
        self.user.write(&file, &format!("drain_deadline_seconds = 0\n{config}"));
        let mut command = self.user.command(self.user.fizz());
        command.args(arguments).env("FIZZ_CONFIG", file).env("FIZZ_STATE_DIR", self.user.home().join("node"));
        command.env("FIZZ_JOIN_TOKEN", &self.join_token).env("COLUMNS", "80");
        command
    }

    fn agent(&self, engine: &str) -> Agent {
        let log = std::fs::File::options().create(true).append(true).open(self.user.home().join("agent.log")).unwrap();
        let child = self.fizz(engine, &["up"]).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Agent { child }
    }

    fn job(&self, image: &str, line: &str) -> serde_json::Value {
        serde_json::json!({
            "services": [{
                "name": "main", "image": image, "command": ["/bin/sh", "-c", line],
                "resources": {"cpu_millis": 100, "memory_bytes": 32 << 20, "disk_bytes": 1 << 20},
            }],
            "limits": {"price_max": 1_000_000, "duration_seconds_max": 600, "stop_grace_seconds": 1},
        })
    }

    async fn submit(&self, spec: serde_json::Value) -> JobId {
        let spec: JobSpec = serde_json::from_value(spec).unwrap();
        let key = LeaseId::generate(Clock::system().now()).to_string();
        self.renter.submit(&spec, &key).await.unwrap().job_id
    }

    async fn log(&self, job_id: JobId) -> String {
        let mut follower = self.renter.read_logs(job_id, 0);
        let mut text = Vec::new();
        while let Some(frame) = in_time(follower.next()).await.unwrap() {
            text.extend_from_slice(&frame.bytes);
        }
        String::from_utf8(text).unwrap()
    }

    async fn until(&self, job_id: JobId, mut done: impl FnMut(&JobView) -> bool) -> JobView {
        in_time(async {
            loop {
                let view = self.renter.job(job_id).await.unwrap();
                if done(&view) {
                    return view;
                }
                assert!(!view.state.is_final(), "{view:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }
}

/// `fizz up`.
struct Agent {
    child: Child,
}

impl Drop for Agent {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

/// What a program said, in one line.
fn words(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An engine that runs for the user; ends with the user's namespaces at the latest.
struct Engine {
    child: Child,
    socket: PathBuf,
}

impl Engine {
    fn start(user: &OrdinaryUser, mut command: Command) -> Self {
        let log = std::fs::File::create(user.home().join("engine.log")).unwrap();
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let engine = Self { child, socket: user.runtime_dir().join("engine.sock") };
        let clock = Clock::system();
        let begin = clock.steady();
        while !engine.docker(&["version"]).status.success() {
            let log = std::fs::read_to_string(user.home().join("engine.log")).unwrap_or_default();
            assert!(clock.steady().since(begin) < Duration::from_secs(60), "the engine did not come up: {log}");
        }
        engine
    }

    fn podman(user: &OrdinaryUser) -> Self {
        let settings = "[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n\
                        [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
        user.write(&user.home().join("containers.conf"), settings);
        let mut command = user.command("podman");
        command.env("CONTAINERS_CONF", user.home().join("containers.conf")).args(["--storage-driver", "vfs", "--root"]);
        command.arg(user.home().join("storage")).arg("--runroot").arg(user.runtime_dir().join("containers"));
        command.args(["system", "service", "--time=0"]).arg(address(&user.runtime_dir().join("engine.sock")));
        Self::start(user, command)
    }

    /// With the script that comes with Docker, wherever it lies.
    fn docker_rootless(user: &OrdinaryUser) -> Self {
        let places = ["/usr/bin/dockerd-rootless.sh", "/usr/share/docker.io/contrib/dockerd-rootless.sh"];
        let script = places.into_iter().find(|place| Path::new(place).exists());
        let mut command = user.command(script.expect("this test needs dockerd-rootless.sh: apt-get install docker.io"));
        command.env("DOCKERD_ROOTLESS_ROOTLESSKIT_NET", "slirp4netns");
        options(&mut command, user, &[]);
        Self::start(user, command)
    }

    /// As root, for this user's group, with container users mapped to the user's subordinate numbers.
    fn docker_remapped(user: &OrdinaryUser) -> Self {
        let mut command = user.enter();
        command.args(["unshare", "--net", "dockerd", "--bridge=none", "--iptables=false"]);
        options(&mut command, user, &["--userns-remap", user.name(), "--group", user.name()]);
        Self::start(user, command)
    }

    fn address(&self) -> String {
        address(&self.socket)
    }

    fn docker(&self, arguments: &[&str]) -> Output {
        Command::new("docker").args(["-H", &self.address()]).args(arguments).output().unwrap()
    }

    /// The ids of all its containers; a sentence where it does not answer.
    fn containers(&self) -> String {
        let output = self.docker(&["ps", "-aq"]);
        if output.status.success() { words(&output) } else { format!("no answer: {}", words(&output)) }
    }

    fn load(&self, archive: &[u8]) {
        let mut load = Command::new("docker");
        load.args(["-H", &self.address(), "load", "-q"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut load = load.spawn().unwrap();
        load.stdin.take().unwrap().write_all(archive).unwrap();
        assert!(load.wait().unwrap().success());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for id in self.containers().split(' ').filter(|id| !id.is_empty()) {
            self.docker(&["rm", "-f", id]);
        }
        kill(&mut self.child);
    }
}

fn address(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

fn options(dockerd: &mut Command, user: &OrdinaryUser, more: &[&str]) {
    let at = |name: &str| user.runtime_dir().join(name);
    dockerd.arg("--host").arg(address(&at("engine.sock"))).arg("--data-root").arg(user.engine_dir().join("data"));
    dockerd
        .arg("--exec-root")
        .arg(at("exec"))
        .arg("--pidfile")
        .arg(at("pid"))
        .args(["--storage-driver", "vfs"])
        .args(more);
}

/// Whether this machine has the limits that an ordinary user can be given.
fn has_unified_limits() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// What becomes of an agent with an engine that limits nothing.
async fn limits_that_do_not_hold_are_noticed(world: &World, engine: &Engine) {
    if has_unified_limits() {
        // Such engines can be given limits here, and this test does not do it: what they would say is not known.
        return;
    }
    let error = in_time(DockerRuntime::connect(Some(&engine.address()))).await.unwrap_err();
    let RuntimeError::Unsafe { detail } = &error else { panic!("{error:?}") };
    assert!(detail.contains("memory") && detail.contains("cgroup v2"), "{detail}");

    let job_id = world.submit(world.job("busybox:1", "echo never")).await;
    let _agent = world.agent(&engine.address());
    let clock = Clock::system();
    let begin = clock.steady();
    let seen = loop {
        let seen = words(&world.fizz(&engine.address(), &["status"]).output().unwrap());
        if seen.contains("do not take effect") {
            break seen;
        }
        let log = std::fs::read_to_string(world.user.home().join("agent.log")).unwrap_or_default();
        assert!(
            clock.steady().since(begin) < Duration::from_secs(60),
            "it does not say why it does nothing: {seen}; {log}"
        );
    };
    assert!(seen.contains("cgroup v2"), "{seen}");
    let job = world.renter.job(job_id).await.unwrap();
    assert_eq!((job.state, job.lease_count), (JobState::Queued, 0), "{}", job.why);

    let doctor = world.fizz(&engine.address(), &["doctor"]).output().unwrap();
    let said = words(&doctor);
    assert_eq!(doctor.status.code(), Some(1), "{said}");
    assert!(said.contains("do not take effect") && said.contains("systemd.unified_cgroup_hierarchy=1"), "{said}");
    in_time(async {
        while !engine.containers().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs podman, uidmap and slirp4netns"]
async fn rootless_podman_that_limits_nothing_gets_no_job_and_its_owner_hears_why() {
    let world = World::new().await;
    let engine = Engine::podman(&world.user);
    limits_that_do_not_hold_are_noticed(&world, &engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs dockerd-rootless.sh, rootlesskit, uidmap and slirp4netns"]
async fn rootless_docker_that_limits_nothing_gets_no_job_and_its_owner_hears_why() {
    let world = World::new().await;
    let engine = Engine::docker_rootless(&world.user);
    limits_that_do_not_hold_are_noticed(&world, &engine).await;
}

/// Users of the job's processes as this machine sees them.
fn outside(engine: &Engine) -> Vec<u32> {
    let ids = String::from_utf8(engine.docker(&["ps", "-q", "--filter", "label=io.fizz.lease"]).stdout).unwrap();
    let id = ids.lines().next().expect("a job runs");
    let top = engine.docker(&["top", id, "-eo", "uid,pid"]);
    let lines = String::from_utf8(top.stdout).unwrap();
    lines.lines().skip(1).map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine and uidmap"]
async fn an_ordinary_users_agent_runs_jobs_whose_root_is_nobody_outside() {
    const IMAGE: &str = "fizz-test-remapped:busybox";
    let world = World::new().await;
    let engine = Engine::docker_remapped(&world.user);
    engine.load(&docker_support::lent_image(IMAGE));
    let mut agent = world.agent(&engine.address());

    let mut as_root = world.job(IMAGE, "id -u; seq 1 300; while [ ! -e /work/go ]; do sleep 0.1; done; echo end");
    as_root["services"][0]["root"] = true.into();
    let job_id = world.submit(as_root).await;
    let seen = world.until(job_id, |job| job.state == JobState::Running).await;
    assert_eq!(seen.lease_count, 1);
    wait_for("the job's processes", || !outside(&engine).is_empty());
    assert_eq!(
        outside(&engine).iter().min(),
        Some(&world.user.subordinate()),
        "root of the container is nobody outside"
    );

    // Nothing of the agent is root's, and killed it finds its container again.
    kill(&mut agent.child);
    agent = world.agent(&engine.address());
    let id = engine.containers();
    wait_for("the job to be told to go on", || {
        engine.docker(&["exec", id.trim(), "touch", "/work/go"]).status.success()
    });
    let done = world.until(job_id, |job| job.state.is_final()).await;
    assert_eq!(
        (done.state, done.outcome, done.lease_count),
        (JobState::Done, Some(LeaseEnd::Exited { code: 0 }), 1),
        "{}",
        done.why
    );
    let expected: String = std::iter::once("0\n".to_owned()).chain((1..=300).map(|n| format!("{n}\n"))).collect();
    assert_eq!(world.log(job_id).await, expected + "end\n");
    wait_for("the container to be removed", || engine.containers().is_empty());

    // Without the right to set rules nothing is shown, and what is not shown is not lent.
    let status = world.fizz(&engine.address(), &["status", "--json"]).output().unwrap();
    let snapshot: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(snapshot["offer"]["internet"], false, "{snapshot}");
    drop(agent);
    world.coordinator.shutdown(Duration::from_millis(200)).await;
}
