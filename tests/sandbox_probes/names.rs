//! What a job leaves behind and what it calls things: names that lead out of a folder, links, and outputs that are larger than they
//! look. Coordinator and agent run as they are, in this process, over a real engine; the renter's side is the built program.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use fizz::agent::{self, Outcome, signals};
use fizz::clock::Clock;
use fizz::config::Ceiling;
use fizz::wire::JobId;
use fizz::wire::job::{JobState, JobView};
use serde_json::{Value, json};
use tar::EntryType;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::docker_support::market::Market;
use super::docker_support::raw_tar::tar_of;
use super::docker_support::{TestImage, TestNode, docker, docker_output, in_time};

/// Prints a line per attempt and fails at the end if one went in the sandbox or not in its control.
#[derive(Default)]
struct Table {
    shown: usize,
    bad: Vec<String>,
}

#[allow(clippy::print_stdout, reason = "whoever runs it reads the table")]
impl Table {
    fn row(&mut self, name: &str, blocked: bool, control: bool) {
        println!("{name:<34} {blocked:<8} control succeeded {control}");
        self.shown += 1;
        if !blocked || !control {
            self.bad.push(name.to_owned());
        }
    }

    fn judge(self, what: &str) {
        println!("{} {what} shown to work without the sandbox, {} went in it", self.shown, self.bad.len());
        assert_eq!(self.bad, [""; 0]);
    }
}

/// A folder to unpack into with a secret and a victim beside it.
struct Target {
    folder: TempDir,
}

impl Target {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for inside in ["deep/into", "beside"] {
            std::fs::create_dir_all(folder.path().join(inside)).unwrap();
        }
        std::fs::write(folder.path().join("beside/victim"), "whole").unwrap();
        Self { folder }
    }

    fn inner(&self) -> PathBuf {
        self.folder.path().join("deep/into")
    }

    /// Whether anything outside is other than it was, or anything inside leads out or is more than a plain file.
    fn is_breached(&self) -> bool {
        let root = self.folder.path();
        let names = |path: &Path| {
            let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        let victim = root.join("beside/victim");
        names(root) != ["beside", "deep"]
            || names(&root.join("deep")) != ["into"]
            || names(&root.join("beside")) != ["victim"]
            || std::fs::read(&victim).unwrap() != b"whole"
            || leads_out(&self.inner(), &self.inner().canonicalize().unwrap())
            || std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(&victim).unwrap()) != 1
    }
}

fn leads_out(folder: &Path, root: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        let data = std::fs::symlink_metadata(&path).unwrap();
        if data.is_symlink() {
            return !path.canonicalize().is_ok_and(|to| to.starts_with(root));
        }
        if data.is_dir() {
            return leads_out(&path, root);
        }
        !data.is_file() || data.permissions().mode() & 0o7000 != 0
    })
}

#[test]
fn a_hostile_tar_gets_out_of_the_folder_with_tar_and_not_with_ours() {
    use EntryType as T;
    let mut table = Table::default();
    let long = format!("output/{}evil", "../".repeat(3));
    let aside = |target: &Target, rest: &str| target.folder.path().join(rest).display().to_string();
    type Making<'a> = Box<dyn Fn(&Target) -> Vec<u8> + 'a>;
    type Entries<'a> = Vec<(&'a str, EntryType, &'a str)>;
    let fixed: Vec<(&str, Entries<'_>)> = vec![
        ("tar name with ..", vec![("../evil", T::Regular, "x")]),
        ("tar name with .. further in", vec![(&long, T::Regular, "x")]),
        ("tar folder with ..", vec![("../../evil", T::Directory, "")]),
        ("tar symlink up", vec![("output/up", T::Symlink, "../../../beside")]),
        (
            "tar symlink by its middle",
            vec![("output/d", T::Directory, ""), ("output/up", T::Symlink, "d/../../../beside")],
        ),
        ("tar symlink, then through it", vec![("output/up", T::Symlink, "../.."), ("output/up/evil", T::Regular, "x")]),
        (
            "tar symlink, then over it",
            vec![("output/v", T::Symlink, "../../../beside/victim"), ("output/v", T::Regular, "x")],
        ),
        ("tar hard link", vec![("output/v", T::Link, "../../beside/victim")]),
        ("tar device", vec![("output/null", T::Char, "")]),
        ("tar pipe", vec![("output/pipe", T::Fifo, "")]),
        ("tar set-uid file", vec![("output/sh", T::Regular, "x")]),
    ];
    let mut cases: Vec<(&str, Making<'_>)> = Vec::new();
    for (name, entries) in &fixed {
        cases.push((name, Box::new(move |_| tar_of(entries))));
    }
    cases.push(("tar absolute name", Box::new(move |target| tar_of(&[(&aside(target, "evil"), T::Regular, "x")]))));
    cases.push((
        "tar absolute symlink",
        Box::new(move |target| tar_of(&[("output/v", T::Symlink, &aside(target, "beside/victim"))])),
    ));
    for (name, tar) in cases {
        let (ours, theirs) = (Target::new(), Target::new());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&tar(&ours)).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        // Refused or without what leads out: either is right.
        let _ = fizz::cli::unpack::unpack(file, &ours.inner());
        let args = ["-x", "-P", "-p", "--keep-directory-symlink", "-f", "-"];
        piped(Command::new("tar").args(args).current_dir(theirs.inner()), &tar(&theirs));
        table.row(name, !ours.is_breached(), theirs.is_breached());
    }
    table.judge("tars");
}

