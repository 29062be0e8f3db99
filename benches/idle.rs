//! What an idle agent costs its owner: memory, processor time and context switches, read from /proc over 90 seconds, with real
//! processes: `fizz up` enrolled at `fizz coordinator serve`, heartbeats every 30 s. Where boinc-client is installed, it is
//! measured beside them in the same way.
//!
//! `cargo bench --bench idle`; needs Linux and a Docker engine. `FIZZ_BENCH_SECONDS` sets the time (90),
//! `FIZZ_BENCH_BINARY` measures another fizz than the one built here.
#![allow(unreachable_pub, reason = "a bench is its own crate; its modules share what they like")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "idle/boinc.rs"]
mod boinc;
#[path = "common/network.rs"]
#[allow(dead_code, reason = "each of its users uses a part of it")]
mod network;
#[path = "idle/usage.rs"]
mod usage;

use std::error::Error;
use std::time::Duration;

use fizz::clock::Clock;
use network::Network;
use usage::{Idle, Usage};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// After its start-up a process gets this long to come to rest.
const REST: Duration = Duration::from_secs(20);

fn main() -> Outcome<()> {
    fizz::http::install_crypto_provider();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Outcome<()> {
    let seconds = std::env::var("FIZZ_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(90);
    let network = Network::start("").await?;
    let boinc_folder = tempfile::tempdir()?;
    let boinc = boinc::start(boinc_folder.path());
    tokio::time::sleep(REST).await;

    let mut watched = vec![("fizz up", network.agent.pid()), ("fizz coordinator serve", network.coordinator.pid())];
    watched.extend(boinc.as_ref().map(|boinc| ("boinc-client", boinc.pid())));
    let clock = Clock::system();
    let begin = clock.steady();
    let before = watched.iter().map(|(_, pid)| Usage::of(*pid)).collect::<Outcome<Vec<_>>>()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = watched.iter().map(|(_, pid)| Usage::of(*pid)).collect::<Outcome<Vec<_>>>()?;
    let took = clock.steady().since(begin);

    println!("idle for {:.0} s; heartbeats every 30 s\n", took.as_secs_f64());
    println!("{}", usage::HEAD);
    let idles: Vec<Idle> = before.iter().zip(&after).map(|(before, after)| after.since(before, took)).collect();
    for ((name, _), idle) in watched.iter().zip(&idles) {
        println!("{}", idle.row(name));
    }
    println!();
    if let Some(agent) = idles.first() {
        println!("{}", agent.verdict());
        if let Some(peer) = idles.get(2) {
            println!("{}", agent.ratio(peer));
        }
    }
    Ok(())
}
