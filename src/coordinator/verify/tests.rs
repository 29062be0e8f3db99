//! Attacks, one by one and by the thousand, and honest nodes on bad days.

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::exam::{Exam, OPENED};
use super::sizing::{millis_for, size_for};
use super::trust::{Outcome, Trust};
use crate::proof::generator::Seed;
use crate::proof::merkle::{Tree, row_digest};
use crate::proof::product::Product;
use crate::proof::{Size, field};
use crate::wire::challenge::{Answer, Blob, Device, Opening, Part, ProofState, RevealedRow};
use crate::wire::{ChallengeId, Digest, Nonce, PublicKey};

const N: usize = 256;
const CHEATS: u64 = 1_000;

/// What a node has computed, right or wrong, and how it answers.
struct Work {
    rows: Vec<Vec<i32>>,
    tree: Tree,
}

impl Work {
    fn honest(seed: &Seed) -> Self {
        let product = Product::compute(seed, Size::MIN, 1);
        Self::of((0..N).map(|row| product.row(row).to_vec()).collect())
    }

    fn of(rows: Vec<Vec<i32>>) -> Self {
        let tree = Tree::new(rows.iter().map(|row| row_digest(row)).collect());
        Self { rows, tree }
    }

    fn answer(&self, opening: &Opening) -> Answer {
        let vector = field::vector(opening.vector_seed.as_bytes(), N);
        let product = self.rows.iter().flat_map(|row| field::dot(row, &vector).to_le_bytes()).collect();
        let open = |row: &u32| RevealedRow {
            elements: Blob(self.rows[*row as usize].iter().flat_map(|element| element.to_be_bytes()).collect()),
            path: self.tree.path(*row as usize),
        };
        Answer { product: Blob(product), rows: opening.rows[0].iter().map(open).collect() }
    }
}

/// A challenge to a node, before it commits.
fn exam(random: &mut StdRng) -> Exam {
    Exam {
        challenge_id: ChallengeId::from(uuid::Uuid::from_bytes(random.random())),
        node: PublicKey::from_bytes(random.random()),
        nonce: Nonce::from_bytes(random.random()),
        parts: vec![Part { device: Device::Cpu, size: 256 }],
        roots: Vec::new(),
        opening: Opening { vector_seed: Digest::from_bytes([0; 32]), rows: vec![Vec::new()] },
    }
}

fn seed_of(exam: &Exam) -> Seed {
    Seed::derive(&exam.nonce, &exam.node, exam.challenge_id, 0)
}

/// The node commits to this work, and only then it is drawn what to open.
fn commit(exam: &Exam, work: &Work, random: &mut StdRng) -> Exam {
    let rows = (0..OPENED).map(|_| random.random_range(0..256)).collect();
    let opening = Opening { vector_seed: Digest::from_bytes(random.random()), rows: vec![rows] };
    Exam { roots: vec![work.tree.root()], opening, ..exam.clone() }
}

fn caught(mut cheat: impl FnMut(&mut StdRng) -> Result<(), String>) {
    let mut random = StdRng::seed_from_u64(20_26);
    for number in 0..CHEATS {
        assert!(cheat(&mut random).is_err(), "cheat {number} got away");
    }
}

#[test]
fn a_right_answer_passes_every_time() {
    let mut random = StdRng::seed_from_u64(1);
    let asked = exam(&mut random);
    let work = Work::honest(&seed_of(&asked));
    for _ in 0..20 {
        let exam = commit(&asked, &work, &mut random);
        assert_eq!(exam.mark(&[work.answer(&exam.opening)]), Ok(()));
    }
}

#[test]
fn a_thousand_wrong_results_are_all_caught() {
    let mut random = StdRng::seed_from_u64(2);
    let asked = exam(&mut random);
    let rows = Work::honest(&seed_of(&asked)).rows;
    let mut flipped = || {
        // One element, by one bit: a card whose memory is bad.
        let mut wrong = rows.clone();
        wrong[random.random_range(0..N)][random.random_range(0..N)] ^= 1 << random.random_range(0..31);
        Work::of(wrong)
    };
    let works: Vec<Work> = (0..20).map(|_| flipped()).collect();
    caught(|random| {
        let work = &works[random.random_range(0..works.len())];
        let exam = commit(&asked, work, random);
        exam.mark(&[work.answer(&exam.opening)])
    });
}

#[test]
fn a_thousand_who_computed_a_part_only_are_all_caught_although_they_compute_the_rest_once_they_know_the_vector() {
    let mut random = StdRng::seed_from_u64(3);
    let asked = exam(&mut random);
    let honest = Work::honest(&seed_of(&asked));
    // Half of the rows left out. The right C·r is computed after the vector is known, in n² steps.
    let mut rows = honest.rows.clone();
    rows.iter_mut().step_by(2).for_each(|row| row.fill(0));
    let work = Work::of(rows);
    caught(|random| {
        let exam = commit(&asked, &work, random);
        let answer = Answer { product: honest.answer(&exam.opening).product, ..work.answer(&exam.opening) };
        exam.mark(&[answer])
    });
}

