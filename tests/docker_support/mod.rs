//! What the tests with a real engine share: images made on the spot, a registry, and cleaning up.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

pub(crate) mod own_engine;

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use fizz::clock::Clock;
use fizz::runtime::{ContainerSpec, PinnedImage};
use fizz::wire::{LeaseId, NodeId};
use sha2::{Digest as _, Sha256};

/// What every container of the tests can run.
pub(crate) const APPLETS: &[&str] = &[
    "sh", "cat", "dd", "echo", "env", "false", "grep", "head", "id", "kill", "ls", "mkdir", "printf", "pwd", "seq",
    "sleep", "tail", "touch", "tr", "true", "wc", "yes", "ip", "chmod", "rm", "chown", "cp", "df", "ln", "mount",
    "xargs",
];

/// Runs the docker command line and fails with its words.
pub(crate) fn docker(args: &[&str]) -> String {
    let output = docker_output(args);
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs the docker command line, whatever comes of it.
pub(crate) fn docker_output(args: &[&str]) -> Output {
    Command::new("docker").args(args).output().unwrap()
}

/// An image of this machine's static busybox; removed when dropped.
pub(crate) struct TestImage {
    /// A name no registry knows.
    pub(crate) name: String,
}

impl TestImage {
    /// An image for this machine.
    pub(crate) fn new() -> Self {
        Self::for_architecture(if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "busybox", &[])
    }

    /// An image that says it is for another machine, or holds more files.
    pub(crate) fn for_architecture(architecture: &str, tag: &str, files: &[(&str, Vec<u8>)]) -> Self {
        Self::make(architecture, tag, files, &[("io.fizz.shared", "true")])
    }

    /// An image for this machine that its owner does not lend.
    pub(crate) fn private() -> Self {
        Self::make(if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "private", &[], &[])
    }

    /// An image for this machine with more files, symbolic links (path, target) and settings.
    pub(crate) fn with(files: &[(&str, Vec<u8>)], links: &[(&str, &str)], settings: &serde_json::Value) -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Self::load(architecture, "with", &[("io.fizz.shared", "true")], layer_tar(files, links), settings)
    }

    fn make(architecture: &str, tag: &str, files: &[(&str, Vec<u8>)], labels: &[(&str, &str)]) -> Self {
        Self::load(architecture, tag, labels, layer_tar(files, &[]), &serde_json::json!({}))
    }

    fn load(
        architecture: &str,
        tag: &str,
        labels: &[(&str, &str)],
        layer: Vec<u8>,
        settings: &serde_json::Value,
    ) -> Self {
        let id = LeaseId::generate(Clock::system().now());
        let name = format!("fizz-test-{id}:{tag}");
        load(&image_tar(&name, architecture, layer, labels, settings));
        Self { name }
    }

    /// Makes sure it is here, as a job would.
    pub(crate) async fn pin(&self, runtime: &dyn fizz::runtime::ContainerRuntime) -> PinnedImage {
        runtime.ensure_image(&self.name, tokio::sync::mpsc::channel(1).0).await.unwrap()
    }
}

impl Drop for TestImage {
    fn drop(&mut self) {
        docker_output(&["rmi", "-f", &self.name]);
    }
}

fn load(tar: &[u8]) {
    let mut child =
        Command::new("docker").args(["load", "-q"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(tar).unwrap();
    assert!(child.wait().unwrap().success(), "docker load");
}

/// The archive of an image of this machine's busybox that its owner lends.
pub(crate) fn lent_image(name: &str) -> Vec<u8> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    image_tar(name, architecture, layer_tar(&[], &[]), &[("io.fizz.shared", "true")], &serde_json::json!({}))
}

/// What `docker save` would have written: one layer, a configuration and a manifest.
fn image_tar(
    name: &str,
    architecture: &str,
    layer: Vec<u8>,
    labels: &[(&str, &str)],
    settings: &serde_json::Value,
) -> Vec<u8> {
    let mut labels: std::collections::BTreeMap<_, _> = labels.iter().copied().collect();
    labels.extend([("io.fizz.test", "1"), ("name", name)]);
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(&layer)));
    let mut own = serde_json::json!({"Env": ["PATH=/bin"], "Labels": labels});
    own.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": own,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    })
    .to_string();
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in
        [("layer.tar", layer.as_slice()), ("config.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())]
    {
        add_file(&mut tar, path, bytes, 0o644);
    }
    tar.into_inner().unwrap()
}

fn layer_tar(files: &[(&str, Vec<u8>)], links: &[(&str, &str)]) -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("the tests need busybox-static: apt-get install busybox-static");
    let mut tar = tar::Builder::new(Vec::new());
    for folder in ["bin", "etc"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        tar.append_data(&mut header, folder, std::io::empty()).unwrap();
    }
    add_file(&mut tar, "bin/busybox", &busybox, 0o755);
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    add_file(&mut tar, "etc/not-executable", b"text", 0o644);
    for (path, bytes) in files {
        add_file(&mut tar, path, bytes, 0o644);
    }
    for (path, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, path, target).unwrap();
    }
    tar.into_inner().unwrap()
}

