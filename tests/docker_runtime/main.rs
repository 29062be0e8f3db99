//! The container runtime over a real Docker engine.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod contract;
#[path = "../docker_support/mod.rs"]
mod docker_support;

use std::collections::BTreeMap;

use docker_support::{Registry, TestImage, TestNode, docker, docker_output, free_port, in_time, shell, spec, start};

use fizz::runtime::docker::DockerRuntime;
use fizz::runtime::{
    ContainerExit, ContainerId, ContainerRuntime, ContainerSpec, LogEntry, PullProgress, RuntimeError,
};
use fizz::wire::logs::LogStream;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

async fn engine() -> DockerRuntime {
    DockerRuntime::connect(None).await.unwrap()
}

async fn exit(runtime: &dyn ContainerRuntime, id: &ContainerId) -> ContainerExit {
    in_time(runtime.wait(id)).await.unwrap()
}

async fn entries(runtime: &dyn ContainerRuntime, id: &ContainerId, since: i128) -> Vec<LogEntry> {
    in_time(runtime.logs(id, since).map(Result::unwrap).collect()).await
}

fn text(entries: &[LogEntry], stream: LogStream) -> Vec<u8> {
    entries.iter().filter(|entry| entry.stream == stream).flat_map(|entry| entry.bytes.to_vec()).collect()
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_container_has_no_rights_it_could_use_and_keeps_its_limits() {
    let (image, node, runtime) = (TestImage::new(), TestNode::new(), engine().await);
    let pinned = image.pin(&runtime).await;
    let look = "cat /proc/self/status; echo net:; ls /sys/class/net; echo env:; env; pwd; \
                (mkdir /sys/fs/cgroup/x || echo no cgroup) 2>&1; ls /dev";
    let mut spec = shell(node.node_id, &pinned, look);
    spec.env = vec![("NAME".to_owned(), fizz::wire::Secret::new("value with = and spaces"))];
    spec.workdir = Some("/etc".to_owned());
    let id = start(&runtime, &spec).await;
    assert_eq!(exit(&runtime, &id).await.code, 0);
    let seen = String::from_utf8(text(&entries(&runtime, &id, 0).await, LogStream::Stdout)).unwrap();
    let status: BTreeMap<&str, &str> = seen.lines().filter_map(|line| line.split_once(":\t")).collect();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"));
    let net: Vec<&str> =
        seen.lines().skip_while(|line| *line != "net:").skip(1).take_while(|line| *line != "env:").collect();
    assert!(
        net.iter().all(|name| [
            "lo", "sit0", "tunl0", "ip6tnl0", "gre0", "erspan0", "gretap0", "ip_vti0", "ip6_vti0", "ip6gre0"
        ]
        .contains(name)),
        "{net:?}"
    );
    assert!(seen.contains("NAME=value with = and spaces\n") && seen.contains("\n/etc\n"), "{seen}");
    assert!(seen.contains("no cgroup"), "{seen}");
    assert!(!seen.contains("\nsda") && !seen.contains("\nkmsg"), "{seen}");
    let host: serde_json::Value =
        serde_json::from_str(&docker(&["inspect", "-f", "{{json .HostConfig}}", &id.0])).unwrap();
    let limits = (&host["Memory"], &host["MemorySwap"], &host["NanoCpus"], &host["PidsLimit"]);
    assert_eq!(serde_json::json!(limits), serde_json::json!([64 << 20, 64 << 20, 1_000_000_000, 64]));
    assert_eq!(host["RestartPolicy"]["Name"].as_str().unwrap_or("no").replace("no", ""), "");
    assert_eq!(host["Privileged"], false);
    assert_eq!(host["AutoRemove"], false);
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_fork_bomb_stops_at_its_limit() {
    let (image, node, runtime) = (TestImage::new(), TestNode::new(), engine().await);
    let pinned = image.pin(&runtime).await;
    let line = "for i in $(seq 1 200); do sleep 30 & done; echo all started";
    let mut spec = shell(node.node_id, &pinned, line);
    spec.pids_max = 20;
    let id = start(&runtime, &spec).await;
    exit(&runtime, &id).await;
    let log = entries(&runtime, &id, 0).await;
    assert!(String::from_utf8_lossy(&text(&log, LogStream::Stderr)).contains("fork"), "{log:?}");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn running_out_of_memory_is_seen_in_the_main_process_and_in_a_child() {
    let (image, node, runtime) = (TestImage::new(), TestNode::new(), engine().await);
    let pinned = image.pin(&runtime).await;
    let eat = "tail -c 200000000 /dev/zero";
    for line in [format!("exec {eat}"), format!("{eat} > /dev/null; exit $?")] {
        let mut spec = shell(node.node_id, &pinned, &line);
        spec.memory_bytes = 16 << 20;
        let id = start(&runtime, &spec).await;
        let exit = exit(&runtime, &id).await;
        assert_eq!((exit.code, exit.out_of_memory), (137, true), "{line}");
    }
    let mut survivor = shell(node.node_id, &pinned, &format!("{eat} > /dev/null; exit 0"));
    survivor.memory_bytes = 16 << 20;
    let id = start(&runtime, &survivor).await;
    let exit = exit(&runtime, &id).await;
    assert_eq!((exit.code, exit.out_of_memory), (0, false), "a job that copes with it has succeeded");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn what_cannot_be_started_says_why() {
    let (image, node, runtime) = (TestImage::new(), TestNode::new(), engine().await);
    let pinned = image.pin(&runtime).await;
    let outcome = async |spec: &ContainerSpec| -> Result<ContainerExit, RuntimeError> {
        let id = runtime.create(spec).await?;
        runtime.start(&id).await?;
        in_time(runtime.wait(&id)).await
    };
    for command in ["/bin/nonexistent", "no-such-command"] {
        let missing = outcome(&spec(node.node_id, &pinned, &[command])).await;
        assert!(matches!(missing, Err(RuntimeError::CommandNotFound { .. })), "{missing:?}");
        assert!(missing.unwrap_err().to_string().contains(command));
    }
    for command in ["/etc/not-executable", "/etc"] {
        let locked = outcome(&spec(node.node_id, &pinned, &[command])).await;
        assert!(matches!(locked, Err(RuntimeError::CommandNotExecutable { .. })), "{locked:?}");
    }
    for workdir in ["not/absolute", "/bin/busybox"] {
        let mut bad = shell(node.node_id, &pinned, "true");
        bad.workdir = Some(workdir.to_owned());
        let bad = outcome(&bad).await;
        assert!(matches!(bad, Err(RuntimeError::InvalidSpec { .. })), "{workdir}: {bad:?}");
    }
    let nothing = outcome(&spec(node.node_id, &pinned, &[])).await;
    assert!(matches!(nothing, Err(RuntimeError::InvalidSpec { .. })), "{nothing:?}");
    // A job's own 127 is its own.
    let own = outcome(&shell(node.node_id, &pinned, "no-such-command")).await.unwrap();
    assert_eq!(own.code, 127);
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn logs_keep_every_byte_and_their_order() {
    let (image, node, runtime) = (TestImage::new(), TestNode::new(), engine().await);
    let pinned = image.pin(&runtime).await;
    let line = r"printf '\377\376\000x\n'; i=0; while [ $i -lt 50 ]; do echo o$i; i=$((i+1)); done; echo end >&2";
    let id = start(&runtime, &shell(node.node_id, &pinned, line)).await;
    let log = entries(&runtime, &id, 0).await;
    let expected: Vec<u8> = [b"\xff\xfe\x00x\n".to_vec()]
        .into_iter()
        .chain((0..50).map(|i| format!("o{i}\n").into_bytes()))
        .flatten()
        .collect();
    assert_eq!(text(&log, LogStream::Stdout), expected);
    assert_eq!(text(&log, LogStream::Stderr), b"end\n");
    let times: Vec<i128> = log.iter().filter(|e| e.stream == LogStream::Stdout).map(|e| e.at_nanos).collect();
    assert!(times.is_sorted());
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_line_of_ten_megabytes_comes_in_pieces_and_whole() {
    let (image, node, runtime) = (TestImage::new(), TestNode::new(), engine().await);
    let pinned = image.pin(&runtime).await;
    let mut spec = shell(node.node_id, &pinned, "yes abcdefg | tr -d '\\n' | head -c 10485760; echo; echo after");
    spec.log_bytes_max = 16 << 20;
    let id = start(&runtime, &spec).await;
    let log = entries(&runtime, &id, 0).await;
    let all = text(&log, LogStream::Stdout);
    assert_eq!(all.len(), 10_485_760 + 1 + 6);
    assert!(all.starts_with(b"abcdefgabcdefg") && all.ends_with(b"abcde\nafter\n"), "{:?}", &all[all.len() - 30..]);
    assert!(log.iter().all(|entry| entry.bytes.len() <= 16 << 10));
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn images_are_pulled_with_progress_and_pinned_to_their_digest() {
    let (registry, runtime) = (Registry::start(), engine().await);
    // Random bytes, so that the layer takes more than one piece of network.
    let random: Vec<u8> =
        std::iter::successors(Some(1_u32), |n| Some(n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)))
            .map(|n| n.to_be_bytes()[0])
            .take(8 << 20)
            .collect();
    let image = TestImage::for_architecture("amd64", "pull", &[("random", random)]);
    let name = registry.push(&image, "test/job:1");
    drop(image);
    let (progress, mut seen) = mpsc::channel(1000);
    let pinned = in_time(runtime.ensure_image(&name, progress)).await.unwrap();
    assert!(pinned.image_id.starts_with("sha256:"));
    assert!(pinned.digest.starts_with(&format!("{}/test/job@sha256:", registry.address)), "{}", pinned.digest);
    let mut last = PullProgress { bytes_done: 0, bytes_total: 0 };
    while let Some(progress) = seen.recv().await {
        assert!(progress.bytes_done <= progress.bytes_total && progress.bytes_done >= last.bytes_done);
        last = progress;
    }
    assert!(last.bytes_total > 1 << 20 && last.bytes_done == last.bytes_total, "{last:?}");
    let again = in_time(runtime.ensure_image(&pinned.digest, mpsc::channel(1).0)).await.unwrap();
    assert_eq!(again, pinned);
    // Here, and labelled by whoever pushed it: without its registry nobody may have it all the same.
    drop(registry);
    for name in [&pinned.digest, &name] {
        let error = in_time(runtime.ensure_image(name, mpsc::channel(1).0)).await.unwrap_err();
        assert!(matches!(error, RuntimeError::PullFailed { .. }), "{name}: {error:?}");
    }
    docker_output(&["rmi", "-f", &pinned.image_id]);
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn images_of_the_owner_are_used_only_when_they_are_labelled() {
    let (private, lent, node, runtime) = (TestImage::private(), TestImage::new(), TestNode::new(), engine().await);
    let id_of = |image: &TestImage| docker(&["image", "inspect", "-f", "{{.Id}}", &image.name]);
    let id = id_of(&private);
    let hex = id.strip_prefix("sha256:").unwrap();
    for name in [private.name.as_str(), &id, hex] {
        let error = in_time(runtime.ensure_image(name, mpsc::channel(1).0)).await.unwrap_err();
        assert!(matches!(error, RuntimeError::ImageNotFound { .. }), "{name}: {error:?}");
        let words = error.to_string();
        assert!(words.contains("lends no local image") && words.contains("io.fizz.shared=true"), "{words}");
    }
    // The beginning of an id is a name like any other, and no registry has it.
    for short in [&hex[..12], &id[..19]] {
        assert!(in_time(runtime.ensure_image(short, mpsc::channel(1).0)).await.is_err(), "{short}");
    }
    for name in [&lent.name, &id_of(&lent)] {
        let pinned = in_time(runtime.ensure_image(name, mpsc::channel(1).0)).await.unwrap();
        let container = start(&runtime, &shell(node.node_id, &pinned, "exit 5")).await;
        assert_eq!(exit(&runtime, &container).await.code, 5);
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn images_that_cannot_be_had_say_why() {
    let (registry, runtime) = (Registry::start(), engine().await);
    let missing = format!("{}/no/such:1", registry.address);
    let error = in_time(runtime.ensure_image(&missing, mpsc::channel(1).0)).await.unwrap_err();
    assert!(matches!(error, RuntimeError::ImageNotFound { .. }), "{error:?}");
    let unreachable = format!("127.0.0.1:{}/no/such:1", free_port());
    let error = in_time(runtime.ensure_image(&unreachable, mpsc::channel(1).0)).await.unwrap_err();
    assert!(matches!(error, RuntimeError::PullFailed { .. }), "{error:?}");
    let error = in_time(runtime.ensure_image("Not A Name!", mpsc::channel(1).0)).await.unwrap_err();
    assert!(matches!(error, RuntimeError::ImageNotFound { .. }), "{error:?}");

    let foreign = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };
    let image = TestImage::for_architecture(foreign, "foreign", &[]);
    let name = registry.push(&image, "test/foreign:1");
    for name in [&image.name, &name] {
        let error = in_time(runtime.ensure_image(name, mpsc::channel(1).0)).await.unwrap_err();
        assert!(matches!(&error, RuntimeError::WrongArchitecture { found, .. } if found == foreign), "{error:?}");
    }
    docker_output(&["rmi", "-f", &name]);
}

mod connecting {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn refused(address: &str) -> RuntimeError {
        in_time(DockerRuntime::connect(Some(address))).await.unwrap_err()
    }

    #[tokio::test]
    async fn without_an_engine_the_error_names_the_address_and_how_to_start_it() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = format!("unix://{}/docker.sock", folder.path().display());
        let dead = folder.path().join("dead.sock");
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        let dead = format!("unix://{}", dead.display());
        let closed = format!("tcp://127.0.0.1:{}", free_port());
        for address in [&nothing, &dead, &closed, "carrier-pigeon://loft"] {
            let error = refused(address).await;
            assert!(matches!(error, RuntimeError::NotRunning { .. }), "{address}: {error:?}");
            let words = error.to_string();
            assert!(words.contains(address) && words.contains("systemctl start docker"), "{words}");
        }
    }

    #[tokio::test]
    async fn an_engine_that_is_too_old_is_refused_by_version() {
        for (version, words) in [(r#""1.38""#, "1.38"), ("null", "unknown")] {
            let address = fake_engine(format!(r#"{{"Version":"18.06","ApiVersion":{version},"Arch":"amd64"}}"#)).await;
            let error = refused(&address).await;
            assert!(matches!(&error, RuntimeError::ApiTooOld { found, .. } if found == words), "{error:?}");
            assert!(error.to_string().contains("update Docker"), "{error}");
        }
    }

    #[tokio::test]
    async fn something_that_is_no_engine_is_an_error_and_not_a_hang() {
        let address = fake_engine("<html>hello</html>".to_owned()).await;
        assert!(matches!(refused(&address).await, RuntimeError::Engine { .. }));
    }

    /// Answers every request on a loopback port with this body.
    async fn fake_engine(body: String) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        address
    }
}
