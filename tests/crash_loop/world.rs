//! A coordinator, a node and an engine of our own, as processes that are killed and started again.

use std::path::Path;

use fizz::control::{Answer, Client, Request};
use fizz::paths::StateDir;
use fizz::wire::Amount;
use fizz::wire::account::Earnings;
use fizz::wire::node::NodeState;

use crate::engine::Engine;
use crate::process_support::{LOOK, PATIENCE, Process, Town, look, until};

pub(crate) const DEPOSIT: Amount = Amount::from_micros(1_000_000_000_000);

pub(crate) struct World {
    pub(crate) town: Town,
    pub(crate) agent: Process,
    pub(crate) engine: Engine,
    pub(crate) image: String,
    pub(crate) state: StateDir,
}

impl World {
    /// A node that waits for work, and a renter with money.
    pub(crate) async fn new(folder: &Path) -> Self {
        let mut engine = Engine::new(folder);
        engine.start().await;
        let image = "fizz-crash-loop:1".to_owned();
        engine.import(&image);
        let limits = "requests_per_minute_per_token = 1000000\nrequests_per_minute_per_address = 1000000\n";
        let town = Town::open(folder, limits, DEPOSIT).await;
        let url = format!("https://{}", town.address);
        let price = "offer = { price_per_hour = \"10000\" }\n";
        let mut agent = town.agent(folder, &url, &engine.address(), price).await;
        agent.start();
        let state = StateDir::new(folder.join("node"));
        town.node().await;
        Self { town, agent, engine, image, state }
    }

    /// What the node earned, fresh from the coordinator.
    pub(crate) async fn earnings(&self) -> Earnings {
        until("fresh earnings", async || match Client::ask(&self.state.control_socket(), Request::Earnings).await {
            Ok(Answer::Earnings { earnings, stale: None }) => Some(*earnings),
            Ok(_) | Err(_) => None,
        })
        .await
    }

    /// Waits until the node has nothing to do any more; what it still does when that does not come.
    pub(crate) async fn comes_to_rest(&self) -> Result<(), String> {
        let rest = async {
            while !look(&self.state).await.is_some_and(|s| s.state == NodeState::Idle && s.leases.is_empty()) {
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(PATIENCE, rest).await {
            Ok(()) => Ok(()),
            Err(_) => Err(format!("{:?}", look(&self.state).await.map(|snapshot| (snapshot.state, snapshot.leases)))),
        }
    }
}
