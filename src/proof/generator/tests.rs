//! Fixed values, and that there is no structure to compute with.

use super::*;

fn element(seed: &Seed, row: u32, column: u32) -> i64 {
    let word = seed.key(Matrix::A, row).word(column / 4);
    i64::from(word.to_le_bytes()[(column % 4) as usize].cast_signed())
}

fn element_of_b(seed: &Seed, row: u32, column: u32) -> i64 {
    let word = seed.key(Matrix::B, row / 4).word(column);
    i64::from(word.to_le_bytes()[(row % 4) as usize].cast_signed())
}

const PRIME: i64 = 2_147_483_647;

fn power(base: i64, exponent: i64) -> i64 {
    let (mut result, mut base, mut left) = (1, base, exponent);
    while left > 0 {
        if left & 1 == 1 {
            result = result * base % PRIME;
        }
        base = base * base % PRIME;
        left >>= 1;
    }
    result
}

/// Rank over the field of 2³¹ − 1; at most the rank over the rationals.
fn rank(mut rows: Vec<Vec<i64>>) -> usize {
    for row in &mut rows {
        row.iter_mut().for_each(|x| *x = x.rem_euclid(PRIME));
    }
    let (mut rank, width) = (0, rows[0].len());
    for column in 0..width {
        let Some(pivot) = (rank..rows.len()).find(|row| rows[*row][column] != 0) else { continue };
        rows.swap(rank, pivot);
        let inverse = power(rows[rank][column], PRIME - 2);
        let top = rows[rank].clone();
        for row in rows.iter_mut().skip(rank + 1) {
            let factor = row[column] * inverse % PRIME;
            row.iter_mut().zip(&top).skip(column).for_each(|(x, t)| *x = (*x - factor * t).rem_euclid(PRIME));
        }
        rank += 1;
    }
    rank
}

#[test]
fn test_vectors_that_other_implementations_can_be_held_against() {
    let key = RowKey { first: 0, second: 0 };
    // With no key and no step this is lowbias32: a fixed point at zero.
    assert_eq!(key.word(0), 0);
    let nonce = Nonce::from_bytes([1; 16]);
    let node = PublicKey::from_bytes([2; 32]);
    let challenge = ChallengeId::from(uuid::Uuid::from_bytes([3; 16]));
    let seed = Seed::derive(&nonce, &node, challenge, 0);
    let words = [0, 1, 2, 4095].map(|counter| seed.key(Matrix::A, 7).word(counter));
    assert_eq!(hex::encode(seed.as_bytes()), "fd6504bce67a25ed825406d47c449886a9308b71c9df06f1c7e20ee93591208f");
    assert_eq!(seed.key(Matrix::A, 7), RowKey { first: 3_506_776_271, second: 603_375_411 });
    assert_eq!(seed.key(Matrix::B, 7), RowKey { first: 2_898_349_885, second: 1_846_625_242 });
    assert_eq!(words, [778_663_093, 1_428_553_140, 136_151_074, 3_292_822_081]);
}

#[test]
fn another_nonce_node_challenge_or_part_is_another_seed() {
    let seed = |nonce, node, challenge, part| {
        let challenge = ChallengeId::from(uuid::Uuid::from_bytes([challenge; 16]));
        Seed::derive(&Nonce::from_bytes([nonce; 16]), &PublicKey::from_bytes([node; 32]), challenge, part)
    };
    let first = seed(1, 2, 3, 0);
    for other in [seed(9, 2, 3, 0), seed(1, 9, 3, 0), seed(1, 2, 9, 0), seed(1, 2, 3, 1)] {
        assert_ne!(first, other);
        assert_ne!(first.key(Matrix::A, 0), other.key(Matrix::A, 0));
    }
    assert_ne!(first.key(Matrix::A, 0), first.key(Matrix::B, 0));
}

#[test]
fn matrices_are_neither_of_low_rank_nor_made_of_shifted_rows() {
    let seed = Seed::from_bytes([42; 32]);
    type Element = fn(&Seed, u32, u32) -> i64;
    for matrix in [element as Element, element_of_b] {
        let n = 96;
        let at = |row: u32, column: u32| matrix(&seed, row, column);
        let block = |f: &dyn Fn(u32, u32) -> i64| -> Vec<Vec<i64>> {
            (1..=n).map(|row| (1..=n).map(|column| f(row, column)).collect()).collect()
        };
        assert_eq!(rank(block(&at)), n as usize, "the matrix itself");
        // A Toeplitz matrix minus itself shifted down the diagonal is zero, one like it has a low rank; likewise Hankel.
        assert_eq!(rank(block(&|row, column| at(row, column) - at(row - 1, column - 1))), n as usize, "Toeplitz-like");
        assert_eq!(rank(block(&|row, column| at(row, column) - at(row - 1, column + 1))), n as usize, "Hankel-like");
        assert_eq!(rank(block(&|row, column| at(row, column) - at(row, column - 1))), n as usize, "constant rows");
        let same = (0..n).flat_map(|row| (0..n).map(move |column| (row, column)));
        let same = same.filter(|(row, column)| at(*row, *column + 1) == at(*row + 1, *column)).count();
        // One in 256 by chance: 36 of 9216.
        assert!((10..80).contains(&same), "{same} of 9216 elements equal their neighbour on the antidiagonal");
    }
}

#[test]
fn every_value_of_a_byte_comes_about_equally_often_in_rows_and_in_columns() {
    let seed = Seed::from_bytes([7; 32]);
    let lines: [Box<dyn Fn(u32) -> i64>; 2] = [Box::new(|k| element(&seed, 5, k)), Box::new(|k| element(&seed, k, 5))];
    for line in lines {
        let mut counts = [0u32; 256];
        (0..65_536).for_each(|k| counts[usize::try_from(line(k) + 128).unwrap()] += 1);
        let squares: f64 = counts.iter().map(|count| (f64::from(*count) - 256.0).powi(2) / 256.0).sum();
        // χ² with 255 degrees of freedom: mean 255, standard deviation 22.6.
        assert!((150.0..370.0).contains(&squares), "{squares}");
    }
}
