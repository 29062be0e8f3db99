//! Whether the engine saw a container's whole life, or came up later and found it dead or ended it.
//!
//! An engine that dies takes along what it has read of its containers' output and not written down yet; one that comes up ends what
//! it finds running, makes up exit codes for what it finds dead, and reports ends that it has only been told of afterwards. Its API
//! has no word for "I was started anew", but it keeps its newest events in memory only: one that knows the container's start was
//! there from then on, and it closes a log before it reports the end. Where it still knows an order to kill the container it was
//! somebody on this machine who ended it, for whatever reason, and not the job.
//!
//! A start may be forgotten for all that came after it; and where containers live on without their engine (`live-restore`) the one
//! that is there now need not know it. Then an end that it knows is believed: what an engine that was killed had read and not
//! written is missing in such a log, and nobody can tell.

use std::collections::HashMap;

use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use jiff::Timestamp;

use super::super::{ContainerExit, ContainerId, RuntimeError};
use super::{CALL_DEADLINE, DockerRuntime};

/// Events come a little after what they tell of; the engine answers when this has passed.
const SLACK_SECONDS: i64 = 2;
/// An engine that knows so many events may have forgotten older ones; it keeps 256.
const EVENTS_MANY: usize = 200;

/// What the engine knows of a container's newest life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Known {
    start: bool,
    order_to_kill: bool,
    death: bool,
}

impl DockerRuntime {
    pub(super) async fn saw_end(&self, id: &ContainerId, exit: &ContainerExit) -> Result<bool, RuntimeError> {
        if self.facts().podman {
            // Its containers do not depend on the process that answers, and it keeps no such events.
            return Ok(true);
        }
        match self.known_of(id, exit).await? {
            Known { order_to_kill: true, .. } => Ok(false),
            Known { start: true, .. } => Ok(true),
            Known { death: true, .. } => self.may_not_know_a_start().await,
            Known { death: false, .. } => Ok(false),
        }
    }

    async fn known_of(&self, id: &ContainerId, exit: &ContainerExit) -> Result<Known, RuntimeError> {
        let words = ["start", "kill", "die"].map(str::to_owned).to_vec();
        let filters = HashMap::from([("container".to_owned(), vec![id.0.clone()]), ("event".to_owned(), words)]);
        let since = exit.started_at.as_second().saturating_sub(SLACK_SECONDS).max(1).to_string();
        let until = exit.ended_at.as_second().saturating_add(1 + SLACK_SECONDS).max(1).to_string();
        let options = EventsOptionsBuilder::new().since(&since).until(&until).filters(&filters).build();
        let mut events = self.docker.events(Some(options));
        let look = async {
            let mut known = Known::default();
            while let Some(event) = events.next().await.transpose()? {
                // What a container that was started again did before is no matter.
                if event.time_nano.is_some_and(|at| i128::from(at) < exit.started_at.as_nanosecond()) {
                    continue;
                }
                match event.action.as_deref() {
                    Some("start") => known.start = true,
                    Some("kill") => known.order_to_kill = true,
                    Some("die") => return Ok(Known { death: true, ..known }),
                    Some(_) | None => {}
                }
            }
            Ok(known)
        };
        self.call("say what happened to a container", CALL_DEADLINE, look).await
    }

    /// Whether it may not know the start of a container although it saw all that matters.
    async fn may_not_know_a_start(&self) -> Result<bool, RuntimeError> {
        let info = self.call("describe itself", CALL_DEADLINE, self.docker.info()).await?;
        if info.live_restore_enabled.unwrap_or(false) {
            return Ok(true);
        }
        // By its own clock: without an end it would go on telling.
        let now = info.system_time.and_then(|time| time.parse::<Timestamp>().ok()).unwrap_or(Timestamp::UNIX_EPOCH);
        let options = EventsOptionsBuilder::new().since("1").until(&now.as_second().to_string()).build();
        let events = self.docker.events(Some(options)).take(EVENTS_MANY);
        let count = async { Ok(events.collect::<Vec<_>>().await.into_iter().filter(Result::is_ok).count()) };
        Ok(self.call("say what happened", CALL_DEADLINE, count).await? >= EVENTS_MANY)
    }
}
