//! The inner loops of checking and of the processor's own product: with AVX2 where the processor has it, plainly elsewhere.
//!
//! The build is made small, not fast, so the compiler does not find the wide instructions by itself. Lengths are multiples of
//! 16; every function gives the same on every processor.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod plain;

use super::generator::RowKey;

/// The first words of a row.
pub(super) fn words(key: RowKey, out: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::words(key, out) };
    }
    plain::words(key, out);
}

/// The elements of a row of A, from its words.
pub(super) fn widen(words: &[u32], out: &mut [i16]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::widen(words, out) };
    }
    plain::widen(words, out);
}

/// The elements of four rows of B, from their words.
pub(super) fn widen_four(words: &[u32], out: &mut [Vec<i16>; 4]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::widen_four(words, out) };
    }
    plain::widen_four(words, out);
}

/// Sums of products of 8-bit elements with each of four vectors of digits.
pub(super) fn dot_digits(bytes: &[i16], digits: &[Vec<i16>; 4]) -> [i64; 4] {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::dot_digits(bytes, digits) };
    }
    plain::dot_digits(bytes, digits)
}

/// Sum of products of 8-bit elements; below 2³⁰ for the lengths there are.
pub(super) fn dot(a: &[i16], b: &[i16]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::dot(a, b) };
    }
    plain::dot(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::generator::{Matrix, Seed};

    #[test]
    fn wide_and_plain_loops_give_the_same() {
        let seed = Seed::from_bytes([9; 32]);
        let (mut wide, mut narrow) = (vec![0; 512], vec![0; 512]);
        words(seed.key(Matrix::A, 3), &mut wide);
        plain::words(seed.key(Matrix::A, 3), &mut narrow);
        assert_eq!(wide, narrow);
        let (mut row, mut plain_row) = (vec![0; 2048], vec![0; 2048]);
        widen(&wide, &mut row);
        plain::widen(&wide, &mut plain_row);
        assert_eq!(row, plain_row);
        let mut four: [Vec<i16>; 4] = std::array::from_fn(|_| vec![0; 512]);
        let mut plain_four = four.clone();
        widen_four(&wide, &mut four);
        plain::widen_four(&wide, &mut plain_four);
        assert_eq!(four, plain_four);
        assert_eq!(four[2][7], row[4 * 7 + 2]);
        let digits =
            [257i16, 258, 259, 260].map(|factor| row.iter().map(|x| x.wrapping_mul(factor)).collect::<Vec<_>>());
        assert_eq!(dot_digits(&row, &digits), plain::dot_digits(&row, &digits));
        assert_eq!(dot(&row, &plain_row), plain::dot(&row, &plain_row));
    }
}
