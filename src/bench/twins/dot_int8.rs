//! Twin of `shaders/dot_int8.wgsl`. Whole words: results are equal or wrong.

use super::{SEEDS, Words};

/// Seeds: any words.
pub(crate) fn words() -> Vec<Words> {
    let pairs = (0u32..).step_by(2).map(|counter| [super::random(counter), super::random(counter + 1)]);
    pairs.take(SEEDS).collect()
}

/// Where a chain is after so many links.
fn chain(seed: Words, links: u32) -> u32 {
    (0..links).fold(seed[0], |x, _| {
        let squares: i32 = x.to_le_bytes().iter().map(|byte| i32::from(byte.cast_signed()).pow(2)).sum();
        seed[1].wrapping_add_signed(squares)
    })
}

/// What should have been found, where it was not.
pub(crate) fn mistake(seed: Words, links: u32, found: u32) -> Option<String> {
    let wanted = chain(seed, links);
    (found != wanted).then(|| format!("is {found:#010x}, not {wanted:#010x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_signed() {
        // Bytes 255, 128, 1 and 0 are -1, -128, 1 and 0.
        assert_eq!(chain([0xff80_0100, 5], 1), 1 + 16_384 + 1 + 5);
        assert_eq!(chain([1, u32::MAX], 1), 0);
    }

    #[test]
    fn a_missing_link_shows_in_nearly_every_chain() {
        let seen = words().into_iter().filter(|seed| chain(*seed, 127) != chain(*seed, 128)).count();
        assert!(seen * 100 > SEEDS * 95, "{seen} of {SEEDS}");
    }
}
