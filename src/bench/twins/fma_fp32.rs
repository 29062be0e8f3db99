//! Twin of `shaders/fma_fp32.wgsl`.
//!
//! A link of a chain may be fused (one rounding) or not (two), WGSL allows both; so results are compared within
//! [`TOLERANCE`]. It is tight enough to notice a single missing link: near c = 1/4 a chain approaches its fixed point so slowly
//! that after 128 links one link still moves it by about 6·10⁻⁵.

use super::{SEEDS, Words};

/// Largest accepted difference: 64 ulp of results between 1/4 and 1/2. 128 links that are rounded once more than the twin's
/// can differ by 43 ulp: every link adds at most one, and damps what came before it by 1 − 2/(its number).
const TOLERANCE: f32 = 64.0 * f32::EPSILON / 4.0;

/// Where a chain starts, and its constant.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seed {
    start: f32,
    c: f32,
}

/// Seeds for the check: chains that creep to a fixed point, where a rounding more or less stays small.
fn creeping_seeds() -> Vec<Seed> {
    seeds(0.2498, 0.000_15)
}

/// Seeds for the measurement: chains that roam through [-2, 2] and never repeat, as data of a real job would.
fn roaming_seeds() -> Vec<Seed> {
    seeds(-1.9, 0.3)
}

/// Largest magnitude a roaming chain can have.
const ROAMING_MAX: f32 = 2.0;

/// Starts in [-0.4, 0.4), constants from `c_min` to `c_min + c_range`.
fn seeds(c_min: f32, c_range: f32) -> Vec<Seed> {
    let unit = |counter: usize| {
        let counter = u32::try_from(counter).expect("there are 8192");
        f32::from(u16::try_from(super::random(counter) >> 16).expect("16 bits")) / 65_536.0
    };
    (0..SEEDS).map(|i| Seed { start: unit(2 * i) * 0.8 - 0.4, c: unit(2 * i + 1) * c_range + c_min }).collect()
}

/// Where a chain is after so many links.
fn chain(seed: Seed, links: u32) -> f32 {
    (0..links).fold(seed.start, |x, _| x.mul_add(x, seed.c))
}

/// Seeds for the check.
pub(crate) fn creeping_words() -> Vec<Words> {
    creeping_seeds().into_iter().map(Seed::words).collect()
}

/// Seeds for the measurement.
pub(crate) fn roaming_words() -> Vec<Words> {
    roaming_seeds().into_iter().map(Seed::words).collect()
}

/// What should have been found at the end of a creeping chain, where it was not.
pub(crate) fn mistake(seed: Words, links: u32, found: u32) -> Option<String> {
    let [start, c] = seed.map(f32::from_bits);
    let (wanted, found) = (chain(Seed { start, c }, links), f32::from_bits(found));
    let near = (found - wanted).abs() <= TOLERANCE;
    (!near).then(|| format!("is {found}, not {wanted}"))
}

/// The end of a roaming chain, where no such chain can end.
pub(crate) fn out_of_bounds(end: u32) -> Option<f64> {
    let end = f32::from_bits(end);
    let within = end.abs() <= ROAMING_MAX;
    (!within).then(|| f64::from(end))
}

impl Seed {
    fn words(self) -> Words {
        [self.start.to_bits(), self.c.to_bits()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_stay_bounded_however_long_they_are() {
        assert!(creeping_seeds().into_iter().step_by(37).all(|seed| chain(seed, 4096).abs() <= 0.5));
        let ends = roaming_seeds().into_iter().step_by(37).map(|seed| chain(seed, 4096));
        assert!(ends.clone().all(|end| end.abs() <= ROAMING_MAX));
        let mut different: Vec<u32> = ends.map(f32::to_bits).collect();
        let all = different.len();
        different.sort_unstable();
        different.dedup();
        assert!(different.len() * 10 > all * 9, "{} of {all} ends differ", different.len());
    }

    #[test]
    fn a_missing_link_shows_and_unfused_arithmetic_does_not() {
        let (mut shortest, mut unfused_most) = (f32::INFINITY, 0.0f32);
        for seed in creeping_seeds().into_iter() {
            let whole = chain(seed, 128);
            shortest = shortest.min((whole - chain(seed, 127)).abs());
            let unfused = (0..128).fold(seed.start, |x, _| x * x + seed.c);
            unfused_most = unfused_most.max((whole - unfused).abs());
        }
        assert!(shortest > 4.0 * TOLERANCE, "{shortest}");
        assert!(unfused_most < TOLERANCE, "{unfused_most}");
    }
}
