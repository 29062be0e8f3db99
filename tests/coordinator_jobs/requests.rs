//! What renters may ask for, and what they are told when they may not.

use std::collections::BTreeSet;

use fizz::http::HttpError;
use fizz::wire::ErrorCode;
use fizz::wire::account::{AccountCreated, NewAccount};
use fizz::wire::job::{JobList, JobSpec, JobView, SubmitJob};
use serde_json::json;

use crate::world::{World, code, job, problem, usd};

async fn submit_raw(world: &World, change: impl FnOnce(&mut serde_json::Value)) -> Result<JobView, HttpError> {
    let mut body = serde_json::to_value(SubmitJob { spec: job() }).unwrap();
    change(&mut body["spec"]);
    world.client().post("/v1/jobs").bearer(&world.renter.api_key).json(&body).receive().await
}

#[tokio::test]
async fn a_renter_without_money_is_told_what_is_needed_and_what_is_there() {
    let world = World::new().await;
    let mut dear = job();
    dear.limits.duration_seconds_max = 30 * 24 * 3600;
    let refused = problem(world.submit(&dear).await);
    assert_eq!(refused.code, ErrorCode::InsufficientFunds);
    let sentence = refused.to_string();
    assert!(sentence.contains("$259.20") && sentence.contains("$10.00"), "{sentence}");
    assert_eq!(world.spendable().await, usd("10"));
    world.books_balance().await;
}

#[tokio::test]
async fn prices_of_zero_negative_or_overflowing_are_refused_with_the_range() {
    let world = World::new().await;
    for price in [json!(0), json!(-1), json!(i64::MIN), json!(i64::MAX), json!(10_000_000_001_i64)] {
        let refused = problem(submit_raw(&world, |spec| spec["limits"]["price_max"] = price.clone()).await);
        assert_eq!(refused.code, ErrorCode::InvalidRequest, "{price}");
        assert!(refused.to_string().contains("an hourly price must be from $0.000001 to $10000"), "{refused}");
    }
    for price in [json!(1.5), json!("1"), json!(null), json!(1e300)] {
        let refused = submit_raw(&world, |spec| spec["limits"]["price_max"] = price.clone()).await;
        assert_eq!(code(refused), ErrorCode::InvalidRequest, "{price}");
    }
    world.books_balance().await;
}

#[tokio::test]
async fn a_job_that_cannot_be_run_as_described_is_refused_by_name() {
    let world = World::new().await;
    let refusal = async |change: fn(&mut JobSpec)| {
        let mut spec = job();
        change(&mut spec);
        problem(world.submit(&spec).await)
    };
    for (field, change) in [
        ("services", (|s| s.services.clear()) as fn(&mut JobSpec)),
        ("image", |s| s.services[0].image = String::new()),
        ("output_path", |s| s.output_path = Some("/a/../..".into())),
        ("duration_seconds_max", |s| s.limits.duration_seconds_max = 0),
        ("duration_seconds_max", |s| s.limits.duration_seconds_max = u64::MAX),
        ("memory_bytes", |s| s.services[0].resources.memory_bytes = 1),
    ] {
        let refused = refusal(change).await;
        assert_eq!(refused.code, ErrorCode::InvalidJob);
        assert!(refused.detail.as_ref().unwrap().contains(field), "{refused}");
    }
    assert_eq!(world.spendable().await, usd("10"));
}

#[tokio::test]
async fn one_key_makes_one_job_however_often_and_concurrently_it_is_sent() {
    let world = World::new().await;
    let spec = job();
    let sent = futures_util::future::join_all((0..6).map(|_| world.submit_with_key(&spec, "k"))).await;
    let jobs: BTreeSet<_> = sent.into_iter().map(|s| s.unwrap().job_id).collect();
    assert_eq!(jobs.len(), 1);
    let other = JobSpec { name: Some("another".into()), ..spec.clone() };
    assert_eq!(code(world.submit_with_key(&other, "k").await), ErrorCode::Conflict);
    assert!(!jobs.contains(&world.submit_with_key(&spec, "l").await.unwrap().job_id));
    assert_eq!(code(world.submit_with_key(&spec, &"x".repeat(256)).await), ErrorCode::InvalidRequest);
    assert_eq!(world.spendable().await, usd("9.28"));
    world.books_balance().await;
}

#[tokio::test]
async fn somebody_elses_job_is_not_there() {
    let world = World::new().await;
    let job_id = world.submit(&job()).await.unwrap().job_id;
    let client = world.client();
    let call = client.post("/v1/admin/accounts").bearer(world.running.admin_token());
    let stranger: AccountCreated = call.json(&NewAccount { name: "stranger".into() }).receive().await.unwrap();
    let key = &stranger.api_key;
    for path in [format!("/v1/jobs/{job_id}"), format!("/v1/jobs/{job_id}/logs"), format!("/v1/jobs/{job_id}/output")] {
        assert_eq!(code(client.get(&path).bearer(key).done().await), ErrorCode::NotFound, "{path}");
    }
    let stop = client.delete(&format!("/v1/jobs/{job_id}")).bearer(key).done().await;
    assert_eq!(code(stop), ErrorCode::NotFound);
    assert_eq!(client.get("/v1/jobs").bearer(key).receive::<JobList>().await.unwrap().jobs, []);
    assert_eq!(code(client.get("/v1/jobs/nonsense").bearer(key).done().await), ErrorCode::NotFound);
    assert!(!world.view(job_id).await.state.is_final());
}

#[tokio::test]
async fn jobs_are_listed_newest_first_a_page_at_a_time_without_secrets() {
    let world = World::new().await;
    let mut made = Vec::new();
    for _ in 0..3 {
        world.clock.advance(std::time::Duration::from_millis(2));
        made.push(world.submit(&job()).await.unwrap().job_id);
    }
    let list = async |query: &str| {
        let call = world.client().get(&format!("/v1/jobs{query}")).bearer(&world.renter.api_key);
        let list: JobList = call.receive().await.unwrap();
        assert!(!serde_json::to_string(&list).unwrap().contains("hunter2"));
        list.jobs.into_iter().map(|j| j.job_id).collect::<Vec<_>>()
    };
    assert_eq!(list("").await, [made[2], made[1], made[0]]);
    assert_eq!(list("?limit=1").await, [made[2]]);
    assert_eq!(list(&format!("?limit=5&before={}", made[1])).await, [made[0]]);
}