#[test]
fn a_thousand_who_compute_nothing_until_they_know_what_to_open_are_all_caught() {
    let mut random = StdRng::seed_from_u64(4);
    let asked = exam(&mut random);
    let (honest, nothing) = (Work::honest(&seed_of(&asked)), Work::of(vec![vec![0; N]; N]));
    caught(|random| {
        let exam = commit(&asked, &nothing, random);
        exam.mark(&[honest.answer(&exam.opening)])
    });
}

#[test]
fn a_thousand_replays_and_answers_computed_beforehand_or_by_another_node_are_all_caught() {
    let mut random = StdRng::seed_from_u64(5);
    let earlier = exam(&mut random);
    let work = Work::honest(&seed_of(&earlier));
    let mut kind = 0;
    caught(|random| {
        kind += 1;
        let fresh = exam(random);
        // The same work for another nonce, another challenge, another node.
        let asked = match kind % 3 {
            0 => Exam { nonce: fresh.nonce, ..earlier.clone() },
            1 => Exam { challenge_id: fresh.challenge_id, ..earlier.clone() },
            _ => Exam { node: fresh.node, ..earlier.clone() },
        };
        let exam = commit(&asked, &work, random);
        exam.mark(&[work.answer(&exam.opening)])
    });
}

#[test]
fn a_thousand_malformed_answers_are_all_refused() {
    let mut random = StdRng::seed_from_u64(6);
    let asked = exam(&mut random);
    let work = Work::honest(&seed_of(&asked));
    let mut kind = 0;
    caught(|random| {
        kind += 1;
        let exam = commit(&asked, &work, random);
        let mut answers = vec![work.answer(&exam.opening)];
        let cut = random.random_range(0..500);
        match kind % 8 {
            0 => answers[0].product.0.truncate(cut),
            1 => answers[0].product.0.extend([0; 8]),
            2 => answers[0].rows[3].elements.0.truncate(cut),
            3 => answers[0].rows[cut % OPENED].path.truncate(cut % 8),
            4 => answers[0].rows.truncate(cut % OPENED),
            5 => answers.clear(),
            6 => answers.push(answers[0].clone()),
            _ => answers[0].product.0[..8].fill(0xff),
        }
        exam.mark(&answers)
    });
    for size in [0, 1, 255, 32_769, 1 << 31] {
        let exam = Exam { parts: vec![Part { device: Device::Cpu, size }], ..commit(&asked, &work, &mut random) };
        assert!(exam.mark(&[work.answer(&exam.opening)]).is_err(), "{size}");
    }
}

/// Milliseconds until a card's commitment is there: the work it claimed, at the speed it has.
fn answered_after(claimed_ops: f64, real_ops: f64, network_millis: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a simulation")]
    let operations = size_for(claimed_ops).operations() as f64;
    operations / real_ops * 1_000.0 + network_millis
}

fn limit(claimed_ops: f64) -> f64 {
    f64::from(u32::try_from(millis_for(size_for(claimed_ops), claimed_ops)).unwrap())
}

/// A claim of 2 billion to 40 trillion operations a second, and a card that is so many times slower, on a network without delay.
fn answered_by_slower(random: &mut StdRng, times: f64) -> Result<(), String> {
    let claimed = 2e9 * 10f64.powf(random.random_range(0.0..4.3));
    if answered_after(claimed, claimed / times, 0.0) > limit(claimed) { Err("late".to_owned()) } else { Ok(()) }
}

#[test]
fn a_thousand_slow_cards_that_claim_to_be_fast_are_all_late() {
    caught(|random| {
        let times = random.random_range(2.0..40.0);
        answered_by_slower(random, times)
    });
}

#[test]
fn a_thousand_single_cards_that_answer_for_several_are_all_late() {
    // So many nodes or adapters, all challenged at the same moment, and one card to do their work.
    caught(|random| {
        let cards = random.random_range(2..32u8);
        answered_by_slower(random, f64::from(cards))
    });
}

#[test]
fn a_thousand_honest_nodes_with_noisy_timing_are_neither_late_nor_suspended() {
    let mut random = StdRng::seed_from_u64(7);
    for number in 0..1_000 {
        let real = 1e8 * 10f64.powf(random.random_range(0.0..6.0));
        // What it measured on a good day.
        let claimed = real * random.random_range(0.97..1.03);
        let mut trust = Trust::default();
        let mut now = Timestamp::UNIX_EPOCH;
        for _ in 0..50 {
            // Cold clocks, a desktop that draws: up to 35 % more. A network that takes up to 0.9 s.
            let slower = 1.0 + 0.35 * random.random::<f64>().powi(2);
            let network = 20.0 + 880.0 * random.random::<f64>().powi(3);
            let millis = answered_after(claimed, real / slower, network);
            assert!(
                millis <= limit(claimed),
                "node {number} of {real:e} FLOP/s took {millis} ms of {}",
                limit(claimed)
            );
            // Now and then the connection breaks at the wrong moment.
            let outcome = match random.random_range(0..1_000) {
                0..985 => Outcome::Passed,
                985..990 => Outcome::Missed { why: "no answer".to_owned() },
                990..993 => Outcome::Unheard { joint: true },
                _ => Outcome::Unheard { joint: false },
            };
            trust = trust.after(&outcome, now);
            assert_ne!(trust.state(true, now), ProofState::Suspended, "node {number}");
            now += trust.rest(&outcome, random.random()) + SignedDuration::from_secs(1);
        }
    }
}
