//! What the machine's memory moves, all threads together: reading, writing, and STREAM's triad `a = b + q·c`.
//!
//! Bytes are counted as STREAM counts them (McCalpin): 8 for a read and a write of a word, 24 for a triad; the line that a processor
//! reads before it writes into it is not counted.

use std::time::Duration;

use super::lanes::{self, Lanes};
use crate::bench::timing;
use crate::clock::Clock;
use crate::wire::bench::HostFigures;

const FACTOR: f64 = 3.0;
/// Words of each of the three arrays at most: 128 MiB.
const WORDS_MAX: u64 = 16 << 20;
/// Words of each array at least.
const WORDS_MIN: u64 = 64 << 10;

/// How much may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    words: usize,
    threads: u32,
}

impl Room {
    /// Three arrays in an eighth of what may be used.
    pub(super) fn new(memory_bytes: u64, threads: u32) -> Self {
        let words = (memory_bytes / 8 / 3 / 8).clamp(WORDS_MIN, WORDS_MAX);
        Self { words: usize::try_from(words).unwrap_or(usize::MAX), threads: threads.max(1) }
    }

    /// Words for each thread.
    fn share(self) -> usize {
        self.words.div_ceil(self.threads as usize)
    }
}

/// Measures the three, each checked.
pub(super) fn measure(
    room: Room,
    budget: Duration,
    clock: &Clock,
    figures: &mut HostFigures,
    problems: &mut Vec<String>,
) {
    let lanes = lanes::best();
    figures.memory_write_bytes_per_second = kept("writing", write(room, &lanes, budget, clock), problems);
    figures.memory_read_bytes_per_second = kept("reading", read(room, &lanes, budget, clock), problems);
    figures.memory_triad_bytes_per_second = kept("triad", triad(room, &lanes, budget, clock), problems);
}

fn kept(what: &str, figure: Result<Option<f64>, String>, problems: &mut Vec<String>) -> Option<f64> {
    figure.unwrap_or_else(|why| {
        problems.push(format!("memory was not measured ({what}): {why}"));
        None
    })
}

fn write(room: Room, lanes: &Lanes, budget: Duration, clock: &Clock) -> Result<Option<f64>, String> {
    let mut words = vec![0u64; room.words];
    let write = lanes.write;
    let mut word = 0;
    let rate = per_second(budget, clock, || {
        word += 1;
        std::thread::scope(|scope| {
            for part in words.chunks_mut(room.share()) {
                scope.spawn(move || write(part, word));
            }
        });
    });
    let right = words.iter().all(|found| *found == word);
    if right { Ok(bytes(rate, room, 1)) } else { Err("a word was not written".to_owned()) }
}

fn read(room: Room, lanes: &Lanes, budget: Duration, clock: &Clock) -> Result<Option<f64>, String> {
    let words: Vec<u64> = (0..room.words as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let wanted = words.iter().fold(0, |sum, word| sum ^ word);
    let read = lanes.read;
    let mut wrong = 0u32;
    let rate = per_second(budget, clock, || {
        let sum = std::thread::scope(|scope| {
            let parts: Vec<_> = words.chunks(room.share()).map(|part| scope.spawn(move || read(part))).collect();
            // A thread that broke off gives a sum that is wrong.
            parts.into_iter().fold(0, |sum, part| sum ^ part.join().unwrap_or(u64::MAX))
        });
        wrong += u32::from(sum != wanted);
    });
    if wrong == 0 { Ok(bytes(rate, room, 1)) } else { Err(format!("{wrong} sums were wrong")) }
}

fn triad(room: Room, lanes: &Lanes, budget: Duration, clock: &Clock) -> Result<Option<f64>, String> {
    let numbers = |offset: u32| (0u32..).take(room.words).map(move |i| f64::from(i % 1021 + offset));
    let (b, c): (Vec<f64>, Vec<f64>) = (numbers(1).collect(), numbers(2).collect());
    let mut a = vec![0f64; room.words];
    let triad = lanes.triad;
    let rate = per_second(budget, clock, || {
        std::thread::scope(|scope| {
            let parts = a.chunks_mut(room.share()).zip(b.chunks(room.share())).zip(c.chunks(room.share()));
            for ((a, b), c) in parts {
                scope.spawn(move || triad(a, b, c, FACTOR));
            }
        });
    });
    // Small whole numbers: exact however it is rounded.
    let right = a.iter().zip(numbers(1)).zip(numbers(2)).all(|((a, b), c)| *a == b + FACTOR * c);
    if right { Ok(bytes(rate, room, 3)) } else { Err("a sum was wrong".to_owned()) }
}

fn per_second(budget: Duration, clock: &Clock, mut once: impl FnMut()) -> Option<f64> {
    let rate = timing::rate(budget, 1 << 16, |times| {
        let before = clock.steady();
        (0..times).for_each(|_| once());
        Ok::<_, std::convert::Infallible>(clock.steady().since(before))
    });
    rate.ok().flatten()
}

fn bytes(rate: Option<f64>, room: Room, arrays: u32) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let of_array = (room.words * 8) as f64;
    rate.map(|times| times * of_array * f64::from(arrays)).filter(|rate| rate.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eighth_of_what_may_be_used_is_taken_and_no_more_than_384_mib() {
        assert_eq!(Room::new(1 << 30, 2).words, (1 << 30) / 192);
        assert_eq!(Room::new(1 << 40, 2).words, 16 << 20);
        assert_eq!(Room::new(0, 0), Room { words: 64 << 10, threads: 1 });
    }

    #[test]
    fn vectors_and_plain_loops_do_the_same_to_any_length() {
        for length in [0, 1, 7, 64, 1001] {
            let words: Vec<u64> = (0..length).map(|i| i * 977).collect();
            let mut results = [lanes::best(), lanes::PORTABLE].map(|lanes| {
                let mut written = words.clone();
                (lanes.write)(&mut written, 9);
                assert!(written.iter().all(|word| *word == 9));
                let numbers: Vec<f64> = (0..length).map(|i| f64::from(u32::try_from(i).unwrap())).collect();
                let mut sums = numbers.clone();
                (lanes.triad)(&mut sums, &numbers, &numbers, 2.0);
                assert!(sums.iter().zip(&numbers).all(|(sum, x)| *sum == 3.0 * x));
                (lanes.read)(&words)
            });
            results.sort_unstable();
            assert_eq!(results[0], results[1]);
        }
    }

    #[test]
    fn a_loop_that_does_nothing_has_no_figure() {
        let broken = Lanes { read: |_| 1, write: |_, _| {}, triad: |_, _, _, _| {}, ..lanes::PORTABLE };
        let (room, clock, budget) = (Room::new(1 << 20, 2), Clock::system(), Duration::from_millis(1));
        write(room, &broken, budget, &clock).unwrap_err();
        read(room, &broken, budget, &clock).unwrap_err();
        triad(room, &broken, budget, &clock).unwrap_err();
    }
}
