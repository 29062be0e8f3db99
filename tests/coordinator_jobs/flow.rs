//! The life of a job when all goes well, and when its renter stops it.

use std::time::Duration;

use bytes::Bytes;
use fizz::wire::account::{Earnings, ReceiptList};
use fizz::wire::job::{JobState, MarketView};
use fizz::wire::lease::{Desired, LeaseChange, LeaseEnd, LeasePhase};
use fizz::wire::signed::{receipt_message, receipt_sha256};
use fizz::wire::{Amount, ErrorCode, LOG_MEDIA_TYPE};

use crate::world::{World, code, exited, framed, job, sha256, text_of, usd};

#[tokio::test]
async fn a_job_is_assigned_runs_hands_back_log_and_output_and_is_paid() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let submitted = world.submit(&job()).await.unwrap();
    assert_eq!((submitted.state, submitted.escrow), (JobState::Queued, usd("0.36")));
    let lease = node.assigned().await;
    assert_eq!((lease.job_id, lease.desired), (submitted.job_id, Desired::Run));
    assert_eq!(lease.rate, "0.10".parse().unwrap(), "a quarter of the node");
    assert_eq!(lease.spec, job(), "the node gets the environment's values");

    let id = lease.lease_id;
    let pulling = LeaseChange::Pulling { per_mille: Some(500) };
    node.report(id, 1, &[pulling]).await.unwrap();
    let view = world.view(submitted.job_id).await;
    assert_eq!(view.lease.unwrap().pull_per_mille, Some(500));
    node.report(id, 2, &[LeaseChange::Starting { image_digest: "sha256:0".into() }, LeaseChange::Running])
        .await
        .unwrap();
    assert_eq!(world.view(submitted.job_id).await.state, JobState::Running);
    world.turn_with(400, &mut node, id).await;
    let all = framed("hello\n");
    assert_eq!(node.log(id, "offset=0&complete=true", all.clone()).await.unwrap(), all.len() as u64);
    let tar = Bytes::from(vec![7_u8; 300_000]);
    assert_eq!(node.output(id, tar.clone(), &sha256(&tar)).await.unwrap().bytes, 300_000);
    node.report(id, 4, &[LeaseChange::Collecting, exited(3, 360_000)]).await.unwrap();

    let view = world.view(submitted.job_id).await;
    assert_eq!((view.state, view.outcome.clone()), (JobState::Done, Some(LeaseEnd::Exited { code: 3 })));
    assert_eq!((view.cost, view.escrow, view.log_complete), (usd("0.01"), Amount::ZERO, true));
    assert_eq!(view.output.as_ref().unwrap().sha256, sha256(&tar));
    assert_eq!(world.log(submitted.job_id, "follow=true").await, "hello\n");
    let call = world.client().get(&format!("/v1/jobs/{}/output", submitted.job_id)).bearer(&world.renter.api_key);
    assert_eq!(call.open().await.unwrap().bytes().await.unwrap(), tar);
    assert_eq!((world.spendable().await, world.earned().await), (usd("9.99"), usd("0.0095")));
    assert_eq!(node.assignments("wait=0").await.leases, []);
    world.books_balance().await;
}

#[tokio::test]
async fn a_node_can_check_what_it_earned_against_signed_and_chained_receipts() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    for _ in 0..3 {
        world.submit(&job()).await.unwrap();
        let lease = node.assigned().await.lease_id;
        world.turn_with(400, &mut node, lease).await;
        node.report(lease, 1, &[LeaseChange::Running, exited(0, 360_000)]).await.unwrap();
    }
    let earnings: Earnings = node.get("/v1/node/earnings").await.unwrap();
    assert_eq!((earnings.all_time, earnings.leases_paid, earnings.pending), (usd("0.0285"), 3, Amount::ZERO));
    let list: ReceiptList = node.get("/v1/node/receipts?after=0").await.unwrap();
    let key = ed25519_dalek::VerifyingKey::from_bytes(list.coordinator_key.as_bytes()).unwrap();
    let mut previous = "0".repeat(64);
    for receipt in &list.receipts {
        assert_eq!(receipt.previous_sha256, previous);
        let signature = ed25519_dalek::Signature::from_bytes(receipt.signature.as_bytes());
        key.verify_strict(&receipt_message(receipt), &signature).unwrap();
        previous = receipt_sha256(receipt);
    }
    assert_eq!(Amount::checked_sum(list.receipts.iter().map(|r| r.net)), Some(earnings.all_time));
    let rest: ReceiptList = node.get("/v1/node/receipts?after=2").await.unwrap();
    assert_eq!(rest.receipts, list.receipts[2..]);
}

