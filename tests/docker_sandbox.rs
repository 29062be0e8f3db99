//! What a container gets over a real engine, read from inside it, and what becomes of jobs that write too much.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use std::collections::BTreeMap;
use std::time::Duration;

use docker_support::lease_bench::{LeaseBench, end};
use docker_support::{Root, TestImage, TestNode, docker, docker_output, in_time, ran, said, shell, start};
use fizz::config::{Ceiling, RootRule, SandboxConfig};
use fizz::job::fake::Received;
use fizz::runtime::docker::{DockerOptions, DockerRuntime};
use fizz::runtime::{ContainerRuntime, ContainerSpec, RuntimeError};
use fizz::wire::lease::{LeaseEnd, LimitKind};
use fizz::wire::logs::LogStream;
use futures_util::StreamExt as _;
use serde_json::json;

async fn engine() -> DockerRuntime {
    DockerRuntime::connect(None).await.unwrap()
}

/// The part of an output between the line `name:` and the next blank one.
fn part<'a>(output: &'a str, name: &str) -> &'a str {
    let (_, rest) = output.split_once(&format!("\n{name}:\n")).unwrap_or_else(|| panic!("no {name}: {output}"));
    rest.split("\n\n").next().unwrap()
}

const LOOK: &str = r#"
show() { echo; echo "$1:"; shift; "$@" 2>&1; echo; }
show status cat /proc/self/status
show id id
show limits cat /proc/self/limits
show mounts cat /proc/self/mounts
show score cat /proc/self/oom_score_adj
show cgroup cat /proc/self/cgroup
show where pwd
show home sh -c 'echo $HOME'
show work sh -c 'echo mine > /work/file && cat /work/file; ls -ldn /work /output'
show refused sh -c 'for f in /etc/x /bin/x /x /proc/sys/kernel/hostname /sys/x; do echo > $f; done'
show exec sh -c 'cp /bin/busybox /tmp/echo; chmod 755 /tmp/echo; /tmp/echo ran; cp /bin/busybox /work/echo; /work/echo ran'
show links ls -l /proc/self/ns
"#;

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_job_is_nobody_with_no_rights_in_a_box_of_limited_size() {
    let (image, node, runtime) = (TestImage::new(), TestNode::new(), engine().await);
    let pinned = image.pin(&runtime).await;
    let mut spec = shell(node.node_id, &pinned, LOOK);
    spec.output_path = Some("/output".to_owned());
    spec.shm_bytes = Some(1 << 20);
    let seen = ran(&runtime, &spec).await;

    let status: BTreeMap<&str, &str> = part(&seen, "status").lines().filter_map(|l| l.split_once(":\t")).collect();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"));
    assert_eq!(status["Uid"], "65532\t65532\t65532\t65532");
    assert!(part(&seen, "id").starts_with("uid=65532 gid=65532"), "{seen}");
    assert_eq!(part(&seen, "where"), "/work");
    assert_eq!(part(&seen, "home"), "/work");
    assert_eq!(part(&seen, "score"), "900");

    let limits = part(&seen, "limits");
    for (name, value) in [("Max open files", "16384"), ("Max core file size", "0"), ("Max locked memory", "65536")] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let numbers: Vec<&str> = line[name.len()..].split_whitespace().take(2).collect();
        assert_eq!(numbers, [value, value], "{name}");
    }

    let mounts = part(&seen, "mounts");
    let options = |path: &str| -> Vec<String> {
        let line = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(path));
        line.unwrap_or_else(|| panic!("{path}: {mounts}")).split([' ', ',']).map(str::to_owned).collect()
    };
    for path in ["/tmp", "/run", "/var/tmp"] {
        let options = options(path);
        for wanted in ["tmpfs", "nosuid", "nodev", "noexec"] {
            assert!(options.iter().any(|option| option == wanted), "{path} {wanted}: {options:?}");
        }
        assert!(options.iter().any(|option| option.starts_with("size=")), "{path}: {options:?}");
    }
    assert!(options("/dev/shm").contains(&"size=1024k".to_owned()), "{:?}", options("/dev/shm"));
    assert!(options("/sys").contains(&"ro".to_owned()) && options("/proc/sys").contains(&"ro".to_owned()));

    let work = part(&seen, "work");
    assert!(work.starts_with("mine\n"), "{work}");
    assert_eq!(work.matches("65532").count(), 4, "both folders are the job's: {work}");
    let refused = part(&seen, "refused");
    assert_eq!(refused.lines().count(), 5, "{refused}");
    let exec = part(&seen, "exec");
    assert!(exec.contains("/tmp/echo: Permission denied") && exec.ends_with("ran"), "{exec}");
    assert!(part(&seen, "cgroup").lines().all(|line| line.ends_with(":/")), "a cgroup namespace of its own");
    for (name, id) in std::fs::read_dir("/proc/self/ns").unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_link(&path).unwrap())
    }) {
        let shared = seen.contains(&id.to_string_lossy().into_owned());
        let may_be_shared = ["user", "time", "time_for_children"].contains(&name.as_str());
        assert!(!shared || may_be_shared, "the host's {name} namespace is the job's");
    }

    let host: serde_json::Value = serde_json::from_str(&docker(&[
        "inspect",
        "-f",
        "{{json .HostConfig}}",
        &runtime.list(node.node_id).await.unwrap()[0].id.0,
    ]))
    .unwrap();
    assert_eq!((host["CpuShares"].as_i64(), host["OomScoreAdj"].as_i64()), (Some(64), Some(900)));
    for empty in ["Binds", "CapAdd", "Devices", "DeviceRequests", "GroupAdd", "VolumesFrom", "Mounts", "PortBindings"] {
        let value = &host[empty];
        let is_empty = value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty);
        assert!(is_empty, "{empty}: {value}");
    }
    for (name, own) in
        [("PidMode", ""), ("UTSMode", ""), ("UsernsMode", ""), ("IpcMode", "private"), ("CgroupnsMode", "private")]
    {
        assert_eq!(host[name], own, "{name}");
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn without_disk_nothing_but_memory_can_be_written() {
    let (image, node, runtime) = (TestImage::new(), TestNode::new(), engine().await);
    let pinned = image.pin(&runtime).await;
    let line = "echo x > /work/a && echo x > /tmp/b && echo in memory; echo x > /c; mkdir /d; grep ' / ' /proc/mounts";
    for root in [false, true] {
        let spec = ContainerSpec { disk_bytes: 0, root, ..shell(node.node_id, &pinned, line) };
        let seen = ran(&runtime, &spec).await;
        assert!(seen.contains("in memory\n") && seen.matches("Read-only file system").count() == 2, "{seen}");
        assert!(seen.contains(" ro,"), "{seen}");
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn root_of_a_container_has_no_capability_and_may_be_refused() {
    let (image, node, runtime) = (TestImage::new(), TestNode::new(), engine().await);
    let pinned = image.pin(&runtime).await;
    let line =
        "id; grep CapEff /proc/self/status; echo x > /etc/x && echo wrote; chown 5 /etc/x; mount -t tmpfs x /mnt";
    let spec = ContainerSpec { root: true, ..shell(node.node_id, &pinned, line) };
    let seen = ran(&runtime, &spec).await;
    assert!(seen.contains("uid=0") && seen.contains("CapEff:\t0000000000000000"), "{seen}");
    assert!(seen.contains("wrote\n"), "its own files are its own: {seen}");
    assert!(seen.contains("Operation not permitted"), "{seen}");

    let sandbox = SandboxConfig { root: RootRule::No, ..SandboxConfig::default() };
    let ceiling = Ceiling { sandbox, ..Ceiling::default() };
    let strict = DockerRuntime::open(DockerOptions { ceiling, ..DockerOptions::default() }).await.unwrap();
    let told = |runtime: &DockerRuntime| runtime.notices().iter().any(|notice| notice.contains("userns-remap"));
    let maps_users = runtime.facts().root_is_nobody_outside();
    assert_eq!((told(&runtime), told(&strict)), (!maps_users, false), "the owner is told while it matters");
    let refused = strict.create(&ContainerSpec { root: true, ..shell(node.node_id, &pinned, line) }).await;
    assert!(matches!(refused, Err(RuntimeError::OwnerRefuses { .. })), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn an_images_own_user_is_used_by_name_and_number_unless_it_is_root() {
    let (node, runtime) = (TestNode::new(), engine().await);
    let passwd = "root:x:0:0::/:/bin/sh\napp:x:1234:50::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\n";
    for (user, who) in [
        ("app", "uid=1234 gid=50"),
        ("app:7", "uid=1234 gid=7"),
        ("77:8", "uid=77 gid=8"),
        ("toor", "uid=65532 gid=65532"),
        ("nobody", "uid=65532"),
    ] {
        let image =
            TestImage::of(Root::with_text().file("etc/passwd", passwd.as_bytes(), 0o644), &json!({"User": user}));
        let pinned = image.pin(&runtime).await;
        for _ in 0..2 {
            let seen = ran(&runtime, &shell(node.node_id, &pinned, "id; echo x > /work/x && echo wrote")).await;
            assert!(
                seen.replace("(app)", "").replace("(toor)", "").starts_with(who) && seen.ends_with("wrote\n"),
                "{user}: {seen}"
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn an_image_full_of_links_leads_nowhere() {
    let (node, runtime) = (TestNode::new(), engine().await);
    let target = tempfile::tempdir().unwrap();
    let outside = target.path().to_string_lossy().into_owned();
    // The work folder is a link out of the container, the output folder is below one, /tmp and a volume are links too.
    let links = [("work", outside.as_str()), ("deep", "../../../../../.."), ("tmp", "/etc"), ("run", outside.as_str())];
    let root = links.iter().fold(Root::with_text(), |root, (path, target)| root.link(path, target));
    let image = TestImage::of(root, &json!({"Volumes": {"/vol": {}}}));
    let pinned = image.pin(&runtime).await;
    let output_path = format!("/deep{outside}/out");
    let line = format!("echo x > /work/x; echo y > {output_path}/y; echo z > /vol/z && df /vol; ls -ld /work");
    let spec = ContainerSpec { output_path: Some(output_path.clone()), ..shell(node.node_id, &pinned, &line) };
    let id = start(&runtime, &spec).await;
    let seen = said(&runtime, &id).await;
    assert!(seen.contains("tmpfs") && seen.contains("drwxr-xr-x"), "{seen}");
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0, "nothing was written to the host");
    let mounts = docker(&["inspect", "-f", "{{json .Mounts}}", &id.0]);
    assert_eq!(mounts, "[]", "no volume on the owner's disk");
    // What the job makes of its folder before it ends is read inside the container as well.
    let trick = format!("rm -rf {output_path}; ln -s /etc {output_path}");
    let spec = ContainerSpec { output_path: Some(output_path.clone()), ..shell(node.node_id, &pinned, &trick) };
    let id = start(&runtime, &spec).await;
    in_time(runtime.wait(&id)).await.unwrap();
    let tar: Vec<u8> =
        in_time(runtime.archive(&id, &output_path).filter_map(|piece| async { piece.ok() }).collect::<Vec<_>>())
            .await
            .concat();
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    assert!(host.trim().is_empty() || !String::from_utf8_lossy(&tar).contains(host.trim()), "the host's /etc was read");
}

/// Runs a lease of one container to its end, and how long that took from its first word.
async fn lease(line: &str, disk_bytes: u64) -> (Received, Duration) {
    lease_as(line, disk_bytes, false).await
}

async fn lease_as(line: &str, disk_bytes: u64, root: bool) -> (Received, Duration) {
    let bench = LeaseBench::new().await;
    let resources = json!({"cpu_millis": 2000, "memory_bytes": 128 << 20, "disk_bytes": disk_bytes});
    let main = bench.service("main", line, json!({"resources": resources, "root": root}));
    let mut lease = LeaseBench::lease_of(vec![main]);
    lease.spec.limits.stop_grace_seconds = 300;
    let handle = bench.spawn(&lease);
    bench.received(&lease, |received| !received.log.is_empty()).await;
    let began = bench.deps.clock.steady();
    let received = bench.ended(&lease, handle).await;
    (received, bench.deps.clock.steady().since(began))
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_disk_bomb_is_ended_within_seconds() {
    let line =
        "trap '' TERM; echo go; while true; do dd if=/dev/zero of=/work/$RANDOM bs=1M count=64 2>/dev/null; done";
    let (received, took) = lease(line, 64 << 20).await;
    assert_eq!(end(&received), LeaseEnd::OverLimit { limit: LimitKind::DiskBytes, value: 64 << 20 });
    assert!(took < Duration::from_secs(8), "{took:?}");
    println!("a disk bomb was ended after {took:?}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn an_inode_bomb_is_ended_within_seconds() {
    // Empty files, and their names are of no size either.
    let line = "echo go; i=0; while true; do i=$((i+1)); mkdir /work/$i; cd /work/$i; seq 1 1000 | xargs touch; done";
    let (received, took) = lease(line, 1 << 20).await;
    assert_eq!(end(&received), LeaseEnd::OverLimit { limit: LimitKind::DiskFiles, value: 10_000 });
    assert!(took < Duration::from_secs(20), "{took:?}");
    println!("an inode bomb was ended after {took:?}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn what_is_in_memory_is_bounded_by_the_memory_limit() {
    let line = "echo go; dd if=/dev/zero of=/tmp/x bs=1M count=200 2>&1; seq 1 20000 | (cd /run; xargs touch) 2>&1 | tail -n 1; exit 0";
    let (received, _) = lease(line, 64 << 20).await;
    let said = String::from_utf8(received.text(LogStream::Stdout)).unwrap();
    assert_eq!(end(&received), LeaseEnd::Exited { code: 0 }, "{said}");
    assert!(said.contains("File size limit exceeded") && said.contains("No space left"), "bytes and files: {said}");
}

/// What the same shell line says when nobody watches it.
async fn unwatched(line: &str, root: bool) -> String {
    let (image, node, runtime) = (TestImage::new(), TestNode::new(), engine().await);
    let pinned = image.pin(&runtime).await;
    ran(&runtime, &ContainerSpec { root, disk_bytes: 64 << 20, ..shell(node.node_id, &pinned, line) }).await
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_deleted_file_that_is_still_open_counts_and_ends_the_job_within_seconds() {
    // No file is larger than one may be.
    let fill =
        |fd: u8| format!("exec {fd}>/work/gone; rm /work/gone; dd if=/dev/zero bs=1M count=50 >&{fd} 2>/dev/null");
    let line = format!("trap '' TERM; echo go; {}; {}; {}", fill(3), fill(4), fill(5));
    let (received, took) = lease(&format!("{line}; while true; do sleep 1; done"), 64 << 20).await;
    assert_eq!(end(&received), LeaseEnd::OverLimit { limit: LimitKind::DiskBytes, value: 64 << 20 });
    // Two seconds, but for others who free as much of the disk at that moment.
    assert!(took < Duration::from_secs(30), "{took:?}");
    println!("deleted files that are held open were ended after {took:?}");
    assert_eq!(unwatched(&format!("{line}; echo alive"), false).await, "go\nalive\n", "it works where nobody watches");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn the_engines_own_files_count_and_end_a_job_as_root_within_seconds() {
    let line = "trap '' TERM; echo go; for f in hosts resolv.conf hostname; do \
        dd if=/dev/zero of=/etc/$f bs=1M count=50 2>/dev/null; done";
    let (received, took) = lease_as(&format!("{line}; while true; do sleep 1; done"), 64 << 20, true).await;
    assert_eq!(end(&received), LeaseEnd::OverLimit { limit: LimitKind::DiskBytes, value: 64 << 20 });
    assert!(took < Duration::from_secs(30), "{took:?}");
    println!("the engine's own files were ended after {took:?}");
    let survived = unwatched(&format!("{line}; ls -l /etc/hosts; echo alive"), true).await;
    assert!(
        survived.contains("52428800") && survived.ends_with("alive\n"),
        "it works where nobody watches: {survived}"
    );
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn what_an_image_has_at_tmp_takes_it_from_no_job() {
    let (node, runtime) = (TestNode::new(), engine().await);
    let root =
        ["tmp", "run", "var", "var/tmp"].into_iter().fold(Root::busybox(), |root, path| root.folder(path, 0o755));
    let image = TestImage::of(root, &json!({}));
    let pinned = image.pin(&runtime).await;
    let line = "for d in /tmp /run /var/tmp; do echo mine > $d/new && cat $d/new; done";
    let plain =
        docker_output(&["run", "--rm", "-u", "65532", "--tmpfs", "/tmp:mode=1777", &image.name, "touch", "/tmp/x"]);
    assert!(String::from_utf8_lossy(&plain.stderr).contains("Permission denied"), "an engine alone does so: {plain:?}");
    for disk_bytes in [64 << 20, 0] {
        let spec = ContainerSpec { disk_bytes, ..shell(node.node_id, &pinned, line) };
        assert_eq!(ran(&runtime, &spec).await, "mine\nmine\nmine\n", "with {disk_bytes} bytes of disk");
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_volume_among_the_kernels_files_is_refused_with_a_sentence() {
    let (node, runtime) = (TestNode::new(), engine().await);
    let image = TestImage::of(Root::busybox(), &json!({"Volumes": {"/proc/x": {}}}));
    let pinned = image.pin(&runtime).await;
    let error = runtime.create(&shell(node.node_id, &pinned, "true")).await.unwrap_err();
    assert!(
        matches!(&error, RuntimeError::InvalidSpec { detail } if detail.contains("volume at '/proc/x'")),
        "{error}"
    );
}
