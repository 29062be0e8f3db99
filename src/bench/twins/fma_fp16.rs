//! Twin of `shaders/fma_fp16.wgsl`.
//!
//! Half precision rounds early, so that results of long chains could be compared within no useful tolerance. The chains of the
//! check therefore run in cycles of quarters, which half precision computes exactly, fused or not: x² + c with c in sixteenths
//! comes back to its start after two or three links. Two periods, so that a number of missing links shows in one of them unless
//! it is a multiple of six. The twin counts in quarters, as integers.

use super::{SEEDS, Words};

/// Starts in quarters and constants in sixteenths, on cycles of period 2 and 3 (the last three).
const CYCLES: [(i32, i32); 11] = [
    (0, -16),
    (-4, -16),
    (-1, -13),
    (-3, -13),
    (2, -28),
    (-6, -28),
    (4, -48),
    (-8, -48),
    (-1, -29),
    (-7, -29),
    (5, -29),
];

/// Seeds of the check, as two floats.
pub(crate) fn cyclic_words() -> Vec<Words> {
    (0u32..)
        .take(SEEDS)
        .map(|counter| {
            let (quarters, sixteenths) = CYCLES[super::random(counter) as usize % CYCLES.len()];
            #[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
            let (start, c) = (quarters as f32 / 4.0, sixteenths as f32 / 16.0);
            [start.to_bits(), c.to_bits()]
        })
        .collect()
}

/// Where a chain is after so many links, in quarters: (x/4)² + c/16 = ((x² + c) / 4) / 4.
fn chain(quarters: i32, sixteenths: i32, links: u32) -> i32 {
    (0..links).fold(quarters, |x, _| (x * x + sixteenths) / 4)
}

/// What should have been found, where it was not.
pub(crate) fn mistake(seed: Words, links: u32, found: u32) -> Option<String> {
    let [start, c] = seed.map(|bits| f64::from(f32::from_bits(bits)));
    let of_seed = |(quarters, sixteenths): &&(i32, i32)| {
        f64::from(*quarters) / 4.0 == start && f64::from(*sixteenths) / 16.0 == c
    };
    let Some((quarters, sixteenths)) = CYCLES.iter().find(of_seed) else {
        return Some("has a seed that is on no cycle".to_owned());
    };
    let wanted = f64::from(chain(*quarters, *sixteenths, links)) / 4.0;
    let found = f64::from(f32::from_bits(found));
    (found != wanted).then(|| format!("is {found}, not {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_comes_back_to_its_start_without_rounding_and_not_earlier() {
        for (index, (start, c)) in CYCLES.into_iter().enumerate() {
            let period = if index < 8 { 2 } else { 3 };
            for links in 1..=period {
                let x = chain(start, c, links - 1);
                assert_eq!((x * x + c) % 4, 0, "link {links} of {start}, {c} is no quarter");
                assert_eq!(chain(start, c, links) == start, links == period);
            }
        }
    }

    #[test]
    fn up_to_five_missing_links_show() {
        for missing in 1..=5 {
            let wrong = cyclic_words().into_iter().filter(|seed| {
                let [start, c] = seed.map(f32::from_bits);
                let short = (0..128 - missing).fold(start, |x, _| x * x + c);
                mistake(*seed, 128, short.to_bits()).is_some()
            });
            assert!(wrong.count() > SEEDS / 8, "{missing} missing");
        }
    }
}
