//! Against a coordinator and a node: what a renter and an operator see.

use super::world::{Ended, Live, first_line, fizz, interrupt, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_feels_like_a_local_command() {
    let live = Live::start().await;
    let ended = live.run(&["run", "hello"]).await.expect(0);
    assert_eq!(ended.text(), "hello");
    assert!(ended.err.contains("exit code 0") && ended.err.contains("it cost $"), "{}", ended.err);

    // The streams stay apart and every byte stays what it was; quiet says nothing of its own.
    let ended = live.run(&["run", "--quiet", "mixed"]).await.expect(3);
    assert_eq!(ended.out, [0xff, 0, b'\n']);
    assert_eq!(ended.err, "trouble\n");

    let ended = live.run(&["run", "--memory", "64m", "hungry"]).await.expect(137);
    assert!(ended.err.contains("64 MiB of memory"), "{}", ended.err);

    let ended = live.run(&["run", "no-such-image"]).await.expect(125);
    assert!(ended.err.contains("could not be run"), "{}", ended.err);

    // Quiet or not: a failure that is not the job's own is told, in one sentence.
    for (args, code, part) in [
        (&["run", "-q", "--memory", "64m", "hungry"][..], 137, "64 MiB of memory"),
        (&["run", "-q", "no-such-image"], 125, "could not be run"),
    ] {
        let ended = live.run(args).await.expect(code);
        assert!(ended.err.contains(part) && ended.err.lines().count() == 1, "{}", ended.err);
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_asks_the_job_to_stop() {
    let live = Live::start().await;
    let mut child = live.command(&["run", "--stop-timeout", "1", "hold"]).spawn().unwrap();
    assert_eq!(first_line(&mut child).await, "begin\n");
    interrupt(&child);
    let ended = Ended::of(within(child.wait_with_output()).await.unwrap());
    assert!(ended.err.contains("asking the job to stop"), "{}", ended.err);
    assert!(matches!(ended.code, 137 | 143), "{ended:#?}");
    let jobs = live.run(&["job", "list", "--json"]).await.expect(0).json();
    assert_eq!(jobs["jobs"][0]["state"], "cancelled");
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_job_is_listed_shown_followed_and_stopped() {
    let live = Live::start().await;
    let job = live.run(&["run", "--detach", "--name", "night", "hold"]).await.expect(0).text().to_owned();
    let mut follower = live.command(&["job", "logs", "-f", "--exit-code", "night"]).spawn().unwrap();
    assert_eq!(first_line(&mut follower).await, "begin\n");

    let list = live.run(&["job", "list"]).await.expect(0);
    assert!(list.text().contains(&job[..18]) && list.text().contains("night"), "{}", list.text());
    assert!(list.text().lines().all(|line| line.chars().count() <= 80), "{}", list.text());
    let shown = live.run(&["job", "show", &job, "--json"]).await.expect(0).json();
    assert_eq!(shown["job_id"], job.as_str());
    // The first line of its log may be here before the word that it runs.
    within(async { while !live.run(&["job", "show", "night"]).await.expect(0).text().starts_with("Running") {} }).await;

    assert_eq!(live.run(&["job", "stop", "--wait", "night"]).await.expect(0).text(), job);
    let followed = Ended::of(within(follower.wait_with_output()).await.unwrap());
    assert!(matches!(followed.code, 137 | 143), "{followed:#?}");
    assert_eq!(live.run(&["job", "logs", &job]).await.expect(0).text(), "begin");
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_output_folder_comes_back() {
    let live = Live::start().await;
    live.run(&["run", "--output", "out", "maker"]).await.expect(0);
    assert_eq!(std::fs::read(live.home.path().join("out/picture.png")).unwrap(), b"PNG");
    let jobs = live.run(&["job", "list", "--json"]).await.expect(0).json();
    let job = jobs["jobs"][0]["job_id"].as_str().unwrap().to_owned();
    live.run(&["job", "output", &job, "again"]).await.expect(0);
    assert_eq!(std::fs::read(live.home.path().join("again/picture.png")).unwrap(), b"PNG");
    live.run(&["job", "output", &job, "--tar", "out.tar"]).await.expect(0);
    assert!(live.home.path().join("out.tar").metadata().unwrap().len() > 512);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_and_an_empty_purse_are_refused_with_5() {
    let live = Live::start().await;
    std::fs::write(live.home.path().join("wrong"), "fzk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
    let ended = live.run(&["run", "--api-key-file", "wrong", "hello"]).await.expect(5);
    assert!(ended.err.contains("The credential is missing, wrong or revoked"), "{}", ended.err);
    let ended = live.run(&["run", "--max-price", "1000", "--timeout", "2h", "hello"]).await.expect(5);
    assert!(ended.err.contains("lower --max-price or --timeout"), "{}", ended.err);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_the_given_authority_did_not_sign_is_told_as_that() {
    let live = Live::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let other = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem();
    std::fs::write(live.home.path().join("other.pem"), other).unwrap();
    let ended = live.run(&["job", "list", "--ca-file", "other.pem"]).await.expect(4);
    assert!(ended.err.contains("did not sign it; copy the coordinator's ca.pem again"), "{}", ended.err);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_sees_nodes_and_a_ledger_that_sums_to_zero() {
    let live = Live::start().await;
    live.run(&["run", "hello"]).await.expect(0);
    let nodes = live.run(&["coordinator", "nodes", "--json"]).await.expect(0).json();
    assert_eq!(nodes["nodes"][0]["name"], "attic");
    let table = live.run(&["coordinator", "nodes"]).await.expect(0);
    assert!(table.text().lines().all(|line| line.chars().count() <= 80), "{}", table.text());
    let ledger = live.run(&["coordinator", "ledger", "--json"]).await.expect(0).json();
    assert_eq!(ledger["sum"], 0);
    assert_eq!(ledger["unbalanced"], 0);
    // The same deposit was made twice under one name and counts once.
    let deposits = ledger["lines"].as_array().unwrap().iter().find(|line| line["account"] == "deposits").unwrap();
    assert_eq!(deposits["balance"].as_i64().unwrap().abs(), 100_000_000);
    let account = live.run(&["coordinator", "account", "show"]).await.expect(0);
    assert!(account.text().contains("attic"), "{}", account.text());
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_ctrl_c_leaves_the_job_and_says_how_to_find_it() {
    let live = Live::start().await;
    // It does not end on SIGTERM, and its grace is long: there is time for a second Ctrl-C.
    let mut child = live.command(&["run", "--stop-timeout", "300", "stubborn"]).spawn().unwrap();
    assert_eq!(first_line(&mut child).await, "begin\n");
    interrupt(&child);
    let mut err = tokio::io::BufReader::new(child.stderr.take().unwrap());
    within(until_said(&mut err, "asking the job to stop")).await;
    interrupt(&child);
    let said = within(until_said(&mut err, "is left alone")).await;
    assert!(said.contains("is left alone"), "{said}");
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(130));
    live.release_all();
    live.stop().await;
}

/// Reads lines until one has `part` in it.
async fn until_said(err: &mut (impl tokio::io::AsyncBufRead + Unpin), part: &str) -> String {
    use tokio::io::AsyncBufReadExt as _;
    let mut said = String::new();
    while !said.contains(part) {
        assert!(err.read_line(&mut said).await.unwrap() > 0, "ended after: {said}");
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_restarts_costs_no_byte_of_the_log_and_repeats_none() {
    let mut live = Live::start().await;
    let mut child = live.command(&["run", "hold"]).spawn().unwrap();
    assert_eq!(first_line(&mut child).await, "begin\n");
    live.restart_coordinator().await;
    live.release_all();
    let ended = Ended::of(within(child.wait_with_output()).await.unwrap()).expect(0);
    assert_eq!(ended.text(), "end");
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_sees_the_agent_its_earnings_and_drains_it() {
    let live = Live::start().await;
    live.run(&["run", "hello"]).await.expect(0);
    let status = Ended::of(within(live.owner(&["status", "--json"]).output()).await.unwrap()).expect(0).json();
    assert_eq!(status["name"], "attic");
    assert_eq!(status["coordinator"]["link"], "connected");
    let status = Ended::of(within(live.owner(&["status"]).output()).await.unwrap()).expect(0);
    assert!(status.text().starts_with("● "), "{}", status.text());
    assert!(status.text().lines().all(|line| line.chars().count() <= 80), "{}", status.text());
    let earned = Ended::of(within(live.owner(&["earnings", "--json"]).output()).await.unwrap()).expect(0).json();
    assert_eq!(earned["leases_paid"], 1);
    let drained = Ended::of(within(live.owner(&["drain"]).output()).await.unwrap()).expect(0);
    assert!(drained.err.contains("the agent has stopped"), "{}", drained.err);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_joins_by_token_or_by_a_code_that_is_approved() {
    let live = Live::start().await;
    live.run(&["coordinator", "token", "create", "--out", "second.token"]).await.expect(0);
    let enroll =
        ["enroll", "--coordinator", &live.url, "--ca-file", "coordinator/ca.pem", "--token-file", "second.token"];
    let joined = Ended::of(within(fizz(live.home.path(), &enroll).output()).await.unwrap()).expect(0);
    assert_eq!(joined.text().len(), 36, "{joined:#?}");
    let config = std::fs::read_to_string(live.home.path().join("fizz.toml")).unwrap();
    assert!(config.contains(&live.url) && config.contains("/coordinator/ca.pem"), "{config}");

    // The same token again is refused, with what to do.
    let mut again = fizz(live.home.path(), &enroll);
    again.env("FIZZ_STATE_DIR", live.home.path().join("third"));
    let refused = Ended::of(within(again.output()).await.unwrap()).expect(5);
    assert!(refused.err.contains("has been used already"), "{}", refused.err);

    let mut waiting = fizz(live.home.path(), &enroll[..5]);
    let mut child = waiting.env("FIZZ_STATE_DIR", live.home.path().join("third")).spawn().unwrap();
    let mut err = tokio::io::BufReader::new(child.stderr.take().unwrap());
    let said = within(until_said(&mut err, "Code   ")).await;
    let code = said.split("Code   ").nth(1).unwrap()[..9].to_owned();
    live.run(&["coordinator", "approve", "--yes", &code]).await.expect(0);
    let joined = Ended::of(within(child.wait_with_output()).await.unwrap()).expect(0);
    assert_eq!(joined.text().len(), 36, "{joined:#?}");
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_output_nobody_reads_any_more_is_asked_to_stop() {
    let live = Live::start().await;
    let mut child = live.command(&["run", "--stop-timeout", "1", "chatty"]).spawn().unwrap();
    assert_eq!(first_line(&mut child).await, "begin\n");
    drop(child.stdout.take());
    live.release_all();
    let ended = Ended::of(within(child.wait_with_output()).await.unwrap());
    assert!(ended.err.contains("nobody reads the output any more; asking the job to stop"), "{}", ended.err);
    assert!(matches!(ended.code, 137 | 143), "{ended:#?}");
    live.stop().await;
}
