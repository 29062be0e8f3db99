//! Right answers pass, every wrong one is told by name.

use super::*;
use crate::proof::product::Product;

const VECTOR: [u8; 32] = [77; 32];
const OPENED: [u32; 4] = [0, 3, 200, 255];

struct Case {
    seed: Seed,
    root: Digest,
    product: Vec<u64>,
    rows: Vec<OpenedRow>,
}

impl Case {
    fn honest() -> Self {
        let seed = Seed::from_bytes([4; 32]);
        let product = Product::compute(&seed, Size::MIN, 2);
        let open =
            |row: &u32| OpenedRow { elements: product.row(*row as usize).to_vec(), path: product.path(*row as usize) };
        let rows = OPENED.iter().map(open).collect();
        Self { seed, root: product.root(), product: product.times(&VECTOR), rows }
    }

    fn checked(&self) -> Result<(), Wrong> {
        let question =
            Question { seed: &self.seed, size: Size::MIN, root: &self.root, vector_seed: &VECTOR, opened: &OPENED };
        check(&question, &Reply { product: &self.product, rows: &self.rows })
    }
}

#[test]
fn a_right_answer_passes() {
    assert_eq!(Case::honest().checked(), Ok(()));
}

#[test]
fn one_wrong_number_anywhere_is_found() {
    for row in [0, 1, 128, 254] {
        let mut case = Case::honest();
        case.product[row] = (case.product[row] + 1) % field::PRIME;
        let row = u32::try_from(row).unwrap();
        let expected = if OPENED.contains(&row) { Wrong::RowDiffers { row } } else { Wrong::ProductDiffers { row } };
        assert_eq!(case.checked(), Err(expected));
    }
}

#[test]
fn a_row_made_up_after_the_vector_was_known_is_found_by_its_commitment() {
    let mut case = Case::honest();
    case.rows[2].elements[9] += 1;
    assert_eq!(case.checked(), Err(Wrong::NotCommitted { row: 200 }));
}

#[test]
fn a_garbage_row_that_was_committed_to_is_found_although_the_product_was_computed_rightly_afterwards() {
    let mut case = Case::honest();
    let product = Product::compute(&case.seed, Size::MIN, 1);
    let mut rows: Vec<Vec<i32>> = (0..256).map(|row| product.row(row).to_vec()).collect();
    rows[3][100] -= 1;
    let tree = merkle::Tree::new(rows.iter().map(|row| merkle::row_digest(row)).collect());
    case.root = tree.root();
    case.rows = OPENED
        .iter()
        .map(|row| OpenedRow { elements: rows[*row as usize].clone(), path: tree.path(*row as usize) })
        .collect();
    assert_eq!(case.checked(), Err(Wrong::RowDiffers { row: 3 }));
}

#[test]
fn an_answer_to_another_seed_is_wrong() {
    let mut case = Case::honest();
    case.seed = Seed::from_bytes([5; 32]);
    assert_eq!(case.checked(), Err(Wrong::ProductDiffers { row: 0 }));
}

#[test]
fn malformed_answers_are_told_by_their_sizes() {
    let with = |change: &dyn Fn(&mut Case)| {
        let mut case = Case::honest();
        change(&mut case);
        case.checked().unwrap_err()
    };
    assert_eq!(with(&|case| case.product.clear()), Wrong::Length { found: 0, expected: 256 });
    assert_eq!(with(&|case| case.product.push(0)), Wrong::Length { found: 257, expected: 256 });
    assert_eq!(with(&|case| case.product[8] = field::PRIME), Wrong::OutOfRange { row: 8 });
    assert_eq!(with(&|case| case.product[8] = u64::MAX), Wrong::OutOfRange { row: 8 });
    assert_eq!(with(&|case| case.rows.truncate(3)), Wrong::Rows { found: 3, expected: 4 });
    assert_eq!(with(&|case| case.rows.clear()), Wrong::Rows { found: 0, expected: 4 });
    let short = Wrong::RowLength { row: 3, found: 255, expected: 256 };
    assert_eq!(with(&|case| case.rows[1].elements.truncate(255)), short);
    assert_eq!(with(&|case| case.rows[0].path.clear()), Wrong::NotCommitted { row: 0 });
    assert_eq!(with(&|case| case.rows.swap(0, 1)), Wrong::NotCommitted { row: 0 });
}