#[tokio::test]
async fn the_cheapest_node_that_takes_leases_gets_the_job_and_the_market_shows_it() {
    use fizz::wire::node::NodeState;
    let world = World::new().await;
    let (mut dear, mut cheap) = (world.node(1, "0.80").await, world.node(2, "0.40").await);
    let market: MarketView = world.client().get("/v1/market").bearer(&world.renter.api_key).receive().await.unwrap();
    assert_eq!((market.nodes_online, market.price_min), (2, Some("0.40".parse().unwrap())));
    let first = world.submit(&job()).await.unwrap();
    assert_eq!(cheap.assigned().await.job_id, first.job_id);
    for state in [NodeState::Paused, NodeState::Draining, NodeState::Stopped] {
        cheap.beat(state, &[]).await;
        let other = world.submit(&job()).await.unwrap();
        let lease = dear.assigned().await;
        assert_eq!(lease.job_id, other.job_id);
        dear.report(lease.lease_id, 1, &[exited(0, 0)]).await.unwrap();
    }
}

#[tokio::test]
async fn a_job_that_waits_says_why() {
    let world = World::new().await;
    let view = world.submit(&job()).await.unwrap();
    world.until(view.job_id, |v| v.why == "no node is online and takes jobs").await;
    let _node = world.node(1, "4").await;
    let why = "the cheapest fitting node asks $1.00/h, the job pays at most $0.36/h";
    world.until(view.job_id, |v| v.why == why).await;
}

#[tokio::test]
async fn a_queued_job_is_cancelled_at_once_and_all_its_money_goes_back() {
    let world = World::new().await;
    let view = world.submit(&job()).await.unwrap();
    assert_eq!(world.spendable().await, usd("9.64"));
    for _ in 0..2 {
        assert_eq!(world.stop(view.job_id).await.state, JobState::Cancelled);
    }
    assert_eq!(world.spendable().await, usd("10"));
    assert_eq!(world.log(view.job_id, "follow=true").await, "");
    world.books_balance().await;
}

#[tokio::test]
async fn a_running_job_is_stopped_by_its_node_and_what_it_ran_is_paid() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let lease = node.assigned().await;
    node.report(lease.lease_id, 1, &[LeaseChange::Running]).await.unwrap();
    assert_eq!(world.stop(job_id).await.state, JobState::Running);
    let asked = node.assigned().await;
    assert_eq!((asked.lease_id, asked.desired), (lease.lease_id, Desired::Stop));
    assert!(asked.generation > lease.generation);
    world.clock.advance(Duration::from_secs(40));
    let end = LeaseChange::Ended { end: LeaseEnd::Stopped { code: 143 }, ran_millis: 36_000 };
    node.report(lease.lease_id, 2, &[end]).await.unwrap();
    let view = world.view(job_id).await;
    assert_eq!((view.state, view.cost), (JobState::Cancelled, usd("0.001")));
    assert_eq!(view.lease.unwrap().phase, LeasePhase::Done);
    world.books_balance().await;
}

#[tokio::test]
async fn a_log_is_followed_while_it_is_written_and_ends_with_the_job() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let call = world.client().get(&format!("/v1/jobs/{job_id}/logs?follow=true")).bearer(&world.renter.api_key);
    let mut followed = call.open().await.unwrap();
    assert_eq!(followed.headers()["content-type"], LOG_MEDIA_TYPE);
    let lease = node.assigned().await.lease_id;
    let (one, two) = (framed("one "), framed("two"));
    node.log(lease, "offset=0", one.clone()).await.unwrap();
    assert_eq!(followed.chunk().await.unwrap().unwrap(), one);
    let again: Bytes = [one.clone(), two.clone()].concat().into();
    node.log(lease, "offset=0&complete=true", again).await.unwrap();
    assert_eq!(followed.chunk().await.unwrap().unwrap(), two);
    node.report(lease, 1, &[LeaseChange::Running, exited(0, 1)]).await.unwrap();
    assert_eq!(followed.bytes().await.unwrap(), Bytes::new(), "nothing more, and the stream ends");
    assert_eq!(world.log(job_id, &format!("offset={}", one.len())).await, "two");
    assert_eq!(text_of(framed("")), "");
}

