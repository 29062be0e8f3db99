//! The mathematics of a challenge, for the node that answers it and the coordinator that checks it.
//!
//! A challenge is one product of two n × n matrices of 8-bit integers, C = A·B, exact in 32 bits. Both matrices come from a seed
//! that nobody knew before. The node commits to C by a Merkle root over its rows ([`merkle`]), is then told a random vector r
//! and the numbers of some rows, and answers with C·r and those rows. The checker computes A·(B·r) ([`freivalds`]), which takes
//! n² steps instead of n³.
//!
//! Invariants
//! - No tolerance: every number here is an integer, and one wrong bit in C·r is a wrong answer.
//! - Checking takes memory in proportion to n: A and B are generated row by row and forgotten.
//! - Nothing here reads a clock, a file or the network.
//!
//! The checker does not trust the answer's sizes; they are compared before anything is computed.

pub mod field;
pub mod freivalds;
pub mod generator;
mod lanes;
pub mod merkle;
pub mod product;

use thiserror::Error;

/// Segment of a row that is hashed by itself, in elements. Graphics cards hash many short pieces well and few long ones badly.
pub const SEGMENT: usize = 256;

/// Rows and columns of the matrices: a multiple of 256, from 256 to 32768. Sums of that many products of two 8-bit integers
/// stay below 2³⁰.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u32);

/// The number is no size of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a challenge of size {0} cannot be; sizes are multiples of 256 from 256 to 32768")]
pub struct BadSize(pub u32);

impl Size {
    /// The smallest.
    pub const MIN: Self = Self(256);
    /// The largest.
    pub const MAX: Self = Self(32_768);

    /// As a number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// As a length.
    #[must_use]
    pub const fn rows(self) -> usize {
        self.0 as usize
    }

    /// Multiplications and additions of the product, 2·n³.
    #[must_use]
    pub const fn operations(self) -> u64 {
        2 * (self.0 as u64) * (self.0 as u64) * (self.0 as u64)
    }
}

impl TryFrom<u32> for Size {
    type Error = BadSize;

    fn try_from(n: u32) -> Result<Self, BadSize> {
        if (Self::MIN.0..=Self::MAX.0).contains(&n) && n.is_multiple_of(256) { Ok(Self(n)) } else { Err(BadSize(n)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for bad in [0, 1, 255, 257, 32_769, 1 << 31, u32::MAX] {
            assert_eq!(Size::try_from(bad), Err(BadSize(bad)));
        }
        for good in [256, 512, 16_384, 32_768] {
            assert_eq!(Size::try_from(good).unwrap().get(), good);
        }
        assert_eq!(Size::MAX.operations(), 1 << 46);
    }
}
