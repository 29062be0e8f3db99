//! What the tests with a real engine share: its command line, images made on the spot, containers and leases, a registry, engines of
//! a test's own, and cleaning up.

#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod container;
mod image;
pub(crate) mod lease_bench;
#[cfg(feature = "coordinator")]
pub(crate) mod market;
pub(crate) mod ordinary_user;
pub(crate) mod own_engine;
pub(crate) mod raw_tar;
mod registry;

use std::process::{Command, Output};
use std::time::Duration;

pub(crate) use container::{TestNode, ran, said, shell, spec, start};
pub(crate) use image::{Root, TestImage, here, lent_image};
pub(crate) use registry::{REGISTRY_LOGIN, Registry};

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

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for something outside this process, looking every few milliseconds.
#[allow(clippy::disallowed_methods, reason = "another process is waited for; there is nothing to be woken by")]
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
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
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
