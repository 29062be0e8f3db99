//! The product on the processor: what a node without a graphics card answers with, and the reference for kernels.
//!
//! Memory: C whole (4·n² bytes) and B as 16-bit elements (2·n² bytes).

use super::field;
use super::generator::{Matrix, Seed};
use super::merkle::{Tree, row_digest};
use super::{Size, lanes};
use crate::wire::Digest;

/// A product that was computed, ready to be opened.
#[derive(Debug)]
pub struct Product {
    size: Size,
    elements: Vec<i32>,
    tree: Tree,
}

impl Product {
    /// Computes it with so many threads.
    #[must_use]
    pub fn compute(seed: &Seed, size: Size, threads: usize) -> Self {
        let n = size.rows();
        let columns = &columns_of_b(seed, size);
        let mut elements = vec![0; n * n];
        let rows_each = n.div_ceil(threads.clamp(1, n));
        let digests = std::thread::scope(|scope| {
            let bands: Vec<_> = (0u32..)
                .step_by(rows_each)
                .zip(elements.chunks_mut(rows_each * n))
                .map(|(first, band)| scope.spawn(move || rows(seed, size, columns, first, band)))
                .collect();
            // A thread ends early only when it panics, and then the digests are too few to match any root.
            bands.into_iter().flat_map(|band| band.join().unwrap_or_default()).collect()
        });
        Self { size, elements, tree: Tree::new(digests) }
    }

    /// What is committed to.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.tree.root()
    }

    /// C·r for the vector of this seed.
    #[must_use]
    pub fn times(&self, vector_seed: &[u8; 32]) -> Vec<u64> {
        let vector = field::vector(vector_seed, self.size.rows());
        self.elements.chunks(self.size.rows()).map(|row| field::dot(row, &vector)).collect()
    }

    /// A row; empty when there is none of this number.
    #[must_use]
    pub fn row(&self, row: usize) -> &[i32] {
        self.elements.chunks(self.size.rows()).nth(row).unwrap_or_default()
    }

    /// A row's way to the root.
    #[must_use]
    pub fn path(&self, row: usize) -> Vec<Digest> {
        self.tree.path(row)
    }
}

/// B by columns, so that an element of C is a sum over two contiguous rows.
fn columns_of_b(seed: &Seed, size: Size) -> Vec<i16> {
    let n = size.rows();
    let mut columns = vec![0; n * n];
    let mut words = vec![0; n];
    for group in 0..size.get() / 4 {
        seed.key(Matrix::B, group).words(&mut words);
        let first = group as usize * 4;
        for (word, column) in words.iter().zip(columns.chunks_mut(n)) {
            for (element, byte) in column.iter_mut().skip(first).zip(word.to_le_bytes()) {
                *element = i16::from(byte.cast_signed());
            }
        }
    }
    columns
}

/// Some rows of C, from row `first` on, and their digests.
fn rows(seed: &Seed, size: Size, columns: &[i16], first: u32, out: &mut [i32]) -> Vec<Digest> {
    let n = size.rows();
    let (mut words, mut a_row) = (vec![0; n / 4], vec![0; n]);
    let mut digests = Vec::with_capacity(out.len() / n);
    for (row, c_row) in (first..).zip(out.chunks_mut(n)) {
        seed.key(Matrix::A, row).words(&mut words);
        lanes::widen(&words, &mut a_row);
        for (element, column) in c_row.iter_mut().zip(columns.chunks(n)) {
            *element = lanes::dot(&a_row, column);
        }
        digests.push(row_digest(c_row));
    }
    digests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_the_sums_of_products_whatever_the_number_of_threads() {
        let (seed, size) = (Seed::from_bytes([5; 32]), Size::MIN);
        let product = Product::compute(&seed, size, 1);
        let byte = |word: u32, at: u32| i32::from(word.to_le_bytes()[at as usize].cast_signed());
        for (row, column) in [(0, 0), (3, 250), (255, 255)] {
            let sum: i32 = (0..256)
                .map(|k| {
                    let a = seed.key(Matrix::A, row).word(k / 4);
                    let b = seed.key(Matrix::B, k / 4).word(column);
                    byte(a, k % 4) * byte(b, k % 4)
                })
                .sum();
            assert_eq!(product.row(row as usize)[column as usize], sum);
        }
        for threads in [2, 3, 1000] {
            assert_eq!(Product::compute(&seed, size, threads).root(), product.root());
        }
        assert!(product.row(256).is_empty());
    }
}
