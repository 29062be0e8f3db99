//! What the attempts need around them: an image with the prober and something to steal in it, a process and a listener outside.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::docker_support::{Root, TestImage, docker};

/// Capabilities by their number.
const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
];

/// Removed when dropped.
pub(crate) struct Stage {
    /// An image that its owner lends.
    pub(crate) image: TestImage,
    outside: Child,
    listener: TcpListener,
    gateway: String,
}

impl Stage {
    pub(crate) fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let prober = folder.path().join("prober");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox_probes/prober.c");
        // Without optimisation: what fills memory for nothing would be left out.
        let built = Command::new("cc").args(["-static", "-O0", "-w", "-o"]).arg(&prober).arg(&source).status().unwrap();
        assert!(built.success(), "the prober could not be built");
        let image = TestImage::of(files(&std::fs::read(&prober).unwrap()), &serde_json::json!({}));
        let outside = Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap();
        let gateway = docker(&["network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"]);
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        Self { image, outside, listener, gateway }
    }

    /// The command of all attempts.
    pub(crate) fn prober(&self) -> Vec<String> {
        let port = self.listener.local_addr().unwrap().port();
        vec!["/bin/prober".to_owned(), self.outside.id().to_string(), self.gateway.clone(), port.to_string()]
    }

    /// All attempts in a container with every capability that this machine has to give, without filters, in the host's process and
    /// group namespaces, with the engine's socket.
    pub(crate) fn without_the_sandbox(&self) -> String {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let bound = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
        let bound = u64::from_str_radix(bound.trim(), 16).unwrap();
        let mut words = vec!["run".to_owned(), "--rm".to_owned()];
        let held = CAPABILITIES.iter().enumerate().filter(|(number, _)| bound >> number & 1 == 1);
        words.extend(held.map(|(_, name)| format!("--cap-add={name}")));
        for option in [
            "--pid=host",
            "--cgroupns=host",
            "--security-opt=seccomp=unconfined",
            "--security-opt=apparmor=unconfined",
            "--security-opt=systempaths=unconfined",
            "--volume=/var/run/docker.sock:/var/run/docker.sock",
            "--volume=/sys/fs/cgroup:/sys/fs/cgroup",
            &self.image.name,
        ] {
            words.push(option.to_owned());
        }
        words.extend(self.prober());
        docker(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}

/// A busybox, the prober, a program with the set-user-id bit, and a file that only root may read.
fn files(prober: &[u8]) -> Root {
    let root = Root::busybox()
        .file("bin/prober", prober, 0o755)
        .file("bin/asroot", prober, 0o4755)
        .folder("etc", 0o755)
        .file("etc/secret", b"secret", 0o400)
        .file("etc/passwd", b"root:x:0:0:::\nnobody:x:65532:65532:::\n", 0o644);
    ["mnt", "tmp", "work"].iter().fold(root, |root, folder| root.folder(folder, 0o777))
}