#[tokio::test]
async fn a_held_assignments_call_is_answered_when_the_coordinator_drains() {
    let world = World::new().await;
    let node = world.node(1, "0.40").await;
    let held = async { node.get::<serde_json::Value>("/v1/node/assignments?after=99&wait=60").await };
    let drain = async {
        tokio::task::yield_now().await;
        world.running.app().stopping.cancel();
    };
    let (answer, ()) =
        tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(held, drain) }).await.unwrap();
    assert_eq!(answer.unwrap()["leases"], serde_json::json!([]));
}

#[tokio::test]
async fn gaps_garbage_and_too_much_log_are_refused_and_a_node_can_ask_where_to_go_on() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    world.submit(&job()).await.unwrap();
    let lease = node.assigned().await.lease_id;
    let one = framed("one");
    assert_eq!(node.log(lease, "offset=0", one.clone()).await.unwrap(), 8);
    assert_eq!(code(node.log(lease, "offset=9", one.clone()).await), ErrorCode::OffsetGap);
    assert_eq!(node.log(lease, "offset=0", Bytes::new()).await.unwrap(), 8);
    assert_eq!(code(node.log(lease, "offset=8", Bytes::from_static(b"garbage")).await), ErrorCode::InvalidRequest);
    assert_eq!(code(node.log(lease, "offset=8", one.slice(..7)).await), ErrorCode::InvalidRequest);
    assert_eq!(code(node.log(lease, "offset=8", vec![0; (1 << 20) + 1].into()).await), ErrorCode::TooLarge);
    assert_eq!(code(node.log(lease, "offset=-1", one).await), ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn an_output_with_a_wrong_sum_or_past_its_limit_is_refused_and_nothing_is_shown() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let lease = node.assigned().await.lease_id;
    let small = Bytes::from_static(b"tar");
    assert_eq!(code(node.output(lease, small.clone(), &sha256(b"other")).await), ErrorCode::InvalidRequest);
    assert_eq!(code(node.output(lease, small.clone(), "no hex").await), ErrorCode::InvalidRequest);
    let large = Bytes::from(vec![1_u8; (1 << 20) + 1]);
    assert_eq!(code(node.output(lease, large.clone(), &sha256(&large)).await), ErrorCode::TooLarge);
    assert_eq!(world.view(job_id).await.output, None);
    let path = format!("/v1/jobs/{job_id}/output");
    let none = world.client().get(&path).bearer(&world.renter.api_key).done().await;
    assert_eq!(code(none), ErrorCode::NotFound);
    for _ in 0..2 {
        node.output(lease, small.clone(), &sha256(&small).to_uppercase()).await.unwrap();
    }
    assert_eq!(world.view(job_id).await.output.unwrap().bytes, 3);
}

#[tokio::test]
async fn an_upload_that_stalls_until_the_lease_is_over_takes_away_nothing_that_another_delivered() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let lease = node.assigned().await.lease_id;
    node.report(lease, 1, &[LeaseChange::Running, LeaseChange::Collecting]).await.unwrap();
    let tar = Bytes::from(vec![7_u8; 300_000]);
    let sum = sha256(&tar);
    let (feed, fed) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = futures_util::stream::unfold(fed, |mut fed| async { Some((fed.recv().await?, fed)) });
    let deliver_once_stalled = async {
        feed.send(Ok(tar.slice(..100))).await.unwrap();
        node.output(lease, tar.clone(), &sum).await.unwrap();
        node.report(lease, 3, &[exited(0, 1)]).await.unwrap();
        feed.send(Ok(tar.slice(100..))).await.unwrap();
        drop(feed);
    };
    let (late, ()) = tokio::join!(node.part(lease, 0, reqwest::Body::wrap_stream(body), &sum), deliver_once_stalled);
    assert_eq!(code(late), ErrorCode::LeaseEnded);
    assert_eq!(world.view(job_id).await.output.unwrap().sha256, sum);
    assert_eq!(world.output(job_id).await, tar);
    assert_eq!(world.output_files(), 1, "what came too late is removed");
}

