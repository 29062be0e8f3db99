//! Checking a product that somebody else computed, without computing it (Freivalds 1977).
//!
//! C·r is compared with A·(B·r) for a random vector r over the field of 2⁶¹ − 1, and rows of C with what was committed to and
//! with C·r. What that gives:
//! - A C·r that is not A·B·r is always found.
//! - A row that was committed to and is not the row of A·B is found, when it is opened, but for a chance of 2⁻⁶⁰: it would have
//!   to agree with the true row in a direction that was chosen after it.
//! - So whoever left out a share f of the rows passes with a chance of (1 − f)^opened: once r is known, C·r itself can be
//!   computed in n² steps by anybody, and only the opened rows show that the work was done before.

use thiserror::Error;

use super::field::{self, Digits};
use super::generator::{Matrix, Seed};
use super::{Size, lanes, merkle};
use crate::wire::Digest;

/// What was asked, as the checker knows it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Where the matrices come from.
    pub seed: &'a Seed,
    /// Their size.
    pub size: Size,
    /// What the answerer committed to.
    pub root: &'a Digest,
    /// Where the vector comes from; chosen after the root was known.
    pub vector_seed: &'a [u8; 32],
    /// The rows to open; chosen after the root was known.
    pub opened: &'a [u32],
}

/// An answer, of any size and content.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// C·r.
    pub product: &'a [u64],
    /// The opened rows in the order they were asked for.
    pub rows: &'a [OpenedRow],
}

/// A row of C and its way to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedRow {
    /// Its elements.
    pub elements: Vec<i32>,
    /// The digest beside it on every level.
    pub path: Vec<Digest>,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Wrong {
    /// C·r has another length.
    #[error("the product has {found} numbers and should have {expected}")]
    Length {
        /// As answered.
        found: usize,
        /// As asked.
        expected: usize,
    },
    /// A number of C·r is not in the field.
    #[error("number {row} of the product is out of range")]
    OutOfRange {
        /// Which.
        row: usize,
    },
    /// Other rows than asked for.
    #[error("{found} rows were opened and {expected} were asked for")]
    Rows {
        /// As answered.
        found: usize,
        /// As asked.
        expected: usize,
    },
    /// A row of another length.
    #[error("row {row} has {found} elements and should have {expected}")]
    RowLength {
        /// Which.
        row: u32,
        /// As answered.
        found: usize,
        /// As asked.
        expected: usize,
    },
    /// The row is not what was committed to.
    #[error("row {row} is not the one that was committed to")]
    NotCommitted {
        /// Which.
        row: u32,
    },
    /// The row does not give its number of C·r.
    #[error("row {row} does not agree with the product")]
    RowDiffers {
        /// Which.
        row: u32,
    },
    /// C·r is not A·B·r.
    #[error("row {row} of the product is wrong")]
    ProductDiffers {
        /// Which.
        row: u32,
    },
}

/// Whether the answer is right. Takes memory in proportion to n, besides the answer itself.
///
/// # Errors
/// The first thing that is wrong; sizes come before sums, cheap sums before dear ones.
pub fn check(question: &Question<'_>, reply: &Reply<'_>) -> Result<(), Wrong> {
    check_sizes(question, reply)?;
    let vector = field::vector(question.vector_seed, question.size.rows());
    for (row, opened) in question.opened.iter().copied().zip(reply.rows) {
        let digest = merkle::row_digest(&opened.elements);
        if !merkle::leads_to(question.root, question.size, row, digest, &opened.path) {
            return Err(Wrong::NotCommitted { row });
        }
        if reply.product.get(row as usize) != Some(&field::dot(&opened.elements, &vector)) {
            return Err(Wrong::RowDiffers { row });
        }
    }
    let mut right = Products::new(question.seed, question.size, &vector);
    for (row, found) in (0..question.size.get()).zip(reply.product) {
        if right.of_row(row) != *found {
            return Err(Wrong::ProductDiffers { row });
        }
    }
    Ok(())
}

/// A·B·r: what a right answer says. For benchmarks of the check.
#[must_use]
pub fn expected(question: &Question<'_>) -> Vec<u64> {
    let vector = field::vector(question.vector_seed, question.size.rows());
    let mut right = Products::new(question.seed, question.size, &vector);
    (0..question.size.get()).map(|row| right.of_row(row)).collect()
}

/// Rows of A, one at a time, times B·r.
struct Products<'a> {
    seed: &'a Seed,
    inner: Digits,
    words: Vec<u32>,
    elements: Vec<i16>,
}

impl<'a> Products<'a> {
    fn new(seed: &'a Seed, size: Size, vector: &[u64]) -> Self {
        let inner = Digits::of(&times_b(seed, size, &Digits::of(vector)));
        Self { seed, inner, words: vec![0; size.rows() / 4], elements: vec![0; size.rows()] }
    }

    fn of_row(&mut self, row: u32) -> u64 {
        self.seed.key(Matrix::A, row).words(&mut self.words);
        lanes::widen(&self.words, &mut self.elements);
        self.inner.dot(&self.elements)
    }
}

fn check_sizes(question: &Question<'_>, reply: &Reply<'_>) -> Result<(), Wrong> {
    let n = question.size.rows();
    if reply.product.len() != n {
        return Err(Wrong::Length { found: reply.product.len(), expected: n });
    }
    if let Some(row) = reply.product.iter().position(|number| *number >= field::PRIME) {
        return Err(Wrong::OutOfRange { row });
    }
    if reply.rows.len() != question.opened.len() {
        return Err(Wrong::Rows { found: reply.rows.len(), expected: question.opened.len() });
    }
    let odd = question.opened.iter().zip(reply.rows).find(|(_, opened)| opened.elements.len() != n);
    match odd {
        Some((row, opened)) => Err(Wrong::RowLength { row: *row, found: opened.elements.len(), expected: n }),
        None => Ok(()),
    }
}

/// B·r, four rows of B at a time.
fn times_b(seed: &Seed, size: Size, vector: &Digits) -> Vec<u64> {
    let mut words = vec![0; size.rows()];
    let mut rows: [Vec<i16>; 4] = std::array::from_fn(|_| vec![0; size.rows()]);
    let mut product = Vec::with_capacity(size.rows());
    for group in 0..size.get() / 4 {
        seed.key(Matrix::B, group).words(&mut words);
        lanes::widen_four(&words, &mut rows);
        product.extend(rows.iter().map(|row| vector.dot(row)));
    }
    product
}

#[cfg(test)]
mod tests;
