//! Twin of `shaders/read_bandwidth.wgsl`. Whole words: results are equal or wrong.
//!
//! Memory is filled as the copy's twin says ([`super::copy_bandwidth`]).

use super::copy_bandwidth::copied_word;

/// What invocation `number` stores, which reads `vectors` vectors of four words: those of its workgroup that lie 256 apart.
pub(crate) fn sum(number: u32, vectors: u32, seed: u32, key: u32) -> u32 {
    let (workgroup, local) = (number / 256, number % 256);
    let mut sum = key;
    for step in 0..vectors {
        let vector = workgroup * vectors * 256 + step * 256 + local;
        for part in 0..4 {
            sum ^= copied_word(4 * vector + part, seed, 0);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_invocations_of_a_workgroup_read_every_word_once() {
        let together = (256..512).fold(0, |sum_of_all, number| sum_of_all ^ sum(number, 4, 9, 0));
        let words = (4096..8192).fold(0, |sum_of_all, word| sum_of_all ^ copied_word(word, 9, 0));
        assert_eq!(together, words);
        assert_eq!(sum(0, 4, 9, 1) ^ 1, sum(0, 4, 9, 0));
    }
}
