//! What checking a challenge costs the coordinator: milliseconds on one core and bytes of the answer, against its size.
//!
//! `cargo bench --bench verify`. The product is not computed: the checker itself says what a right answer would be. No rows are
//! opened; each would add its own sums, n steps.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use fizz::clock::Clock;
use fizz::proof::Size;
use fizz::proof::freivalds::{Question, Reply, Wrong, check};
use fizz::proof::generator::Seed;
use fizz::proof::merkle;
use fizz::wire::Digest;

/// Rows that a challenge opens.
const OPENED: usize = 24;
const REPEATS: usize = 7;

fn main() {
    let clock = Clock::system();
    println!("{:>6}  {:>9}  {:>12}", "n", "ms", "answer bytes");
    for n in [256, 1024, 4096, 8192, 16_384, 32_768] {
        let Ok(size) = Size::try_from(n) else { continue };
        let millis = best_of(&clock, size);
        let opened = OPENED * (size.rows() * 4 + merkle::path_len(size) * 32);
        println!("{n:>6}  {millis:>9.2}  {:>12}", size.rows() * 8 + opened);
    }
}

/// Milliseconds of the fastest of some checks.
fn best_of(clock: &Clock, size: Size) -> f64 {
    let seed = Seed::from_bytes([1; 32]);
    let question =
        Question { seed: &seed, size, root: &Digest::from_bytes([0; 32]), vector_seed: &[2; 32], opened: &[] };
    let product = fizz::proof::freivalds::expected(&question);
    let mut best = f64::INFINITY;
    for _ in 0..REPEATS {
        let before = clock.steady();
        let outcome: Result<(), Wrong> = check(&question, &Reply { product: &product, rows: &[] });
        let took = clock.steady().since(before).as_secs_f64() * 1e3;
        assert!(outcome.is_ok(), "the right product was refused");
        best = best.min(took);
    }
    best
}
