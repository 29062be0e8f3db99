//! Jobs with the internet: only while it is shown that they cannot reach the node's home.

use fizz::runtime::firewall::Verdict;
use fizz::wire::job::{JobSpec, NetworkSpec, Reach};
use fizz::wire::node::NodeState;

use crate::world::{World, job, within};

fn online(image: &str) -> JobSpec {
    JobSpec { network: NetworkSpec { reach: Reach::Internet, domains: Vec::new() }, ..job(image) }
}

#[tokio::test]
async fn the_internet_is_lent_only_while_isolation_is_shown_and_jobs_on_it_go_when_it_is_not() {
    let world = World::new().await;
    world.deposit(10).await;
    let doubt = || Verdict::NotShown { why: "nftables is not installed".to_owned() };
    world.engine.set_verdict(doubt());
    let mut node = world.node("a").await;
    let told = node.until("warned", |s| s.warnings.iter().any(|w| w.contains("nftables is not installed"))).await;
    assert!(told.offer.is_none_or(|offer| !offer.internet));
    node.until_state(NodeState::Idle).await;
    world.engine.set_verdict(Verdict::Isolated);
    node.until("lends the internet", |s| s.offer.as_ref().is_some_and(|offer| offer.internet)).await;
    let held = within(world.renter().submit(&online("hold"), "online")).await.unwrap();
    node.until("runs it", |s| s.state == NodeState::Working).await;
    let lease_id = within(async {
        loop {
            if let Some(network) = world.engine.all_networks().first() {
                return network.lease_id;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    within(world.engine.until(lease_id, |status| status.is_some())).await;
    // Somebody uninstalls nftables under it.
    world.engine.set_verdict(doubt());
    within(world.engine.until(lease_id, |status| status.is_none())).await;
    let told = node.until("warned again", |s| s.offer.as_ref().is_some_and(|offer| !offer.internet)).await;
    assert!(!told.warnings.is_empty());
    // The job waits for a node where it is shown; it is not lost.
    let job = within(world.renter().job(held.job_id)).await.unwrap();
    assert!(!job.state.is_final(), "{job:?}");
    within(async {
        while !world.engine.all_networks().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
