//! That the rules come, stay, come back and go; and that nothing is lent where they cannot be shown to hold.

use fizz::clock::Clock;
use fizz::runtime::firewall::{Verdict, nft};
use fizz::runtime::{ContainerRuntime as _, RuntimeError};
use fizz::wire::LeaseId;
use fizz::wire::job::Reach;

use super::docker_support::docker;
use super::home::{Home, alone, command};
use super::scene::Scene;

#[tokio::test]
#[ignore = "needs a Docker engine, nftables and root"]
async fn rules_outlive_other_firewalls_and_engines_and_come_back_when_taken_away() {
    if alone("upkeep::rules_outlive_other_firewalls_and_engines_and_come_back_when_taken_away") {
        return;
    }
    let mut scene = Scene::set().await;
    docker(&["network", "create", "other"]);
    assert_eq!(nft::listing().await.unwrap(), None, "nothing is set before it is needed");
    assert_eq!(scene.verdict(Reach::Internet).await, Verdict::Isolated);
    let rules = nft::listing().await.unwrap().expect("set");
    // What other programs do to firewalls.
    docker(&["network", "create", "passing"]);
    docker(&["network", "rm", "passing"]);
    assert!(command("iptables", &["-F"]).status.success());
    scene.home.restart_engine();
    assert_eq!(nft::listing().await.unwrap().as_ref(), Some(&rules));
    // What takes them away or changes them.
    for attack in ["delete table inet fizz", "flush chain inet fizz leaving"] {
        assert!(command("nft", &attack.split(' ').collect::<Vec<_>>()).status.success(), "{attack}");
        assert_ne!(nft::listing().await.unwrap().as_ref(), Some(&rules));
        assert_eq!(scene.verdict(Reach::Internet).await, Verdict::Isolated, "{attack}");
        assert_eq!(nft::listing().await.unwrap().as_ref(), Some(&rules), "{attack}");
    }
    // A new wire in the home.
    assert!(command("ip", &["addr", "add", "5.9.0.2/24", "dev", "lan0"]).status.success());
    assert_eq!(scene.verdict(Reach::Internet).await, Verdict::Isolated);
    assert!(nft::listing().await.unwrap().unwrap().contains("ip daddr 5.9.0.0/24 drop"));
    // Nothing of the probes is left, and what others have was not touched.
    assert_eq!(docker(&["ps", "-aq", "--filter", "label=io.fizz.probe"]), "");
    assert_eq!(docker(&["network", "ls", "-q", "--filter", "label=io.fizz.probe"]), "");
    assert_ne!(docker(&["network", "ls", "-q", "--filter", "name=other"]), "");
}

#[tokio::test]
#[ignore = "needs a Docker engine, nftables and root"]
async fn the_rules_go_with_the_agent_unless_a_job_has_a_network() {
    if alone("upkeep::the_rules_go_with_the_agent_unless_a_job_has_a_network") {
        return;
    }
    let scene = Scene::set().await;
    let job = scene.job(Reach::Internet, "sleep 1000").await;
    let runtime = &scene.runtime;
    runtime.withdraw().await;
    assert!(nft::listing().await.unwrap().is_some(), "a job is left running for the next start");
    runtime.remove(&job.id).await.unwrap();
    runtime.remove_network(&job.network.id).await.unwrap();
    runtime.withdraw().await;
    assert_eq!(nft::listing().await.unwrap(), None);
}

#[tokio::test]
#[ignore = "needs a Docker engine, nftables and root"]
async fn the_capability_for_networks_alone_is_enough_and_without_it_nothing_is_lent() {
    if alone("upkeep::the_capability_for_networks_alone_is_enough_and_without_it_nothing_is_lent") {
        return;
    }
    let _home = Home::new();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("fizz");
    std::fs::copy(env!("CARGO_BIN_EXE_fizz"), &program).unwrap();
    assert!(command("chmod", &["755", &folder.path().display().to_string()]).status.success());
    let program = program.display().to_string();
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let capable = ["--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"];
    let env = ["env", "HOME=/nonexistent", "FIZZ_STATE_DIR=/nonexistent"];
    let run = |how: &[&str], what: &[&str]| command("setpriv", &[how, &env, &[&program, "firewall"], what].concat());
    // As nobody, with one capability.
    let set = run(&[&nobody[..], &capable[..]].concat(), &["apply"]);
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    assert!(nft::listing().await.unwrap().is_some());
    let gone = run(&[&nobody[..], &capable[..]].concat(), &["remove"]);
    assert!(gone.status.success() && nft::listing().await.unwrap().is_none());
    // With the capability of the file, which a child would not inherit by itself.
    assert!(command("setcap", &["cap_net_admin+ep", &program]).status.success());
    let set = run(&nobody, &["apply"]);
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    assert!(command("setcap", &["-r", &program]).status.success());
    let refused = run(&nobody, &["remove"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("setcap cap_net_admin+ep"));
    // One who may use the engine but set no rules: the probe reaches this machine, and says so.
    assert!(command("nft", &["delete", "table", "inet", "fizz"]).status.success());
    let powerless = ["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"];
    let probed = run(&powerless, &["probe", "--json"]);
    assert_eq!(probed.status.code(), Some(1), "{}", String::from_utf8_lossy(&probed.stderr));
    let verdict: Verdict = serde_json::from_slice(&probed.stdout).unwrap();
    let Verdict::NotShown { why } = verdict else { panic!("{verdict:?}") };
    assert!(why.contains("setcap") && why.contains("a probe reached this machine"), "{why}");
    // And one who may do both.
    let probed = run(&[], &["probe", "--json"]);
    assert_eq!(serde_json::from_slice::<Verdict>(&probed.stdout).unwrap(), Verdict::Isolated);
}

#[tokio::test]
#[ignore = "needs a Docker engine, nftables and root"]
async fn jobs_with_a_network_are_refused_where_the_owner_lends_none() {
    if alone("upkeep::jobs_with_a_network_are_refused_where_the_owner_lends_none") {
        return;
    }
    let scene = Scene::with(|ceiling| ceiling.network.internet = false).await;
    let refused = scene.verdict(Reach::Internet).await;
    assert!(matches!(refused, Verdict::NotShown { why } if why.contains("internet = false")));
    let wanted = scene.network_spec(LeaseId::generate(Clock::system().now()), Reach::Internet);
    let refused = scene.runtime.ensure_network(&wanted).await;
    assert!(matches!(refused, Err(RuntimeError::IsolationNotShown { .. })), "{refused:?}");
    // Containers of one job may still find each other.
    assert_eq!(scene.said(Reach::None, "echo here").await, "here\n");
}
