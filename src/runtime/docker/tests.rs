//! Engines that do not answer.

use tokio::net::UnixListener;

use super::*;
use crate::runtime::LABEL_PROBE;
use crate::runtime::isolation::Given;
use crate::wire::LeaseId;
use crate::wire::job::Isolation;

/// An engine that takes every call and never answers one.
fn hung(folder: &std::path::Path) -> DockerRuntime {
    let socket = folder.join("engine.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            open.push(connection);
        }
    });
    let address = format!("unix://{}", socket.display());
    let docker = Docker::connect_with_host(&address).unwrap();
    let runtime = DockerRuntime::unasked(docker, address, Ceiling::default(), &super::Wall::default());
    let plain = Given { isolation: Isolation::Container, runtime: None };
    runtime.shared.set_facts(EngineFacts { given: vec![plain], ..EngineFacts::default() });
    runtime
}

#[tokio::test]
async fn every_call_to_an_engine_that_hangs_ends_at_its_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let engine = hung(folder.path());
    let id = ContainerId("some".to_owned());
    let epoch = Timestamp::UNIX_EPOCH;
    let (node_id, lease_id) = (NodeId::generate(epoch), LeaseId::generate(epoch));
    let exit = ContainerExit { code: 0, out_of_memory: false, started_at: epoch, ended_at: epoch };
    let spec = ContainerSpec::new(node_id, lease_id, "sha256:1".to_owned());
    tokio::time::pause();
    let calls: [(&str, Result<(), RuntimeError>); 12] = [
        ("engine", engine.engine().await.map(drop)),
        ("ensure_image", engine.ensure_image("job", mpsc::channel(1).0).await.map(drop)),
        ("create", engine.create(&spec).await.map(drop)),
        ("start", engine.start(&id).await),
        ("restart", engine.restart(&id, epoch).await),
        ("witnessed", engine.witnessed(&id, &exit).await.map(drop)),
        ("inspect", engine.inspect(&id).await.map(drop)),
        ("list", engine.list(node_id).await.map(drop)),
        ("stop", engine.stop(&id, Duration::from_secs(1)).await),
        ("pause", engine.pause(&id).await),
        ("archive", engine.archive(&id, "/output").next().await.unwrap().map(drop)),
        ("remove", engine.remove(&id).await),
    ];
    for (name, result) in calls {
        assert!(matches!(result, Err(RuntimeError::TimedOut { .. })), "{name}: {result:?}");
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn what_probes_of_other_agents_left_is_removed_once_it_is_old() {
    let engine = DockerRuntime::connect(None).await.unwrap();
    let mark = format!("io.fizz.test={}", LeaseId::generate(crate::clock::Clock::system().now()));
    let (key, value) = mark.split_once('=').unwrap();
    let make = async |probe: &str| {
        let labels = [(key, value), (LABEL_NODE, "another"), (LABEL_PROBE, probe)];
        let request = bollard::models::NetworkCreateRequest {
            name: format!("fizz-test-{value}-{probe}"),
            internal: Some(true),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..Default::default()
        };
        engine.docker.create_network(request).await.unwrap().id
    };
    let (_left, of_a_job) = (make("1").await, make("").await);
    let there = async || engine.labelled_networks(&[&mark]).await.unwrap().len();
    let mark = [mark.clone()];
    engine.sweep_old_probes(&mark, Duration::from_secs(600)).await;
    assert_eq!(there().await, 2, "a probe goes on, it may be");
    let swept = async {
        while there().await > 1 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            engine.sweep_old_probes(&mark, Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), swept).await.unwrap();
    let stays = engine.labelled_networks(&[&mark[0]]).await.unwrap();
    assert_eq!(stays.iter().map(|network| network.0.as_str()).collect::<Vec<_>>(), [of_a_job.as_str()]);
    engine.docker.remove_network(&of_a_job).await.unwrap();
}
