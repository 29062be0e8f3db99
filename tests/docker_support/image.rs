//! Images made on the spot of this machine's static busybox.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use fizz::clock::Clock;
use fizz::runtime::{ContainerRuntime, LABEL_SHARED, PinnedImage};
use fizz::wire::LeaseId;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::docker_output;

/// What every container of the tests can run by its name.
const APPLETS: &[&str] = &[
    "sh", "cat", "dd", "echo", "env", "false", "grep", "head", "id", "kill", "ls", "mkdir", "printf", "pwd", "seq",
    "sleep", "tail", "touch", "tr", "true", "wc", "yes", "ip", "chmod", "rm", "chown", "cp", "df", "ln", "mount",
    "xargs",
];

/// What an owner puts on an image that jobs may use.
const LENT: &[(&str, &str)] = &[(LABEL_SHARED, "true")];

/// This machine's architecture, as images name it.
pub(crate) fn here() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// An image of this machine's static busybox; removed when dropped.
pub(crate) struct TestImage {
    /// A name no registry knows.
    pub(crate) name: String,
}

impl TestImage {
    /// An image for this machine.
    pub(crate) fn new() -> Self {
        Self::of(Root::with_text(), &json!({}))
    }

    /// An image that says it is for another machine, or holds more files.
    pub(crate) fn for_architecture(architecture: &str, tag: &str, files: &[(&str, Vec<u8>)]) -> Self {
        Self::load(architecture, tag, LENT, Root::with_text().files(files), &json!({}))
    }

    /// An image for this machine that its owner does not lend.
    pub(crate) fn private() -> Self {
        Self::load(here(), "private", &[], Root::with_text(), &json!({}))
    }

    /// An image for this machine with these files and settings.
    pub(crate) fn of(root: Root, settings: &Value) -> Self {
        Self::load(here(), "busybox", LENT, root, settings)
    }

    fn load(architecture: &str, tag: &str, labels: &[(&str, &str)], root: Root, settings: &Value) -> Self {
        let id = LeaseId::generate(Clock::system().now());
        let name = format!("fizz-test-{id}:{tag}");
        let tar = image_tar(&name, architecture, &root.finish(), labels, settings);
        let mut load = Command::new("docker");
        let mut child = load.args(["load", "-q"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&tar).unwrap();
        assert!(child.wait().unwrap().success(), "docker load");
        Self { name }
    }

    /// Makes sure it is here, as a job would.
    pub(crate) async fn pin(&self, runtime: &dyn ContainerRuntime) -> PinnedImage {
        runtime.ensure_image(&self.name, tokio::sync::mpsc::channel(1).0).await.unwrap()
    }
}

impl Drop for TestImage {
    fn drop(&mut self) {
        docker_output(&["rmi", "-f", &self.name]);
    }
}

/// The archive of an image of this machine's busybox that its owner lends.
pub(crate) fn lent_image(name: &str) -> Vec<u8> {
    image_tar(name, here(), &Root::with_text().finish(), LENT, &json!({}))
}

/// What `docker save` would have written: one layer, a configuration and a manifest.
fn image_tar(name: &str, architecture: &str, layer: &[u8], labels: &[(&str, &str)], settings: &Value) -> Vec<u8> {
    let mut labels: BTreeMap<_, _> = labels.iter().copied().collect();
    labels.extend([("io.fizz.test", "1"), ("name", name)]);
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(layer)));
    let mut own = json!({"Env": ["PATH=/bin"], "Labels": labels});
    own.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let config = json!({
        "architecture": architecture, "os": "linux", "config": own,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    Root(tar::Builder::new(Vec::new()))
        .file("layer.tar", layer, 0o644)
        .file("config.json", config.to_string().as_bytes(), 0o644)
        .file("manifest.json", manifest.to_string().as_bytes(), 0o644)
        .finish()
}

/// The files of a container, as a tar in the making.
pub(crate) struct Root(tar::Builder<Vec<u8>>);

impl Root {
    /// A busybox and its names.
    pub(crate) fn busybox() -> Self {
        let busybox =
            std::fs::read("/bin/busybox").expect("the tests need busybox-static: apt-get install busybox-static");
        let root = Self(tar::Builder::new(Vec::new())).folder("bin", 0o755).file("bin/busybox", &busybox, 0o755);
        APPLETS.iter().fold(root, |root, applet| root.link(&format!("bin/{applet}"), "busybox"))
    }

    /// The same with a file that cannot be run.
    pub(crate) fn with_text() -> Self {
        Self::busybox().folder("etc", 0o755).file("etc/not-executable", b"text", 0o644)
    }

    pub(crate) fn file(mut self, path: &str, bytes: &[u8], mode: u32) -> Self {
        let mut header = header(tar::EntryType::Regular, mode);
        header.set_size(bytes.len() as u64);
        self.0.append_data(&mut header, path, bytes).unwrap();
        self
    }

    fn files(self, files: &[(&str, Vec<u8>)]) -> Self {
        files.iter().fold(self, |root, (path, bytes)| root.file(path, bytes, 0o644))
    }

    pub(crate) fn folder(mut self, path: &str, mode: u32) -> Self {
        self.0.append_data(&mut header(tar::EntryType::Directory, mode), path, std::io::empty()).unwrap();
        self
    }

    /// A symbolic link.
    pub(crate) fn link(mut self, path: &str, target: &str) -> Self {
        self.0.append_link(&mut header(tar::EntryType::Symlink, 0o777), path, target).unwrap();
        self
    }

    /// The tar.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(mode);
    header
}
