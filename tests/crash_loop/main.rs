//! Agent, engine and coordinator killed with SIGKILL again and again at random moments, under load: real processes, an engine
//! of our own, real jobs. No job is lost or paid twice, no container or network is left, no byte of a log is missing or there
//! twice, and the money adds up.
//!
//! Everything runs in namespaces of its own (network, mounts, processes) on a memory disk, so that nothing outlives the test
//! and nothing else on the machine is touched; that needs root.
//!
//! `FIZZ_CRASH_ROUNDS` sets the number of rounds (100), `FIZZ_CRASH_SEED` repeats the choices of an earlier game.
#![cfg(feature = "coordinator")]
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]
#![expect(clippy::print_stderr, reason = "the counts are the result")]

mod arena;
#[path = "../docker_support/mod.rs"]
mod docker_support;
mod engine;
mod load;
#[path = "../process_support/mod.rs"]
mod process_support;
mod tally;
mod witness;
mod world;

use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::load::Load;
use crate::world::World;

const ROUNDS: u32 = 100;
/// Time between one recovery and the next kill, and between a kill and its recovery.
const CALM_MILLIS: std::ops::Range<u64> = 50..1500;
const DOWN_MILLIS: std::ops::Range<u64> = 0..400;

#[test]
#[ignore = "needs a Docker engine"]
fn whatever_is_killed_and_whenever_no_job_is_lost_doubled_or_paid_twice() {
    match arena::inside() {
        Some(folder) => play(&folder),
        None => arena::run("whatever_is_killed_and_whenever_no_job_is_lost_doubled_or_paid_twice"),
    }
}

#[test]
#[ignore = "needs a Docker engine"]
fn an_engine_that_learns_of_an_end_after_its_own_start_does_not_vouch_for_it() {
    match arena::inside() {
        Some(folder) => witness::play(&folder),
        None => arena::run("an_engine_that_learns_of_an_end_after_its_own_start_does_not_vouch_for_it"),
    }
}

fn play(folder: &Path) {
    let rounds = number("FIZZ_CRASH_ROUNDS").map_or(ROUNDS, |rounds| u32::try_from(rounds).unwrap());
    let seed = number("FIZZ_CRASH_SEED").unwrap_or_else(rand::random);
    eprintln!("crash loop: {rounds} rounds, FIZZ_CRASH_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let game = runtime.block_on(std::panic::AssertUnwindSafe(game(folder, rounds, seed)).catch_unwind());
    // Said once more behind what the processes said: the end of the output is what is kept and read.
    if let Err(reason) = game {
        let text = reason.downcast_ref::<String>().cloned();
        let text = text.or_else(|| reason.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        eprintln!("--- the crash loop failed, FIZZ_CRASH_SEED={seed}\n{text}");
        std::panic::resume_unwind(reason);
    }
}

async fn game(folder: &Path, rounds: u32, seed: u64) {
    let mut world = World::new(folder).await;
    let load = Load::begin(world.town.renter.clone(), world.image.clone(), seed);
    let mut killer = Killer { rng: StdRng::seed_from_u64(seed), kills: Kills::default() };
    for round in 1..=rounds {
        killer.round(&mut world, round).await;
    }
    eprintln!("kills: {}; the engine hung as it came up: {}", killer.kills, world.engine.hung);
    let jobs = load.finish().await;
    let tally = tally::count(&world, &jobs).await;
    eprintln!("{tally}");
    tally.check();
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// How often each was killed.
#[derive(Debug, Default)]
struct Kills {
    agent: u32,
    engine: u32,
    coordinator: u32,
}

impl std::fmt::Display for Kills {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "agent {}, engine {}, coordinator {}", self.agent, self.engine, self.coordinator)
    }
}

struct Killer {
    rng: StdRng,
    kills: Kills,
}

impl Killer {
    /// Waits, kills, waits, starts again what was killed, in whatever order.
    async fn round(&mut self, world: &mut World, round: u32) {
        self.wait(CALM_MILLIS).await;
        let (agent, engine, coordinator) = match self.rng.random_range(0..100) {
            0..45 => (true, false, false),
            45..65 => (false, true, false),
            65..80 => (true, true, false),
            80..95 => (false, false, true),
            _ => (true, true, true),
        };
        if std::env::var_os("FIZZ_CRASH_VERBOSE").is_some() {
            eprintln!("round {round}: kills agent {agent}, engine {engine}, coordinator {coordinator}");
        }
        let agent_first = self.rng.random_bool(0.5);
        if agent && agent_first {
            world.agent.kill();
        }
        if engine {
            world.engine.kill();
        }
        if coordinator {
            world.town.coordinator.kill();
        }
        if agent && !agent_first {
            world.agent.kill();
        }
        self.wait(DOWN_MILLIS).await;
        self.recover(world, (agent, engine, coordinator)).await;
        self.kills.agent += u32::from(agent);
        self.kills.engine += u32::from(engine);
        self.kills.coordinator += u32::from(coordinator);
    }

    async fn recover(&mut self, world: &mut World, (agent, engine, coordinator): (bool, bool, bool)) {
        let agent_first = self.rng.random_bool(0.5);
        if coordinator {
            world.town.coordinator.start();
        }
        if agent && agent_first {
            world.agent.start();
        }
        if engine {
            self.wait(DOWN_MILLIS).await;
            world.engine.start().await;
        }
        if agent && !agent_first {
            world.agent.start();
        }
    }

    async fn wait(&mut self, millis: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(millis))).await;
    }
}
