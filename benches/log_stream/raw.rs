//! The same containers without Fizz, their logs followed through the engine's API and thrown away.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::{LogsOptionsBuilder, RemoveContainerOptionsBuilder};
use fizz::clock::Clock;
use futures_util::StreamExt as _;

use crate::Outcome;

/// How fast the engine gives logs away, in megabytes of log per second.
pub async fn megabytes_per_second(image: &str, line_bytes: usize, jobs: u64, time: Duration) -> Outcome<f64> {
    let docker = Docker::connect_with_local_defaults()?;
    let read = Arc::new(AtomicU64::new(0));
    let mut containers = Vec::new();
    for _ in 0..jobs {
        containers.push(docker.create_container(None, body(image, line_bytes)).await?.id);
    }
    let mut readers = tokio::task::JoinSet::new();
    for id in &containers {
        docker.start_container(id, None).await?;
        let options = LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).build();
        let (mut log, read) = (docker.logs(id, Some(options)), Arc::clone(&read));
        readers.spawn(async move {
            while let Some(Ok(message)) = log.next().await {
                read.fetch_add(message.into_bytes().len() as u64, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(crate::RISE).await;
    let clock = Clock::system();
    let (begin, before) = (clock.steady(), read.load(Ordering::Relaxed));
    tokio::time::sleep(time).await;
    let (took, after) = (clock.steady().since(begin), read.load(Ordering::Relaxed));
    for id in &containers {
        docker.remove_container(id, Some(RemoveContainerOptionsBuilder::new().force(true).build())).await?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate has few digits")]
    Ok((after - before) as f64 / 1e6 / took.as_secs_f64())
}

/// The limits and the log that Fizz gives its jobs.
fn body(image: &str, line_bytes: usize) -> ContainerCreateBody {
    let log = HashMap::from([("max-size", "2g"), ("max-file", "2"), ("compress", "false")]);
    let config = log.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(crate::command(line_bytes)),
        host_config: Some(HostConfig {
            nano_cpus: Some(100_000_000),
            network_mode: Some("none".to_owned()),
            log_config: Some(HostConfigLogConfig { typ: Some("local".to_owned()), config: Some(config) }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}
