//! Whether the engine saw a container's end, or came up later and found it dead.
//!
//! An engine that dies takes the last lines of its containers' logs along, and one that comes up ends what it finds running and
//! makes up exit codes for what it finds dead. Its API has no word for "I was started anew", but it keeps its newest events in
//! memory only: one that knows the container's death, and nobody's order to kill it, saw it end by itself. Where it still knows
//! the order it was somebody on this machine who ended it, for whatever reason, and not the job.

use std::collections::HashMap;

use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;

use super::super::{ContainerExit, ContainerId, RuntimeError};
use super::{CALL_DEADLINE, DockerRuntime};

/// Events come a little after what they tell of; the engine answers when this has passed.
const SLACK_SECONDS: i64 = 2;

impl DockerRuntime {
    pub(super) async fn saw_end(&self, id: &ContainerId, exit: &ContainerExit) -> Result<bool, RuntimeError> {
        if self.facts().podman {
            // Its containers do not depend on the process that answers, and it keeps no such events.
            return Ok(true);
        }
        let words = ["start", "kill", "die"].map(str::to_owned).to_vec();
        let filters = HashMap::from([("container".to_owned(), vec![id.0.clone()]), ("event".to_owned(), words)]);
        let since = exit.started_at.as_second().saturating_sub(SLACK_SECONDS).max(1).to_string();
        let until = exit.ended_at.as_second().saturating_add(1 + SLACK_SECONDS).max(1).to_string();
        let options = EventsOptionsBuilder::new().since(&since).until(&until).filters(&filters).build();
        let mut events = self.docker.events(Some(options));
        let look = async {
            let (mut was_there, mut was_told_to_kill) = (false, false);
            while let Some(event) = events.next().await.transpose()? {
                // What a container that was started again did before is no matter.
                if event.time_nano.is_some_and(|at| i128::from(at) < exit.started_at.as_nanosecond()) {
                    continue;
                }
                match event.action.as_deref() {
                    Some("start") => was_there = true,
                    Some("die") => return Ok(!was_told_to_kill),
                    Some("kill") => was_told_to_kill = true,
                    Some(_) | None => {}
                }
            }
            Ok(was_there && !was_told_to_kill)
        };
        self.call("say what happened to a container", CALL_DEADLINE, look).await
    }
}
