//! Join tokens.

use fizz::wire::enroll::EnrollStatus;
use fizz::wire::{ErrorCode, Secret};

use crate::harness::{Machine, World, code};

#[tokio::test]
async fn a_join_token_enrols_one_machine_and_repeating_it_finds_the_same_node() {
    let world = World::new().await;
    let token = world.join_token(600).await;
    let (first, second) = (Machine::new(1), Machine::new(2));
    let status = first.enroll(&world.client, Some(&token)).await.unwrap();
    assert!(matches!(status, EnrollStatus::Approved { .. }), "{status:?}");
    assert_eq!(first.enroll(&world.client, Some(&token)).await.unwrap(), status);
    assert_eq!(code(second.enroll(&world.client, Some(&token)).await), ErrorCode::TokenUsed);
    // Without a token the enrolled machine is recognised by its key.
    assert_eq!(first.enroll(&world.client, None).await.unwrap(), status);
}

#[tokio::test]
async fn an_enrolled_machine_does_not_use_up_a_second_token() {
    let world = World::new().await;
    let (machine, node_id) = world.node(1).await;
    let token = world.join_token(600).await;
    let again = machine.enroll(&world.client, Some(&token)).await.unwrap();
    assert_eq!(again, EnrollStatus::Approved { node_id });
    assert!(Machine::new(2).enroll(&world.client, Some(&token)).await.is_ok(), "the token is still good");
}

#[tokio::test]
async fn an_expired_token_is_refused_as_expired_unless_it_enrolled_this_machine() {
    let world = World::new().await;
    let (used, unused) = (world.join_token(60).await, world.join_token(60).await);
    let machine = Machine::new(1);
    let status = machine.enroll(&world.client, Some(&used)).await.unwrap();
    world.turn(61);
    assert_eq!(machine.enroll(&world.client, Some(&used)).await.unwrap(), status);
    assert_eq!(code(Machine::new(2).enroll(&world.client, Some(&unused)).await), ErrorCode::TokenExpired);
}

#[tokio::test]
async fn garbage_is_no_token_and_says_where_to_get_one() {
    let world = World::new().await;
    for garbage in
        ["", "hello", "fzj_", "fzj_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", world.account.api_key.expose()]
    {
        let refused = Machine::new(1).enroll(&world.client, Some(&Secret::new(garbage))).await;
        let words = refused.as_ref().unwrap_err().to_string();
        assert!(words.contains("fizz coordinator token create"), "{words}");
        assert_eq!(code(refused), ErrorCode::TokenInvalid, "{garbage:?}");
    }
}

#[tokio::test]
async fn of_two_machines_that_race_for_one_token_exactly_one_gets_in() {
    let world = World::new().await;
    for round in 0..5 {
        let token = world.join_token(600).await;
        let racers: Vec<_> = (0..4).map(|n| Machine::new(10 + round * 4 + n)).collect();
        let results =
            futures_util::future::join_all(racers.iter().map(|m| m.enroll(&world.client, Some(&token)))).await;
        let (winners, losers): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(winners.len(), 1, "{losers:?}");
        assert!(losers.into_iter().all(|lost| code(lost) == ErrorCode::TokenUsed));
    }
}

#[tokio::test]
async fn the_proof_must_fit_the_key_and_the_name() {
    let world = World::new().await;
    let token = world.join_token(600).await;
    let mut request = Machine::new(1).enroll_request(Some(&token));
    request.name = "another".into();
    let refused = world.client.post("/v1/enrollments").json(&request).receive::<EnrollStatus>().await;
    assert_eq!(code(refused), ErrorCode::BadSignature);
    let mut request = Machine::new(1).enroll_request(Some(&token));
    request.public_key = Machine::new(2).public_key();
    let refused = world.client.post("/v1/enrollments").json(&request).receive::<EnrollStatus>().await;
    assert_eq!(code(refused), ErrorCode::BadSignature);
    assert!(Machine::new(3).enroll(&world.client, Some(&token)).await.is_ok(), "the token was not used up");
}

#[tokio::test]
async fn a_machine_cannot_change_owner_by_another_accounts_token() {
    let mut world = World::new().await;
    let (machine, _) = world.node(1).await;
    let name = fizz::wire::account::NewAccount { name: "bob".into() };
    let call = world.client.post("/v1/admin/accounts").bearer(world.running.admin_token()).json(&name);
    world.account = call.receive().await.unwrap();
    let token = world.join_token(600).await;
    assert_eq!(code(machine.enroll(&world.client, Some(&token)).await), ErrorCode::Conflict);
}

#[tokio::test]
async fn an_agent_that_is_too_old_is_told_so_and_a_version_that_is_none_too() {
    let world = World::with(|config| config.min_agent_version = Some("0.2.0".parse().unwrap())).await;
    let refused = Machine::new(1).enroll(&world.client, None).await;
    let words = refused.as_ref().unwrap_err().to_string();
    assert!(words.contains("at least 0.2.0") && words.contains("Update fizz"), "{words}");
    assert_eq!(code(refused), ErrorCode::AgentTooOld);
    let mut request = Machine::new(1).enroll_request(None);
    request.agent_version = "new".into();
    let refused = world.client.post("/v1/enrollments").json(&request).receive::<EnrollStatus>().await;
    assert_eq!(code(refused), ErrorCode::InvalidRequest);
}
