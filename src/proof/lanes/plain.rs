//! The loops for any processor.

use crate::proof::generator::RowKey;

pub(super) fn words(key: RowKey, out: &mut [u32]) {
    for (counter, word) in (0u32..).zip(out) {
        *word = key.word(counter);
    }
}

pub(super) fn widen(words: &[u32], out: &mut [i16]) {
    let (four, _) = out.as_chunks_mut::<4>();
    for (word, elements) in words.iter().zip(four) {
        *elements = word.to_le_bytes().map(|byte| i16::from(byte.cast_signed()));
    }
}

pub(super) fn widen_four(words: &[u32], out: &mut [Vec<i16>; 4]) {
    for (column, word) in words.iter().enumerate() {
        for (row, byte) in out.iter_mut().zip(word.to_le_bytes()) {
            if let Some(element) = row.get_mut(column) {
                *element = i16::from(byte.cast_signed());
            }
        }
    }
}

pub(super) fn dot_digits(bytes: &[i16], digits: &[Vec<i16>; 4]) -> [i64; 4] {
    digits
        .each_ref()
        .map(|places| bytes.iter().zip(places).map(|(b, d)| i64::from(i32::from(*b) * i32::from(*d))).sum())
}

pub(super) fn dot(a: &[i16], b: &[i16]) -> i32 {
    a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
}
