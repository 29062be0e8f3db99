//! A user without rights who is made for one test and leaves nothing behind: the lists of users and of their subordinate numbers are
//! replaced in a mount namespace only, and everything that runs for this user is in a process namespace that ends with the test.
//! Needs root, and the package uidmap.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::wait_for;

const NAME: &str = "fizz-nobody";
/// Users and groups of this machine are elsewhere.
const ID: u32 = 54_321;
/// Those that this user may give to containers.
const SUBORDINATE: u32 = 1_700_000;

/// What is done as root before the user is there. A device that everybody may open stands in for the one that Debian keeps for root
/// where no udev runs.
const SET_UP: &str = r#"
set -e
for list in passwd group subuid subgid; do mount --bind "$1/etc/$list" "/etc/$list"; done
mount -t tmpfs none "$1/dev"
mknod "$1/dev/tun" c 10 200
chmod 666 "$1/dev/tun"
if [ -e /dev/net/tun ]; then mount --bind "$1/dev/tun" /dev/net/tun; fi
mount --bind "$2" "$1/fizz"
touch "$1/ready"
# The test holds the other end, so that all this ends with it, however it ends.
exec cat
"#;

/// A user of the test's own; whatever it runs ends when this is dropped.
pub(crate) struct OrdinaryUser {
    /// Keeps the namespaces.
    keeper: Child,
    folder: tempfile::TempDir,
}

impl OrdinaryUser {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        for (name, mode) in [("etc", 0o755), ("dev", 0o755), ("home", 0o700), ("run", 0o700), ("engine", 0o711)] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        }
        for (list, line) in [
            ("passwd", format!("{NAME}:x:{ID}:{ID}::{}:/bin/sh", at("home").display())),
            ("group", format!("{NAME}:x:{ID}:")),
            ("subuid", format!("{NAME}:{SUBORDINATE}:65536")),
            ("subgid", format!("{NAME}:{SUBORDINATE}:65536")),
        ] {
            let real =
                std::fs::read_to_string(Path::new("/etc").join(list)).expect("this test needs the package passwd");
            std::fs::write(at("etc").join(list), format!("{}\n{line}\n", real.trim_end())).unwrap();
        }
        std::fs::write(at("fizz"), "").unwrap();
        for name in ["home", "run", "engine"] {
            std::os::unix::fs::chown(at(name), Some(ID), Some(ID)).unwrap();
        }
        let keeper = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation", "private"])
            .args(["sh", "-c", SET_UP, "set-up"])
            .arg(folder.path())
            .arg(env!("CARGO_BIN_EXE_fizz"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let user = Self { keeper, folder };
        wait_for("a user of the test's own", || user.folder.path().join("ready").exists());
        user
    }

    pub(crate) const fn id(&self) -> u32 {
        ID
    }

    /// The first of the numbers that stand for this user's containers.
    pub(crate) const fn subordinate(&self) -> u32 {
        SUBORDINATE
    }

    pub(crate) const fn name(&self) -> &'static str {
        NAME
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Where its sockets lie.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Where an engine may keep its data: mapped users of containers can pass through.
    pub(crate) fn engine_dir(&self) -> PathBuf {
        self.folder.path().join("engine")
    }

    /// The program under test, at a place where this user may read it.
    pub(crate) fn fizz(&self) -> PathBuf {
        self.folder.path().join("fizz")
    }

    /// A file of this user's.
    pub(crate) fn write(&self, path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        std::os::unix::fs::chown(path, Some(ID), Some(ID)).unwrap();
    }

    /// A program as this user. What answers to the command is `nsenter`; see [`OrdinaryUser::kill`].
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.enter();
        command.args(["setpriv", "--reuid"]).arg(ID.to_string()).arg("--regid").arg(ID.to_string());
        command.args(["--clear-groups", "--inh-caps=-all", "--"]).arg(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.home())
            .env("USER", NAME)
            .env("XDG_RUNTIME_DIR", self.runtime_dir())
            .current_dir(self.home())
            .stdin(Stdio::null());
        command
    }

    /// A program as root among this user's mounts and processes; `unshare` may come first.
    pub(crate) fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--pid", "--target", &self.first().to_string()]);
        command
    }

    /// The first process of the namespace.
    fn first(&self) -> u32 {
        child_of(self.keeper.id()).expect("the keeper has its child")
    }
}

/// Kills the program that an `nsenter` runs, with SIGKILL, and waits for it.
pub(crate) fn kill(entered: &mut Child) {
    if let Some(program) = child_of(entered.id()) {
        // It may have ended by itself.
        let _ = Command::new("kill").args(["-KILL", &program.to_string()]).status();
    }
    let _ = entered.wait();
}

fn child_of(parent: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

impl Drop for OrdinaryUser {
    fn drop(&mut self) {
        // With its first process the kernel ends all of the namespace, and with the last of those the mounts go.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
