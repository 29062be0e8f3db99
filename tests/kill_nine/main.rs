//! `kill -9` for agent and coordinator at each state of a lease: real processes, a real Docker engine, a real job.
//!
//! Whatever is killed and whenever: the job runs once, its log and output are exact, it is paid once, and nothing is left.
#![cfg(feature = "coordinator")]
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

#[path = "../docker_support/mod.rs"]
mod docker_support;
mod engine;
#[path = "../process_support/mod.rs"]
mod process_support;
mod relay;
mod world;

use std::time::Duration;

use fizz::wire::lease::LeasePhase;
use fizz::wire::node::NodeState;

use crate::engine::{Call, Side};
use crate::world::{Job, World};

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Agent,
    Coordinator,
    Both,
}

/// When.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// The coordinator has placed the lease; the node has not heard of it.
    Placed,
    /// The agent has said something to the engine, and the call or its answer is under way.
    Calling(Call, Side),
    /// The job has written part of its log.
    Running,
    /// Half of the output is at the coordinator.
    Uploading,
}

impl Moment {
    /// Takes a new job there.
    async fn reach(self, world: &World) -> Job {
        match self {
            Self::Placed => {
                world.agent.freeze();
                let job = world.submit().await;
                world.until_phase(job, LeasePhase::Assigned).await;
                job
            }
            Self::Calling(call, side) => {
                world.engine.hold(call, side);
                let job = world.submit().await;
                world.engine.held().await;
                job
            }
            Self::Running => {
                let job = world.submit().await;
                world.until_logged(job, "line 10\n").await;
                job
            }
            Self::Uploading => {
                world.relay.hold_upload();
                let job = world.submit().await;
                world.relay.held().await;
                job
            }
        }
    }
}

/// Kills `victim` when the job is at `moment`, starts it again on what is left, and checks everything.
async fn survives(victim: Victim, moment: Moment) {
    let mut world = World::new().await;
    let job = moment.reach(&world).await;
    match victim {
        Victim::Agent => {
            world.agent.kill();
            world.engine.drop_held();
            world.relay.drop_held();
            world.agent.start();
        }
        Victim::Coordinator => {
            world.town.coordinator.kill();
            // The node goes on meanwhile.
            world.engine.let_go();
            world.relay.drop_held();
            world.agent.thaw();
            world.town.coordinator.start();
        }
        Victim::Both => {
            world.agent.kill();
            world.town.coordinator.kill();
            world.engine.drop_held();
            world.town.coordinator.start();
            world.agent.start();
        }
    }
    world.check(job).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_agent_before_it_hears_of_its_lease() {
    survives(Victim::Agent, Moment::Placed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_agent_while_it_fetches_the_image() {
    survives(Victim::Agent, Moment::Calling(Call::Image, Side::Question)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_agent_before_its_container_is_made() {
    survives(Victim::Agent, Moment::Calling(Call::Create, Side::Question)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_agent_before_it_hears_that_its_container_is_made() {
    survives(Victim::Agent, Moment::Calling(Call::Create, Side::Answer)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_agent_before_it_hears_that_its_container_runs() {
    survives(Victim::Agent, Moment::Calling(Call::Start, Side::Answer)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_agent_while_the_job_runs() {
    survives(Victim::Agent, Moment::Running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_agent_while_it_collects_the_output() {
    survives(Victim::Agent, Moment::Calling(Call::Archive, Side::Answer)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_agent_when_half_of_the_output_is_handed_over() {
    survives(Victim::Agent, Moment::Uploading).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_agent_after_the_lease_has_ended_and_before_its_container_is_removed() {
    survives(Victim::Agent, Moment::Calling(Call::Remove, Side::Question)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_agent_before_it_hears_that_its_container_is_removed() {
    survives(Victim::Agent, Moment::Calling(Call::Remove, Side::Answer)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_coordinator_before_the_node_hears_of_its_lease() {
    survives(Victim::Coordinator, Moment::Placed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_coordinator_while_the_node_fetches_the_image() {
    survives(Victim::Coordinator, Moment::Calling(Call::Image, Side::Question)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_coordinator_while_the_container_starts() {
    survives(Victim::Coordinator, Moment::Calling(Call::Start, Side::Question)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_coordinator_while_the_job_runs() {
    survives(Victim::Coordinator, Moment::Running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_coordinator_while_the_node_collects_the_output() {
    survives(Victim::Coordinator, Moment::Calling(Call::Archive, Side::Question)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_coordinator_when_it_has_half_of_the_output() {
    survives(Victim::Coordinator, Moment::Uploading).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_coordinator_just_after_the_lease_has_ended() {
    survives(Victim::Coordinator, Moment::Calling(Call::Remove, Side::Question)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn both_at_once_while_the_job_runs() {
    survives(Victim::Both, Moment::Running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_agent_again_and_again_until_the_job_is_over() {
    let mut world = World::new().await;
    let job = world.submit().await;
    let mut life = Duration::from_millis(200);
    while !world.is_over_within(job, life).await {
        world.agent.kill();
        world.agent.start();
        life += Duration::from_millis(70);
    }
    world.check(job).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn the_coordinator_again_and_again_until_the_job_is_over() {
    let mut world = World::new().await;
    let job = world.submit().await;
    let mut life = Duration::from_millis(200);
    while !world.is_over_within(job, life).await {
        world.town.coordinator.kill();
        world.town.coordinator.start();
        life += Duration::from_millis(110);
    }
    world.check(job).await;
}

/// Cuts the engine off when the job is at `moment`, until the owner has been told.
async fn survives_without_engine(moment: Moment, shown_as: &str) {
    let world = World::new().await;
    let job = moment.reach(&world).await;
    world.engine.cut();
    world.until_owner_sees("that the engine is away", |s| s.state == NodeState::Paused).await;
    let status = world.fizz(&["status"]);
    assert!(status.contains("Paused: no container engine answers at unix://"), "{status}");
    assert!(status.contains(shown_as), "the job is still shown: {status}");
    world.engine.drop_held();
    world.engine.mend();
    world.until_owner_sees("that the engine is back", |s| s.state != NodeState::Paused).await;
    world.check(job).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn an_engine_that_goes_away_while_it_makes_the_container_is_missed_and_the_job_goes_on_when_it_is_back() {
    survives_without_engine(Moment::Calling(Call::Create, Side::Answer), "starting").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn an_engine_that_goes_away_in_mid_job_is_missed_and_the_job_goes_on_when_it_is_back() {
    survives_without_engine(Moment::Running, "running").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Docker engine"]
async fn an_engine_that_goes_away_while_it_hands_over_the_output_is_missed_and_asked_again() {
    survives_without_engine(Moment::Calling(Call::Archive, Side::Answer), "collecting").await;
}
