//! The matrices of a challenge: unstructured, counter-based, the same on every processor.
//!
//! Invariants
//! - Seed = SHA-256(tag ‖ coordinator's nonce ‖ node's public key ‖ challenge id ‖ part): nobody can compute an element before
//!   the nonce is told, two nodes never have the same matrices, nor two parts of one challenge.
//! - Every row has a key of its own, 64 bits of SHA-256(seed ‖ matrix ‖ row). An element depends on its row's key and its column,
//!   never on their sum alone: matrices whose elements depend only on i+j (Hankel) or i−j (Toeplitz) can be multiplied in
//!   O(n² log n), and a checker would not notice.
//!
//! Within a row, word q is a keyed form of the integer hash `lowbias32` (Chris Wellons, hash-prospector: shifts 16, 15, 16,
//! multipliers 0x7feb352d and 0x846ca68b), with the second half of the key added between the two multiplications. It needs
//! 32-bit integers only, so that a WGSL kernel makes the same elements for a few instructions each.
//!
//! Layout: a word holds four elements, lowest byte first. Of A, word (i, q) holds A[i][4q..4q+4]; of B, word (q, j) holds
//! B[4q..4q+4][j], so that one dot product of bytes takes a word of each.

use sha2::{Digest as _, Sha256};

use super::lanes;
use crate::wire::{ChallengeId, Nonce, PublicKey};

const SEED_TAG: &[u8] = b"fizz challenge seed v1\0";
/// Step between the counters of neighbouring words: 2³² divided by the golden ratio.
pub(super) const STEP: u32 = 0x9e37_79b9;
pub(super) const MULTIPLIER_1: u32 = 0x7feb_352d;
pub(super) const MULTIPLIER_2: u32 = 0x846c_a68b;

/// What the matrices of one part of one challenge come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed([u8; 32]);

/// Which matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    /// The left one; a key for each row.
    A,
    /// The right one; a key for each four rows.
    B,
}

/// The key of a row of A, or of four rows of B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowKey {
    /// Added to the counter.
    pub first: u32,
    /// Added between the multiplications.
    pub second: u32,
}

impl Seed {
    /// The seed of part `part` of a challenge.
    #[must_use]
    pub fn derive(nonce: &Nonce, node: &PublicKey, challenge: ChallengeId, part: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(SEED_TAG);
        hash.update(nonce.as_bytes());
        hash.update(node.as_bytes());
        hash.update(challenge.as_uuid().as_bytes());
        hash.update(part.to_le_bytes());
        Self(hash.finalize().into())
    }

    /// A seed from its bytes, for tests and benchmarks.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key of row `index` of A, or of rows 4·`index`..4·`index`+4 of B.
    #[must_use]
    pub fn key(&self, matrix: Matrix, index: u32) -> RowKey {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(match matrix {
            Matrix::A => [b'A'],
            Matrix::B => [b'B'],
        });
        hash.update(index.to_le_bytes());
        let bytes: [u8; 32] = hash.finalize().into();
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        RowKey { first: word(0), second: word(4) }
    }
}

impl RowKey {
    /// Word `counter` of the row.
    #[must_use]
    pub const fn word(self, counter: u32) -> u32 {
        let mut x = counter.wrapping_mul(STEP).wrapping_add(self.first);
        x ^= x >> 16;
        x = x.wrapping_mul(MULTIPLIER_1);
        x ^= x >> 15;
        x = x.wrapping_add(self.second);
        x = x.wrapping_mul(MULTIPLIER_2);
        x ^ (x >> 16)
    }

    /// The first words of the row.
    pub fn words(self, out: &mut [u32]) {
        lanes::words(self, out);
    }
}

#[cfg(test)]
mod tests;
