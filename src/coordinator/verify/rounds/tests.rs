//! Rounds with clocks that stand where the test puts them.

use super::*;
use crate::wire::challenge::Device;

fn at(millis: u64) -> Steady {
    Steady::from_start(Duration::from_millis(millis))
}

fn id<T: From<uuid::Uuid>>(number: u8) -> T {
    uuid::Uuid::from_bytes([number; 16]).into()
}

fn new(number: u8) -> NewChallenge {
    NewChallenge {
        challenge_id: id(number),
        node_id: id(number),
        node: PublicKey::from_bytes([number; 32]),
        nonce: Nonce::from_bytes([number; 16]),
        parts: vec![Part { device: Device::Cpu, size: 256 }],
        millis_max: 3_000,
    }
}

fn opening(number: u8) -> Opening {
    Opening { vector_seed: Digest::from_bytes([number; 32]), rows: vec![vec![0]] }
}

fn roots(number: u8) -> Commit {
    Commit { roots: vec![Digest::from_bytes([number; 32])] }
}

/// A round of these nodes, all ready at 1 s.
fn running(numbers: &[u8]) -> Rounds {
    let rounds = Rounds::default();
    rounds.begin(numbers.iter().map(|number| new(*number)).collect(), at(0));
    for number in numbers {
        rounds.ready(id(*number), id(*number), at(1_000)).unwrap();
    }
    rounds
}

fn code<T: std::fmt::Debug>(result: Result<T, Problem>) -> ErrorCode {
    result.unwrap_err().code
}

#[test]
fn all_nodes_of_a_round_are_told_at_the_same_moment_and_none_before() {
    let rounds = Rounds::default();
    rounds.begin(vec![new(1), new(2)], at(0));
    let first = rounds.ready(id(1), id(1), at(1_000)).unwrap();
    assert_eq!(*first.borrow(), None);
    assert_eq!(code(rounds.go(id(1), id(1), at(1_000))), ErrorCode::ChallengeOver);
    let second = rounds.ready(id(2), id(2), at(5_000)).unwrap();
    assert_eq!((*first.borrow(), *second.borrow()), (Some(at(5_000)), Some(at(5_000))));
    assert_eq!(rounds.go(id(1), id(1), at(5_400)).unwrap().millis_max, 2_600);
}

#[test]
fn a_node_that_does_not_get_ready_holds_the_others_up_for_a_while_only_and_it_counts_against_it() {
    let rounds = Rounds::default();
    rounds.begin(vec![new(1), new(2)], at(0));
    let first = rounds.ready(id(1), id(1), at(1_000)).unwrap();
    assert_eq!(rounds.expire(at(39_000)), []);
    let ended = rounds.expire(at(40_001));
    assert_eq!((ended[0].node_id, ended[0].outcome.clone()), (id(2), Outcome::Unheard { joint: true }));
    assert_eq!(*first.borrow(), Some(at(40_001)));
    assert_eq!(code(rounds.ready(id(2), id(2), at(40_002))), ErrorCode::ChallengeOver);
}

#[test]
fn an_answer_after_the_deadline_is_a_miss_whatever_it_says() {
    let rounds = running(&[1]);
    let Committed::Over(ended) = rounds.commit(id(1), id(1), roots(7), opening(1), at(4_001)).unwrap() else {
        panic!("it was late")
    };
    assert!(matches!(&ended.outcome, Outcome::Missed { why } if why.contains("1 ms after")), "{ended:?}");
    assert_eq!(code(rounds.commit(id(1), id(1), roots(7), opening(1), at(4_002))), ErrorCode::ChallengeOver);
    let silent = running(&[2]);
    assert_eq!(silent.expire(at(4_000)), []);
    assert!(matches!(&silent.expire(at(4_001))[0].outcome, Outcome::Missed { why } if why.contains("no answer")));
}

#[test]
fn the_first_commitment_counts_and_a_repeat_of_it_learns_nothing_new() {
    let rounds = running(&[1]);
    let open = |commit, opening| rounds.commit(id(1), id(1), commit, opening, at(2_000));
    let Committed::Open(first) = open(roots(7), opening(1)).unwrap() else { panic!("in time") };
    let Committed::Open(again) = open(roots(7), opening(2)).unwrap() else { panic!("in time") };
    assert_eq!((first, again), (opening(1), opening(1)));
    assert_eq!(code(open(roots(8), opening(3))), ErrorCode::Conflict);
}

#[test]
fn nothing_is_told_before_its_turn_and_one_answer_is_taken() {
    let rounds = Rounds::default();
    rounds.begin(vec![new(1), new(2)], at(0));
    assert_eq!(code(rounds.commit(id(1), id(1), roots(7), opening(1), at(1))), ErrorCode::Conflict);
    rounds.ready(id(1), id(1), at(2)).unwrap();
    assert_eq!(code(rounds.commit(id(1), id(1), roots(7), opening(1), at(3))), ErrorCode::Conflict);
    rounds.ready(id(2), id(2), at(4)).unwrap();
    assert_eq!(code(rounds.take_exam(id(1), id(1))), ErrorCode::Conflict);
    rounds.commit(id(1), id(1), roots(7), opening(1), at(5)).unwrap();
    let (exam, millis) = rounds.take_exam(id(1), id(1)).unwrap();
    assert_eq!((exam.roots, exam.opening, millis), (roots(7).roots, opening(1), 1));
    assert_eq!(code(rounds.take_exam(id(1), id(1))), ErrorCode::ChallengeOver, "a replayed answer");
}

#[test]
fn a_node_has_no_part_in_the_challenges_of_others() {
    let rounds = running(&[1, 2]);
    assert_eq!(code(rounds.ready(id(1), id(2), at(1))), ErrorCode::ChallengeOver);
    assert_eq!(code(rounds.commit(id(1), id(2), roots(7), opening(1), at(1))), ErrorCode::ChallengeOver);
    assert_eq!(code(rounds.take_exam(id(1), id(2))), ErrorCode::ChallengeOver);
    assert_eq!(rounds.pending(id(3)), None);
}

#[test]
fn a_commitment_to_another_number_of_results_is_a_miss() {
    let rounds = running(&[1]);
    let two = Commit { roots: vec![Digest::from_bytes([7; 32]); 2] };
    assert!(matches!(rounds.commit(id(1), id(1), two, opening(1), at(2)).unwrap(), Committed::Over(_)));
}

#[test]
fn what_was_committed_to_has_to_be_opened() {
    let rounds = running(&[1]);
    rounds.commit(id(1), id(1), roots(7), opening(1), at(2_000)).unwrap();
    assert_eq!(rounds.expire(at(92_000)), []);
    let ended = rounds.expire(at(92_001));
    assert!(matches!(&ended[0].outcome, Outcome::Missed { why } if why.contains("never opened")));
    assert_eq!(ended[0].work_millis, 1_000);
}

#[test]
fn only_nodes_that_listen_and_are_not_challenged_are_free_and_a_job_ends_a_challenge_without_harm() {
    let rounds = Rounds::default();
    let first = rounds.listen(id(1));
    let second = rounds.listen(id(1));
    drop(first);
    assert_eq!(rounds.free(), [id::<NodeId>(1)]);
    rounds.begin(vec![new(1)], at(0));
    assert_eq!((rounds.free(), rounds.any()), (vec![], true));
    assert_eq!(rounds.pending(id(1)).unwrap().challenge_id, id(1));
    assert_eq!(rounds.give_up(id(1)).unwrap().outcome, Outcome::Void);
    assert_eq!((rounds.free(), rounds.any()), (vec![id(1)], false));
    drop(second);
    assert_eq!(rounds.free(), []);
}
