//! Keeps the way to the container engine: finds it, follows its events, and finds it again when it went away.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::Input;
use crate::agent::EngineSource;
use crate::agent::failover::backoff;
use crate::agent::machine::Event;
use crate::runtime::docker::DockerRuntime;
use crate::runtime::{ContainerRuntime, RuntimeError};
use crate::wire::NodeId;
use crate::wire::node::Engine;

/// First and longest wait before an engine that does not answer is asked again.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Tells the driver of the engine and of what happens to containers. Never ends by itself.
pub(super) async fn watch_engine(source: EngineSource, node_id: NodeId, inbox: mpsc::Sender<Input>) {
    let mut failures = 0;
    let mut told = String::new();
    loop {
        match open_engine(&source).await {
            Ok((runtime, engine)) => {
                told.clear();
                let mut events = runtime.events(node_id);
                if inbox.send(Input::Engine(runtime, engine)).await.is_err() {
                    return;
                }
                while let Some(Ok(event)) = events.next().await {
                    failures = 0;
                    let _ = inbox.send(Input::Container(event.lease_id)).await;
                }
            }
            Err(error) => {
                let why = error.to_string();
                if told != why {
                    tracing::warn!(why, "no container engine");
                    told.clone_from(&why);
                }
                let _ = inbox.send(Input::Event(Event::EngineDown { why })).await;
            }
        }
        // An engine that ends its events at once is asked as rarely as one that does not answer.
        let wait = backoff(failures, WAITS.0, WAITS.1, rand::random::<f64>());
        tokio::time::sleep(wait).await;
        failures += 1;
    }
}

async fn open_engine(source: &EngineSource) -> Result<(Arc<dyn ContainerRuntime>, Engine), RuntimeError> {
    let runtime: Arc<dyn ContainerRuntime> = match source {
        EngineSource::Docker { address } => Arc::new(DockerRuntime::connect(address.as_deref()).await?),
        EngineSource::Given(runtime) => Arc::clone(runtime),
    };
    let engine = runtime.engine().await?;
    Ok((runtime, engine))
}