#[tokio::test]
async fn an_output_goes_on_where_it_broke_off_and_is_sent_once_but_for_the_part_that_broke() {
    const PART: usize = 64 << 10;
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let lease = node.assigned().await.lease_id;
    node.report(lease, 1, &[LeaseChange::Running, LeaseChange::Collecting]).await.unwrap();
    let tar: Bytes = (0..1_000_000_u32).map(|n| (n * 7 % 251) as u8).collect::<Vec<_>>().into();
    let sum = sha256(&tar);
    let (mut sent, mut breaks, mut calls) = (0, 0, 0);
    // An empty part asks where to go on, as often as one likes.
    let mut at = usize::try_from(node.part(lease, 0, Bytes::new(), &sum).await.unwrap()).unwrap();
    assert_eq!(at, 0);
    while at < tar.len() {
        let part = tar.slice(at..tar.len().min(at + PART));
        calls += 1;
        sent += part.len();
        if calls % 4 == 2 {
            // The connection breaks in the middle of the part.
            let half = part.slice(..part.len() / 2);
            let pieces = [Ok(half), Err(std::io::Error::other("the connection broke"))];
            let broken = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
            node.part(lease, at, broken, &sum).await.unwrap_err();
            breaks += 1;
        } else {
            node.part(lease, at, part.clone(), &sum).await.unwrap();
            // Said twice, or late, changes nothing.
            let holds = node.part(lease, at, part, &sum).await.unwrap();
            assert_eq!(usize::try_from(holds).unwrap(), tar.len().min(at + PART));
            if calls == 1 {
                assert_eq!(code(node.part(lease, 2 * PART, tar.slice(..10), &sum).await), ErrorCode::OffsetGap);
            }
        }
        at = usize::try_from(node.part(lease, 0, Bytes::new(), &sum).await.unwrap()).unwrap();
    }
    assert!(breaks >= 4 && sent <= tar.len() + breaks * PART, "{sent} bytes with {breaks} breaks");
    assert_eq!(code(node.finish(lease, tar.len() + 1, &sum).await), ErrorCode::OffsetGap);
    assert_eq!(world.view(job_id).await.output, None, "not before it is finished");
    for _ in 0..2 {
        assert_eq!(node.finish(lease, tar.len(), &sum).await.unwrap().bytes, tar.len() as u64);
        assert_eq!(node.part(lease, 0, Bytes::new(), &sum).await.unwrap(), tar.len() as u64, "all of it is here");
    }
    assert_eq!(world.output(job_id).await, tar);
    assert_eq!(world.output_files(), 1, "no part is left");
    // Another collection of the same lease begins anew, and nobody else's node gets in between.
    let other = world.node(2, "0.50").await;
    assert_eq!(code(other.part(lease, 0, tar.slice(..10), &sum).await), ErrorCode::NotFound);
    assert_eq!(node.part(lease, 0, Bytes::new(), &sha256(b"another")).await.unwrap(), 0);
}

#[tokio::test]
async fn a_coordinator_killed_between_parts_knows_how_far_it_was() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let lease = node.assigned().await.lease_id;
    let tar = Bytes::from(vec![5_u8; 300_000]);
    let sum = sha256(&tar);
    assert_eq!(node.part(lease, 0, tar.slice(..200_000), &sum).await.unwrap(), 200_000);
    let world = world.kill_and_start().await;
    node.reconnect(&world).await;
    assert_eq!(node.part(lease, 0, Bytes::new(), &sum).await.unwrap(), 200_000);
    assert_eq!(node.part(lease, 200_000, tar.slice(200_000..), &sum).await.unwrap(), 300_000);
    node.finish(lease, 300_000, &sum).await.unwrap();
    assert_eq!(world.output(job_id).await, tar);
}

#[tokio::test]
async fn parts_that_nobody_will_finish_are_removed() {
    let world = World::new().await;
    let mut node = world.node(1, "0.40").await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let lease = node.assigned().await.lease_id;
    node.report(lease, 1, &[LeaseChange::Running]).await.unwrap();
    node.part(lease, 0, vec![5_u8; 1000], &sha256(b"something")).await.unwrap();
    node.log(lease, "offset=0&complete=true", Bytes::new()).await.unwrap();
    node.report(lease, 2, &[exited(0, 1)]).await.unwrap();
    world.until_state(job_id, JobState::Done).await;
    assert_eq!(world.output_files(), 1);
    // It looks after its house when it starts, and every few minutes.
    let world = world.kill_and_start().await;
    let removed = async {
        while world.output_files() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), removed).await.expect("the janitor comes");
}
