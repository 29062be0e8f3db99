//! The loops with 256-bit integer instructions.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_add_epi64, _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_cvtepi32_epi64,
    _mm256_extracti128_si256, _mm256_madd_epi16, _mm256_mullo_epi32, _mm256_packs_epi32, _mm256_permute4x64_epi64,
    _mm256_set1_epi32, _mm256_setr_epi32, _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srai_epi32,
    _mm256_srli_epi32, _mm256_xor_si256,
};

use crate::proof::generator::{MULTIPLIER_1, MULTIPLIER_2, RowKey, STEP};

/// Additions of two products (each below 2²²) that a 32-bit sum takes before it is emptied into a 64-bit one.
const STEPS_MAX: usize = 128;

// The next four only copy bits between arrays and registers of the same size.

fn load(elements: &[i16; 16]) -> __m256i {
    // SAFETY: both are 32 bytes in which every pattern of bits is valid.
    unsafe { std::mem::transmute(*elements) }
}

fn load_words(words: &[u32; 8]) -> __m256i {
    // SAFETY: both are 32 bytes in which every pattern of bits is valid.
    unsafe { std::mem::transmute(*words) }
}

fn elements(register: __m256i) -> [i16; 16] {
    // SAFETY: both are 32 bytes in which every pattern of bits is valid.
    unsafe { std::mem::transmute(register) }
}

fn words_of(register: __m256i) -> [u32; 8] {
    // SAFETY: both are 32 bytes in which every pattern of bits is valid.
    unsafe { std::mem::transmute(register) }
}

#[target_feature(enable = "avx2")]
pub(super) fn words(key: RowKey, out: &mut [u32]) {
    let all = |word: u32| _mm256_set1_epi32(word.cast_signed());
    let (multiplier_1, multiplier_2, second) = (all(MULTIPLIER_1), all(MULTIPLIER_2), all(key.second));
    let lanes = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), all(STEP));
    let mut counters = _mm256_add_epi32(lanes, all(key.first));
    let (eights, _) = out.as_chunks_mut::<8>();
    for eight in eights {
        let mut x = counters;
        x = _mm256_xor_si256(x, _mm256_srli_epi32::<16>(x));
        x = _mm256_mullo_epi32(x, multiplier_1);
        x = _mm256_xor_si256(x, _mm256_srli_epi32::<15>(x));
        x = _mm256_add_epi32(x, second);
        x = _mm256_mullo_epi32(x, multiplier_2);
        x = _mm256_xor_si256(x, _mm256_srli_epi32::<16>(x));
        *eight = words_of(x);
        counters = _mm256_add_epi32(counters, all(STEP.wrapping_mul(8)));
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn widen(words: &[u32], out: &mut [i16]) {
    let (eights, _) = words.as_chunks::<8>();
    let (halves, _) = out.as_chunks_mut::<16>();
    let (pairs, _) = halves.as_chunks_mut::<2>();
    for (eight, [low, high]) in eights.iter().zip(pairs) {
        let bytes = load_words(eight);
        *low = elements(_mm256_cvtepi8_epi16(_mm256_castsi256_si128(bytes)));
        *high = elements(_mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(bytes)));
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn widen_four(words: &[u32], out: &mut [Vec<i16>; 4]) {
    let (eights, _) = words.as_chunks::<8>();
    let (pairs, _) = eights.as_chunks::<2>();
    let [row0, row1, row2, row3] = out.each_mut().map(|row| row.as_chunks_mut::<16>().0.iter_mut());
    // Packs two registers of eight 32-bit elements into one of sixteen, in their order.
    let pack = |low, high| elements(_mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high)));
    for ((((pair, out0), out1), out2), out3) in pairs.iter().zip(row0).zip(row1).zip(row2).zip(row3) {
        let [low, high] = [load_words(&pair[0]), load_words(&pair[1])];
        let [low1, high1] = [low, high].map(|x| _mm256_srai_epi32::<24>(_mm256_slli_epi32::<16>(x)));
        let [low2, high2] = [low, high].map(|x| _mm256_srai_epi32::<24>(_mm256_slli_epi32::<8>(x)));
        let [low0, high0] = [low, high].map(|x| _mm256_srai_epi32::<24>(_mm256_slli_epi32::<24>(x)));
        *out0 = pack(low0, high0);
        *out1 = pack(low1, high1);
        *out2 = pack(low2, high2);
        *out3 = pack(_mm256_srai_epi32::<24>(low), _mm256_srai_epi32::<24>(high));
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn dot_digits(bytes: &[i16], digits: &[Vec<i16>; 4]) -> [i64; 4] {
    let bytes = bytes.as_chunks::<16>().0;
    let [d0, d1, d2, d3] = digits.each_ref().map(|places| places.as_chunks::<16>().0);
    let mut totals = [0i64; 4];
    let parts = bytes.chunks(STEPS_MAX).zip(d0.chunks(STEPS_MAX)).zip(d1.chunks(STEPS_MAX));
    for ((((bytes, d0), d1), d2), d3) in parts.zip(d2.chunks(STEPS_MAX)).zip(d3.chunks(STEPS_MAX)) {
        let mut sums = [_mm256_setzero_si256(); 4];
        for ((((bytes, d0), d1), d2), d3) in bytes.iter().zip(d0).zip(d1).zip(d2).zip(d3) {
            let bytes = load(bytes);
            sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(bytes, load(d0)));
            sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(bytes, load(d1)));
            sums[2] = _mm256_add_epi32(sums[2], _mm256_madd_epi16(bytes, load(d2)));
            sums[3] = _mm256_add_epi32(sums[3], _mm256_madd_epi16(bytes, load(d3)));
        }
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total += sum_of(sum);
        }
    }
    totals
}

#[target_feature(enable = "avx2")]
pub(super) fn dot(a: &[i16], b: &[i16]) -> i32 {
    let mut sum = _mm256_setzero_si256();
    for (a, b) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0) {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(load(a), load(b)));
    }
    words_of(sum).into_iter().fold(0, |total, lane| total + lane.cast_signed())
}

/// The sum of eight 32-bit lanes.
#[target_feature(enable = "avx2")]
fn sum_of(lanes: __m256i) -> i64 {
    let low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(lanes));
    let high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256::<1>(lanes));
    // SAFETY: both are 32 bytes in which every pattern of bits is valid.
    let four: [i64; 4] = unsafe { std::mem::transmute(_mm256_add_epi64(low, high)) };
    four.iter().sum()
}
