//! A commitment to the rows of a matrix: SHA-256 of segments, of rows, and a binary tree over them.
//!
//! Invariants
//! - Segments, rows and inner nodes cannot stand for one another: a segment is hashed bare (always 1024 bytes), a row begins with
//!   the byte 0, an inner node with the byte 1.
//! - The number of rows is known to whoever checks; rows up to the next power of two count as 32 zero bytes.

use sha2::{Digest as _, Sha256};

use super::{SEGMENT, Size};
use crate::wire::Digest;

const ROW_TAG: [u8; 1] = [0];
const NODE_TAG: [u8; 1] = [1];
const NOTHING: Digest = Digest::from_bytes([0; 32]);

/// The digest of a row from its elements.
#[must_use]
pub fn row_digest(row: &[i32]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(ROW_TAG);
    for segment in row.chunks(SEGMENT) {
        hash.update(segment_digest(segment));
    }
    Digest::from_bytes(hash.finalize().into())
}

/// The digest of a row from the digests of its segments, one after the other.
#[must_use]
pub fn row_digest_from_segments(segments: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(ROW_TAG);
    hash.update(segments);
    Digest::from_bytes(hash.finalize().into())
}

/// SHA-256 of a segment's elements, each as four bytes, the highest first.
#[must_use]
pub fn segment_digest(segment: &[i32]) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(segment.len() * 4);
    segment.iter().for_each(|element| bytes.extend_from_slice(&element.to_be_bytes()));
    Sha256::digest(&bytes).into()
}

/// The tree over the digests of all rows.
#[derive(Debug, Clone)]
pub struct Tree {
    /// From the rows up to the root.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// The tree over these rows; at least one.
    #[must_use]
    pub fn new(mut rows: Vec<Digest>) -> Self {
        rows.resize(rows.len().max(1).next_power_of_two(), NOTHING);
        let mut levels = vec![rows];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let above = below.as_chunks::<2>().0.iter().map(|[left, right]| parent(left, right)).collect();
            levels.push(above);
        }
        Self { levels }
    }

    /// What is committed to.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or(NOTHING)
    }

    /// The way from a row to the root: the digest beside it on every level.
    #[must_use]
    pub fn path(&self, row: usize) -> Vec<Digest> {
        let below_root = self.levels.len().saturating_sub(1);
        let beside = |(level, nodes): (usize, &Vec<Digest>)| nodes.get((row >> level) ^ 1).copied().unwrap_or(NOTHING);
        self.levels.iter().take(below_root).enumerate().map(beside).collect()
    }
}

/// Digests on a way to the root.
#[must_use]
pub const fn path_len(size: Size) -> usize {
    size.rows().next_power_of_two().trailing_zeros() as usize
}

/// Whether a row with this digest is at this place under the root.
#[must_use]
pub fn leads_to(root: &Digest, size: Size, row: u32, digest: Digest, path: &[Digest]) -> bool {
    if row >= size.get() || path.len() != path_len(size) {
        return false;
    }
    let climb = |node: Digest, (level, beside): (usize, &Digest)| {
        if (row >> level) & 1 == 0 { parent(&node, beside) } else { parent(beside, &node) }
    };
    path.iter().enumerate().fold(digest, climb) == *root
}

fn parent(left: &Digest, right: &Digest) -> Digest {
    let mut hash = Sha256::new();
    hash.update(NODE_TAG);
    hash.update(left.as_bytes());
    hash.update(right.as_bytes());
    Digest::from_bytes(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize) -> Vec<Digest> {
        (0..count).map(|row| row_digest(&[i32::try_from(row).unwrap(); SEGMENT])).collect()
    }

    #[test]
    fn every_row_of_every_size_leads_to_its_root_and_to_no_other_place() {
        for n in [256, 768, 1024] {
            let size = Size::try_from(n).unwrap();
            let rows = rows(size.rows());
            let tree = Tree::new(rows.clone());
            for (row, digest) in (0..n).zip(rows) {
                let path = tree.path(row as usize);
                assert!(leads_to(&tree.root(), size, row, digest, &path));
                assert!(!leads_to(&tree.root(), size, row ^ 1, digest, &path));
            }
        }
    }

    #[test]
    fn paths_of_wrong_lengths_and_rows_that_are_not_there_lead_nowhere() {
        let size = Size::try_from(256).unwrap();
        let rows = rows(256);
        let tree = Tree::new(rows.clone());
        let path = tree.path(5);
        assert!(!leads_to(&tree.root(), size, 5, rows[5], &path[1..]));
        assert!(!leads_to(&tree.root(), size, 5, rows[5], &[path.clone(), vec![NOTHING]].concat()));
        assert!(!leads_to(&tree.root(), size, 5, rows[5], &[]));
        assert!(!leads_to(&tree.root(), size, 5 + 256, rows[5], &path));
        assert!(!leads_to(&tree.root(), size, 5, rows[6], &path));
    }

    #[test]
    fn an_inner_node_cannot_pass_for_a_row() {
        let size = Size::try_from(512).unwrap();
        let tree = Tree::new(rows(512));
        let inner = tree.levels[1][3];
        assert!(!leads_to(&tree.root(), size, 3, inner, &tree.path(6)[1..]));
    }

    #[test]
    fn a_row_is_hashed_from_its_segments_too() {
        let row: Vec<i32> = (-256..256).collect();
        let segments = [segment_digest(&row[..256]), segment_digest(&row[256..])].concat();
        assert_eq!(row_digest(&row), row_digest_from_segments(&segments));
        let bytes: Vec<u8> = row[..256].iter().flat_map(|element| element.to_be_bytes()).collect();
        assert_eq!(segment_digest(&row[..256]), <[u8; 32]>::from(Sha256::digest(&bytes)));
    }
}