fn add_file(tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, path, bytes).unwrap();
}

/// A node of a test; its containers are removed when it is dropped.
pub(crate) struct TestNode {
    pub(crate) node_id: NodeId,
}

impl TestNode {
    pub(crate) fn new() -> Self {
        Self { node_id: NodeId::generate(Clock::system().now()) }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        let filter = format!("label=io.fizz.node={}", self.node_id);
        let ids = docker(&["ps", "-aq", "--filter", &filter]);
        for id in ids.lines() {
            docker_output(&["rm", "-f", id]);
        }
        for id in docker(&["network", "ls", "-q", "--filter", &filter]).lines() {
            docker_output(&["network", "rm", id]);
        }
    }
}

/// A container that runs a shell line.
pub(crate) fn shell(node: NodeId, image: &PinnedImage, line: &str) -> ContainerSpec {
    spec(node, image, &["/bin/sh", "-c", line])
}

/// A container that runs a command.
pub(crate) fn spec(node: NodeId, image: &PinnedImage, command: &[&str]) -> ContainerSpec {
    ContainerSpec {
        generation: 7,
        command: command.iter().map(|&word| word.to_owned()).collect(),
        settings: image.settings.clone(),
        ..ContainerSpec::new(node, LeaseId::generate(Clock::system().now()), image.image_id.clone())
    }
}

/// A registry on loopback; stopped when dropped.
pub(crate) struct Registry {
    child: Child,
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    /// Holds what it stores, and a configuration of the docker command line that may push to it.
    folder: tempfile::TempDir,
}

/// Whom [`Registry::with_login`] lets in.
pub(crate) const REGISTRY_LOGIN: (&str, &str) = ("renter", "sesame-of-the-test");
/// The same as `htpasswd -B` writes it.
const REGISTRY_HTPASSWD: &str = "renter:$2b$04$HNQ4lwj.ANWUsEd/HJFi2.0zzpqgjJbsotAuuEF45n43mLU6u9tf2\n";

impl Registry {
    pub(crate) fn start() -> Self {
        Self::serve(false)
    }

    /// One that asks for [`REGISTRY_LOGIN`].
    pub(crate) fn with_login() -> Self {
        Self::serve(true)
    }

    fn serve(login: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
            folder.path().display()
        );
        let passwords = folder.path().join("htpasswd");
        std::fs::write(&passwords, REGISTRY_HTPASSWD).unwrap();
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", passwords.display());
        let config = if login { config + &auth } else { config };
        let pair =
            base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", REGISTRY_LOGIN.0, REGISTRY_LOGIN.1));
        let client = serde_json::json!({"auths": {address.as_str(): {"auth": pair}}});
        std::fs::write(folder.path().join("config.json"), client.to_string()).unwrap();
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tests need a registry: apt-get install docker-registry");
        let registry = Self { child, address, folder };
        wait_for("the registry", || std::net::TcpStream::connect(&registry.address).is_ok());
        registry
    }

    /// Pushes a local image, lets go of it here, and answers the name it has in the registry.
    pub(crate) fn push(&self, image: &TestImage, name: &str) -> String {
        let full = format!("{}/{name}", self.address);
        docker(&["tag", &image.name, &full]);
        docker(&["--config", self.folder.path().to_str().unwrap(), "push", "-q", &full]);
        docker(&["rmi", &full]);
        full
    }

    /// Stores some bytes and answers their digest.
    pub(crate) fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        let opened = self.http("POST", &format!("/v2/{repository}/blobs/uploads/"), "text/plain", b"");
        let location =
            opened.lines().find_map(|line| line.to_lowercase().starts_with("location: ").then(|| &line[10..]));
        let location = location.unwrap().split_once(&self.address).unwrap().1.to_owned();
        let to = format!("{location}&digest={digest}");
        assert!(self.http("PUT", &to, "application/octet-stream", bytes).contains(" 201 "), "a blob is taken");
        digest
    }

    /// Stores a manifest under a tag.
    pub(crate) fn push_manifest(&self, repository: &str, tag: &str, manifest: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let answer = self.http("PUT", &path, "application/vnd.oci.image.manifest.v1+json", manifest);
        assert!(answer.contains(" 201 "), "{answer}");
    }

    fn http(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> String {
        use std::io::Read as _;
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for something outside this process, looking every few milliseconds.
#[allow(clippy::disallowed_methods, reason = "another process is waited for; there is nothing to be woken by")]
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} did not come up");
}

pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("in time")
}

/// Resident memory of this process in bytes.
pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string(Path::new("/proc/self/statm")).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
