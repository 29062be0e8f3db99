//! Twin of `shaders/copy_bandwidth.wgsl`. Whole words: results are equal or wrong.

/// Word `index` of the copy.
pub(crate) fn copied_word(index: u32, seed: u32, key: u32) -> u32 {
    let counter = (u64::from(index) + u64::from(seed)) % (1 << 32);
    super::random(u32::try_from(counter).expect("a remainder of 2^32")) ^ key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_give_different_copies_of_the_same_word() {
        assert_ne!(copied_word(7, 1, 2), copied_word(7, 1, 3));
        assert_eq!(copied_word(7, 1, 2) ^ 2, copied_word(7, 1, 3) ^ 3);
        assert_eq!(copied_word(7, u32::MAX, 0), copied_word(6, 0, 0));
    }
}