fn piped(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that wants no more has said why.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// A coordinator and a node with the real engine.
struct World {
    market: Market,
    node: JoinHandle<Outcome>,
    _stop: watch::Sender<signals::Stop>,
    image: TestImage,
    /// Removes what its node has on the engine, probes of its network included.
    _left: TestNode,
}

impl World {
    async fn new() -> Self {
        let market = Market::open(200).await;
        let options = market.node(Some(market.join_token().await), Ceiling::default());
        let (stop, stopped) = signals::channel();
        let agent = agent::build(options, Clock::system()).await.unwrap();
        let node = tokio::spawn(agent.run(stopped));
        Self { _left: market.test_node().await, market, node, _stop: stop, image: TestImage::new() }
    }

    fn spec(&self, line: &str) -> Value {
        json!({
            "services": [{
                "name": "main", "image": self.image.name, "command": ["/bin/sh", "-c", line],
                "resources": {"cpu_millis": 500, "memory_bytes": 64 << 20, "disk_bytes": 64 << 20},
            }],
            "limits": {
                "price_max": 1_000_000, "duration_seconds_max": 60, "stop_grace_seconds": 1,
                "output_bytes_max": 1 << 20,
            },
            "output_path": "/output",
            "interactive": true,
        })
    }

    async fn submit(&self, spec: &Value) -> Result<JobId, String> {
        let spec = serde_json::from_value(spec.clone()).unwrap();
        let key = fizz::wire::LeaseId::generate(Clock::system().now()).to_string();
        self.market.renter.submit(&spec, &key).await.map(|made| made.job_id).map_err(|error| error.to_string())
    }

    /// Runs it to its end, or until it says something; and the most bytes that coordinator and node had on disk meanwhile.
    async fn until(&self, job: JobId, wished: impl Fn(&JobView) -> bool) -> (JobView, u64) {
        let mut most = 0;
        let view = in_time(async {
            loop {
                most = most.max(on_disk(self.market.folder.path()));
                let view = self.market.renter.job(job).await.unwrap();
                if wished(&view) {
                    return view;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        (view, most.max(on_disk(self.market.folder.path())))
    }

    /// The program a renter has.
    fn fizz(&self, args: &[&str]) -> Output {
        let home = self.market.folder.path().join("renter");
        std::fs::create_dir_all(&home).unwrap();
        Command::new(env!("CARGO_BIN_EXE_fizz"))
            .args(args)
            .current_dir(&home)
            .env_clear()
            .env("HOME", &home)
            .env("FIZZ_COORDINATOR", self.market.url())
            .env("FIZZ_CA_FILE", self.market.folder.path().join("coordinator/ca.pem"))
            .env("FIZZ_API_KEY", self.market.account.api_key.expose())
            .output()
            .unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.node.abort();
        for id in docker(&["ps", "-aq", "--filter", &format!("ancestor={}", self.image.name)]).lines() {
            docker_output(&["rm", "-f", id]);
        }
    }
}

fn on_disk(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => on_disk(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// How much of the output the engine would hand over, up to a little more than a job's whole disk.
fn bytes_of_raw_copy(image: &str, line: &str) -> usize {
    let raw = docker(&["run", "-d", "--network", "none", image, "sh", "-c", &format!("mkdir -p /output; {line}")]);
    docker(&["wait", &raw]);
    let copied =
        Command::new("sh").args(["-c", &format!("docker cp {raw}:/output - | head -c 70000000 | wc -c")]).output();
    docker_output(&["rm", "-f", &raw]);
    String::from_utf8(copied.unwrap().stdout).unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn an_output_that_is_larger_than_it_looks_is_cut_and_fills_neither_node_nor_coordinator() {
    let world = World::new().await;
    let mut table = Table::default();
    let before = on_disk(world.market.folder.path());
    for (name, line) in [
        ("output of holes below the disk", "busybox truncate -s 60M /output/bomb"),
        ("output of holes, 12 GB", "for n in $(seq 200); do busybox truncate -s 60M /output/bomb$n; done"),
        ("output of many small files", "cd /output; for n in $(seq 3000); do echo > f$n; done"),
    ] {
        let job = world.submit(&world.spec(line)).await.unwrap();
        let (view, most) = world.until(job, |view| view.state.is_final() && view.log_complete).await;
        let grown = most.saturating_sub(before);
        println!("{name}: {:?}, at most {grown} bytes more on disk; {}", view.outcome, view.why);
        let fetched = world.fizz(&["job", "output", &job.to_string(), "fetched"]);
        let blocked = view.output.is_none() && !fetched.status.success() && grown < 8 << 20;
        table.row(name, blocked, bytes_of_raw_copy(&world.image.name, line) > 1 << 20);
    }
    table.judge("outputs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn links_in_an_output_lead_nowhere_on_the_renters_machine() {
    let world = World::new().await;
    let mut table = Table::default();
    let target = Target::new();
    let victim = target.folder.path().join("beside/victim");
    let line = format!(
        "cd /output; ln -s {} absolute; ln -s ../../beside/victim relative; mkdir -p a; ln -s ../../../beside a/up; \
         ln /bin/busybox hard; ln -s /etc whole; echo fine > fine",
        victim.display()
    );
    let job = world.submit(&world.spec(&line)).await.unwrap();
    let (view, _) = world.until(job, |view| view.state.is_final()).await;
    assert!(view.state == JobState::Done && view.output.is_some(), "{}", view.why);
    let fetched = world.fizz(&["job", "output", &job.to_string(), &target.inner().display().to_string()]);
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    assert_eq!(std::fs::read(target.inner().join("fine")).unwrap(), b"fine\n");
    let raw = target.folder.path().join("deep/raw");
    let tar = target.folder.path().join("deep/it.tar");
    let saved = world.fizz(&["job", "output", &job.to_string(), "--tar", &tar.display().to_string()]);
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    std::fs::create_dir(&raw).unwrap();
    piped(Command::new("tar").args(["-x", "-P", "--strip-components=1", "-C"]).arg(&raw).arg("-f").arg(&tar), b"");
    for name in ["absolute", "relative", "a/up", "whole"] {
        let made = |folder: &Path| std::fs::symlink_metadata(folder.join(name)).is_ok();
        table.row(&format!("output link {name}"), !made(&target.inner()), made(&raw));
    }
    table.judge("links");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn a_name_that_leads_elsewhere_is_refused_wherever_a_job_may_give_one() {
    let world = World::new().await;
    let mut table = Table::default();
    let plain = world.spec("true");
    let job = world.submit(&plain).await.expect("the same job with plain names is taken");
    let (view, _) = world.until(job, |view| view.state.is_final()).await;
    assert_eq!(view.state, JobState::Done, "and runs: {}", view.why);
    // What a name like this does to a program that joins it to a folder of its own.
    let joined = |name: &str| {
        let target = Target::new();
        let path = target.inner().join(name.trim_start_matches('/'));
        let _ = std::fs::write(path, "x");
        target.is_breached()
    };
    let up = "/../../evil";
    let input = |path: &str| json!([{"url": "https://example.com/x", "sha256": "0".repeat(64), "path": path}]);
    for (name, field, value) in [
        ("service name", "/services/0/name", json!("../../evil")),
        ("service name, absolute", "/services/0/name", json!("/../../evil")),
        ("work folder", "/services/0/workdir", json!(up)),
        ("output path", "/output_path", json!(up)),
        ("input path", "/services/0/inputs", input(up)),
        ("input path below /work", "/services/0/inputs", input("/work/../../evil")),
    ] {
        let mut spec = plain.clone();
        let (parent, key) = field.rsplit_once('/').unwrap();
        let parent = if parent.is_empty() { &mut spec } else { spec.pointer_mut(parent).unwrap() };
        parent[key] = value.clone();
        let refused = world.submit(&spec).await;
        let shown = value.as_str().or_else(|| value.pointer("/0/path")?.as_str()).unwrap();
        table.row(name, refused.is_err(), joined(shown.strip_prefix("/work").unwrap_or(shown)));
    }
    image_names(&world, &mut table).await;
    copied_names(&world, &mut table).await;
    table.judge("names");
}

/// An image that is a path leads to no file; the control reads one so.
async fn image_names(world: &World, table: &mut Table) {
    let target = Target::new();
    std::fs::write(target.folder.path().join("beside/image"), "an image").unwrap();
    for image in ["../../beside/image", "file:///../../beside/image", "x/../../../beside/image"] {
        let mut spec = world.spec("true");
        spec["services"][0]["image"] = json!(image);
        let is_refused = match world.submit(&spec).await {
            Err(_) => true,
            Ok(job) => {
                let (view, _) = world.until(job, |view| view.state.is_final()).await;
                view.state != JobState::Done && view.started_at.is_none()
            }
        };
        let path = image.trim_start_matches("file:///").trim_start_matches("x/../");
        table.row(&format!("image {image}"), is_refused, std::fs::read(target.inner().join(path)).is_ok());
    }
}

/// `fizz cp` into a running job, against `docker cp`.
async fn copied_names(world: &World, table: &mut Table) {
    let line = "mkdir -p /work/mine; ln -s /etc /work/link; echo ready; sleep 50";
    let job = world.submit(&world.spec(line)).await.unwrap();
    let (view, _) =
        world.until(job, |view| view.state.is_final() || view.state == JobState::Running && view.log_bytes > 0).await;
    assert_eq!(view.state, JobState::Running, "{}", view.why);
    let lease = format!("label=io.fizz.lease={}", view.lease.unwrap().lease_id);
    let container = docker(&["ps", "-q", "--filter", &lease]);
    let raw =
        docker(&["run", "-d", "--network", "none", &world.image.name, "sh", "-c", &format!("mkdir /work; {line}")]);
    let here = world.market.folder.path().join("evil");
    std::fs::write(&here, "x").unwrap();
    let here = here.display().to_string();
    let fine = world.fizz(&["cp", &here, &format!("{job}:/work/mine")]);
    assert!(fine.status.success(), "{}", String::from_utf8_lossy(&fine.stderr));
    let has_evil = |id: &str| docker_output(&["cp", &format!("{id}:/etc/evil"), "-"]).status.success();
    for path in ["/work/../etc", "/work/link", "/etc", "/work/mine/../../etc/evil"] {
        let refused = world.fizz(&["cp", &here, &format!("{job}:{path}")]);
        let blocked = !refused.status.success() && !has_evil(&container);
        docker_output(&["exec", &raw, "rm", "-f", "/etc/evil"]);
        docker_output(&["cp", &here, &format!("{raw}:{path}")]);
        table.row(&format!("copy to {path}"), blocked, has_evil(&raw));
    }
    let tars = [
        ("copied tar with ..", tar_of(&[("../etc/evil", EntryType::Regular, "x")])),
        (
            "copied tar through a link",
            tar_of(&[("l", EntryType::Symlink, "../etc"), ("l/evil", EntryType::Regular, "x")]),
        ),
    ];
    // A program that unpacks into the container's files from outside and believes what it reads.
    let files = Path::new(&docker(&["inspect", "-f", "{{.GraphDriver.Data.MergedDir}}", &raw])).join("work");
    for (name, tar) in tars {
        docker_output(&["exec", &raw, "rm", "-rf", "/etc/evil", "/work/l"]);
        let refused = copy_tar(world, job, &tar).await;
        piped(Command::new("tar").args(["-x", "-P", "--keep-directory-symlink", "-f", "-"]).current_dir(&files), &tar);
        table.row(name, refused && !has_evil(&container), has_evil(&raw));
    }
    docker_output(&["rm", "-f", &raw]);
}

/// As a renter's program that does not check would send it; whether it was refused.
async fn copy_tar(world: &World, job: JobId, tar: &[u8]) -> bool {
    use fizz::wire::reach::{NewReach, ReachFrame, ReachWish};
    let what = ReachWish::CopyIn { path: "/work".to_owned() };
    let (input, mut session) = world.market.renter.reach(job, &NewReach { service: None, what }).await.unwrap();
    input.send(&ReachFrame::Input(tar.to_vec().into())).await;
    input.send(&ReachFrame::InputEnd).await;
    let ended = in_time(session.next()).await.unwrap();
    matches!(ended, ReachFrame::Error(_))
}
