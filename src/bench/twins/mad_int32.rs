//! Twin of `shaders/mad_int32.wgsl`. Whole words: results are equal or wrong.

use super::{SEEDS, Words};

/// Seeds: starts that are 2 modulo 4, as the generator wants them.
pub(crate) fn words() -> Vec<Words> {
    let starts = (0u32..).map(|counter| super::random(counter) / 4 * 4 + 2);
    starts.take(SEEDS).map(|start| [start, 0]).collect()
}

/// Where a chain is after so many links: x (x + 1) modulo 2³².
fn chain(start: u32, links: u32) -> u64 {
    (0..links).fold(u64::from(start), |x, _| x * (x + 1) % (1 << 32))
}

/// What should have been found, where it was not.
pub(crate) fn mistake(seed: Words, links: u32, found: u32) -> Option<String> {
    let wanted = chain(seed[0], links);
    (u64::from(found) != wanted).then(|| format!("is {found}, not {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_repeats_only_after_a_quarter_of_all_words() {
        // In 16 bits the whole cycle can be walked: 2^14 links.
        let mut x = 2u64;
        let length = (1..).find(|_| {
            x = x * (x + 1) % (1 << 16);
            x == 2
        });
        assert_eq!(length, Some(1 << 14));
    }

    #[test]
    fn a_missing_link_always_shows() {
        for seed in words() {
            let short = u32::try_from(chain(seed[0], 127)).unwrap();
            assert!(mistake(seed, 128, short).is_some());
            assert_eq!(mistake(seed, 127, short), None);
        }
    }
}
