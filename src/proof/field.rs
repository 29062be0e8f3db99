//! The prime field of 2⁶¹ − 1, and vectors of it in a form that processors multiply by bytes quickly.
//!
//! An element is a `u64` below [`PRIME`]. A false product passes a check with a random vector with probability 1 / [`PRIME`]
//! for every false row, below 2⁻⁶⁰ (Freivalds).

use sha2::{Digest as _, Sha256};

use super::lanes;

/// The prime.
pub const PRIME: u64 = (1 << 61) - 1;

const VECTOR_TAG: &[u8] = b"fizz challenge vector v1\0";
/// Elements of one SHA-256.
const PER_HASH: usize = 4;

/// The element that an integer stands for.
#[must_use]
pub fn reduce(number: i128) -> u64 {
    // Non-negative and below 2⁶¹ after this.
    u64::try_from(number.rem_euclid(i128::from(PRIME))).unwrap_or(0)
}

/// The random vector of a seed: 61 bits of SHA-256(tag ‖ seed ‖ counter) for each element.
#[must_use]
pub fn vector(seed: &[u8; 32], len: usize) -> Vec<u64> {
    let mut elements = Vec::with_capacity(len.next_multiple_of(PER_HASH));
    let mut counter = 0u32;
    while elements.len() < len {
        let mut hash = Sha256::new();
        hash.update(VECTOR_TAG);
        hash.update(seed);
        hash.update(counter.to_le_bytes());
        let bytes: [u8; 32] = hash.finalize().into();
        let (words, _) = bytes.as_chunks::<8>();
        // The one value of 61 bits that is no element stands for zero.
        elements.extend(words.iter().map(|word| (u64::from_le_bytes(*word) & PRIME) % PRIME));
        counter += 1;
    }
    elements.truncate(len);
    elements
}

/// The sum of products of a row of C with a vector.
#[must_use]
pub fn dot(row: &[i32], vector: &[u64]) -> u64 {
    // Each product is below 2³⁰ · 2⁶¹, and there are at most 2¹⁵: far from the end of 128 bits.
    reduce(row.iter().zip(vector).map(|(c, r)| i128::from(*c) * i128::from(*r)).sum())
}

/// A vector as four vectors of 16-bit digits: element = Σ digit\[l\]·2¹⁶ˡ, each digit in \[−2¹⁵, 2¹⁵).
#[derive(Debug, Clone)]
pub struct Digits([Vec<i16>; 4]);

impl Digits {
    /// The digits of a vector.
    #[must_use]
    pub fn of(vector: &[u64]) -> Self {
        let mut digits: [Vec<i16>; 4] = std::array::from_fn(|_| Vec::with_capacity(vector.len()));
        for element in vector {
            // Between −2⁶⁰ and 2⁶⁰, so that four signed digits are enough.
            let mut rest = element.cast_signed();
            if *element > PRIME / 2 {
                rest -= PRIME.cast_signed();
            }
            for of_this_place in &mut digits {
                #[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are what is wanted")]
                let digit = rest as i16;
                of_this_place.push(digit);
                rest = (rest - i64::from(digit)) >> 16;
            }
        }
        Self(digits)
    }

    /// The sum of products of elements of 8-bit size with the vector.
    #[must_use]
    pub fn dot(&self, bytes: &[i16]) -> u64 {
        let sums = lanes::dot_digits(bytes, &self.0);
        reduce(sums.iter().rev().fold(0, |total, sum| (total << 16) + i128::from(*sum)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_vector_is_reproducible_and_different_for_every_seed() {
        assert_eq!(vector(&[1; 32], 300), vector(&[1; 32], 300));
        assert_eq!(vector(&[1; 32], 300)[..100], vector(&[1; 32], 100));
        assert_ne!(vector(&[1; 32], 4), vector(&[2; 32], 4));
        assert!(vector(&[3; 32], 1000).iter().all(|element| *element < PRIME));
    }

    #[test]
    fn the_ends_of_the_range_survive_their_digits() {
        let elements = [0, 1, PRIME - 1, PRIME / 2, PRIME / 2 + 1, 0x7fff, 0x8000, 0xffff_ffff];
        for element in elements {
            let mut vector = vec![0; 32];
            vector[17] = element;
            for byte in [-128, -1, 0, 1, 127] {
                let mut bytes = vec![0; 32];
                bytes[17] = byte;
                let expected = reduce(i128::from(byte) * i128::from(element));
                assert_eq!(Digits::of(&vector).dot(&bytes), expected, "{byte} × {element}");
            }
        }
    }

    #[test]
    fn the_largest_sums_do_not_overflow() {
        let (len, worst) = (32_768, 0x1800_8000_8000_8000 % PRIME);
        let sum = Digits::of(&vec![worst; len]).dot(&vec![-128; len]);
        assert_eq!(sum, reduce(-128 * len as i128 * i128::from(worst)));
    }

    proptest! {
        #[test]
        fn digits_multiply_as_the_elements_do(seed in any::<[u8; 32]>(), bytes in prop::collection::vec(-128i16..128, 512)) {
            let vector = vector(&seed, 512);
            let expected: i128 = bytes.iter().zip(&vector).map(|(b, r)| i128::from(*b) * i128::from(*r)).sum();
            prop_assert_eq!(Digits::of(&vector).dot(&bytes), reduce(expected));
        }
    }
}
