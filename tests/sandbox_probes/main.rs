//! Attempts to get out of a job's container, each made twice: in a container as a job gets it, where all must fail, and in one with
//! the sandbox off, which shows that the attempt itself works. An attempt that this machine's kernel refuses to everybody shows
//! nothing and is not counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

#[path = "../docker_support/mod.rs"]
mod docker_support;
#[cfg(all(target_os = "linux", feature = "coordinator"))]
mod names;
mod stage;

use std::collections::BTreeMap;

use docker_support::{TestNode, docker, docker_output, in_time, ran, spec, start};
use fizz::runtime::docker::DockerRuntime;
use fizz::runtime::{ContainerRuntime, ContainerSpec};
use stage::Stage;

/// Attempts that must be shown to work without the sandbox.
const SHOWN_MIN: usize = 40;

/// What root of a container may do to the container's own files: they are the job's.
const OWN_FILES: &[&str] = &["dac_override", "fowner", "write_image", "replace_program"];

/// Name of each attempt, and whether it went.
type Outcomes = BTreeMap<String, bool>;

fn outcomes(said: &str) -> Outcomes {
    let pairs = said.lines().filter_map(|line| line.rsplit_once(' '));
    let told = pairs.filter(|(_, how)| matches!(*how, "went" | "failed"));
    told.map(|(name, how)| (name.to_owned(), how == "went")).collect()
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn every_attempt_to_get_out_fails_in_the_sandbox_and_works_without_it() {
    let stage = Stage::set();
    let runtime = DockerRuntime::connect(None).await.unwrap();
    let node = TestNode::new();
    let pinned = stage.image.pin(&runtime).await;
    let words = stage.prober();
    let mut job = spec(node.node_id, &pinned, &words.iter().map(String::as_str).collect::<Vec<_>>());
    job.shm_bytes = Some(16 << 20);
    let nobody = outcomes(&ran(&runtime, &job).await);
    let lease_id = spec(node.node_id, &pinned, &[]).lease_id;
    let root = outcomes(&ran(&runtime, &ContainerSpec { root: true, lease_id, ..job }).await);
    let loose = outcomes(&stage.without_the_sandbox());

    let mut shown = 0;
    let mut got_out = Vec::new();
    println!("{:<22} {:<8} {:<8} control succeeded", "probe", "blocked", "as root");
    for (name, went) in &loose {
        let (as_nobody, as_root) = (nobody[name], root[name] && !OWN_FILES.contains(&name.as_str()));
        println!("{name:<22} {:<8} {:<8} {went}", !as_nobody, !as_root);
        shown += usize::from(*went);
        if as_nobody || as_root {
            got_out.push(name);
        }
    }
    println!("{} probes, {shown} shown to work without the sandbox, {} went in it", loose.len(), got_out.len());
    assert_eq!(nobody.len(), loose.len(), "every attempt was made");
    assert_eq!(root.len(), loose.len(), "every attempt was made as root");
    assert_eq!(got_out, Vec::<&String>::new());
    assert!(shown >= SHOWN_MIN, "{shown} attempts were shown to work without the sandbox");
}

/// Bytes that the engine keeps for a container beside its files.
fn kept(id: &str) -> u64 {
    fn size(path: &std::path::Path) -> u64 {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .map(|entry| match entry.metadata() {
                Ok(data) if data.is_dir() => size(&entry.path()),
                Ok(data) => data.len(),
                Err(_) => 0,
            })
            .sum()
    }
    let root = docker(&["info", "-f", "{{.DockerRootDir}}"]);
    size(&std::path::Path::new(&root).join("containers").join(id))
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_log_bomb_fills_no_disk_in_the_sandbox_and_does_without_it() {
    const LINE: &str = "yes a-line-of-a-log-that-nobody-wants-to-read | head -c 40000000";
    let stage = Stage::set();
    let runtime = DockerRuntime::connect(None).await.unwrap();
    let node = TestNode::new();
    let pinned = stage.image.pin(&runtime).await;
    let job = spec(node.node_id, &pinned, &["/bin/sh", "-c", LINE]);
    let id = start(&runtime, &job).await;
    in_time(runtime.wait(&id)).await.unwrap();
    let in_the_sandbox = kept(&id.0);

    let plain = docker(&["run", "-d", "--network", "none", &stage.image.name, "/bin/sh", "-c", LINE]);
    docker(&["wait", &plain]);
    let without = kept(&plain);
    docker_output(&["rm", "-f", &plain]);
    println!("log kept: {in_the_sandbox} bytes in the sandbox, {without} without it");
    assert!(without > 40_000_000, "{without}");
    assert!(in_the_sandbox < 8 << 20, "{in_the_sandbox}");
}
