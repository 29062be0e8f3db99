//! The vectors of x86-64: AVX-512 and AVX2 with FMA.

use std::arch::x86_64::*;

use super::{CHAINS, Element, Lanes};

/// The widest that this processor and its operating system have.
pub(super) fn best() -> Option<Lanes> {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    if avx2 && is_x86_feature_detected!("avx512f") {
        return Some(Lanes { name: "AVX-512", int32: int32_512, fp32: fp32_512, fp64: fp64_512, ..AVX2 });
    }
    avx2.then_some(AVX2)
}

const AVX2: Lanes = Lanes {
    name: "AVX2 with FMA",
    int32: int32_256,
    fp32: fp32_256,
    fp64: fp64_256,
    fused: true,
    // SAFETY: `best` gives these out only where the processor has AVX2 and FMA.
    read: |words| unsafe { read(words) },
    // SAFETY: as above.
    write: |words, word| unsafe { write(words, word) },
    // SAFETY: as above.
    triad: |a, b, c, factor| unsafe { triad(a, b, c, factor) },
};

/// A kernel of twelve chains of one vector. They are variables of their own, so that they stay in registers at any optimisation.
macro_rules! kernel {
    ($name:ident, $features:literal, [$element:ty; $lanes:literal], $load:ident, $store:ident, $splat:ident, $link:ident) => {
        fn $name(links: u64) -> Vec<u64> {
            #[target_feature(enable = $features)]
            fn run(chains: &mut [[$element; $lanes]; CHAINS], links: u64) {
                let c = $splat(<$element>::C);
                let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11] = &*chains;
                // SAFETY: reads as many elements as an array has, with no alignment asked for.
                let load = |from: &[$element; $lanes]| unsafe { $load(from.as_ptr().cast()) };
                let (mut x0, mut x1, mut x2, mut x3) = (load(s0), load(s1), load(s2), load(s3));
                let (mut x4, mut x5, mut x6, mut x7) = (load(s4), load(s5), load(s6), load(s7));
                let (mut x8, mut x9, mut x10, mut x11) = (load(s8), load(s9), load(s10), load(s11));
                for _ in 0..links {
                    (x0, x1, x2, x3) = ($link(x0, c), $link(x1, c), $link(x2, c), $link(x3, c));
                    (x4, x5, x6, x7) = ($link(x4, c), $link(x5, c), $link(x6, c), $link(x7, c));
                    (x8, x9, x10, x11) = ($link(x8, c), $link(x9, c), $link(x10, c), $link(x11, c));
                }
                for (to, x) in chains.iter_mut().zip([x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11]) {
                    // SAFETY: writes as many elements as an array has, with no alignment asked for.
                    unsafe { $store(to.as_mut_ptr().cast(), x) };
                }
            }
            let mut chains = starts::<$element, $lanes>();
            // SAFETY: `best` gives this kernel out only where the processor has these features.
            unsafe { run(&mut chains, links) };
            chains.iter().flatten().map(|x| x.bits()).collect()
        }
    };
}

kernel!(int32_256, "avx2,fma", [u32; 8], _mm256_loadu_si256, _mm256_storeu_si256, splat_256, mad_256);
kernel!(fp32_256, "avx2,fma", [f32; 8], _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, fma_ps_256);
kernel!(fp64_256, "avx2,fma", [f64; 4], _mm256_loadu_pd, _mm256_storeu_pd, _mm256_set1_pd, fma_pd_256);
kernel!(int32_512, "avx512f", [u32; 16], _mm512_loadu_si512, _mm512_storeu_si512, splat_512, mad_512);
kernel!(fp32_512, "avx512f", [f32; 16], _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, fma_ps_512);
kernel!(fp64_512, "avx512f", [f64; 8], _mm512_loadu_pd, _mm512_storeu_pd, _mm512_set1_pd, fma_pd_512);

fn starts<E: Element, const LANES: usize>() -> [[E; LANES]; CHAINS] {
    std::array::from_fn(|chain| std::array::from_fn(|lane| E::start(u32::try_from(chain * LANES + lane).unwrap_or(0))))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn fma_ps_256(x: __m256, c: __m256) -> __m256 {
    _mm256_fmadd_ps(x, x, c)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn fma_pd_256(x: __m256d, c: __m256d) -> __m256d {
    _mm256_fmadd_pd(x, x, c)
}

#[inline]
#[target_feature(enable = "avx2")]
fn mad_256(x: __m256i, _c: __m256i) -> __m256i {
    _mm256_add_epi32(_mm256_mullo_epi32(x, x), x)
}

#[inline]
#[target_feature(enable = "avx2")]
fn splat_256(c: u32) -> __m256i {
    _mm256_set1_epi32(c.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn fma_ps_512(x: __m512, c: __m512) -> __m512 {
    _mm512_fmadd_ps(x, x, c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn fma_pd_512(x: __m512d, c: __m512d) -> __m512d {
    _mm512_fmadd_pd(x, x, c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn mad_512(x: __m512i, _c: __m512i) -> __m512i {
    _mm512_add_epi32(_mm512_mullo_epi32(x, x), x)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn splat_512(c: u32) -> __m512i {
    _mm512_set1_epi32(c.cast_signed())
}

#[target_feature(enable = "avx2,fma")]
fn read(words: &[u64]) -> u64 {
    let (blocks, rest) = words.as_chunks::<16>();
    let mut sums = [_mm256_setzero_si256(); 4];
    for block in blocks {
        let from = block.as_ptr().cast::<__m256i>();
        // SAFETY: a block has four vectors of four words; no alignment is asked for.
        let [v0, v1, v2, v3] = unsafe { [0, 1, 2, 3].map(|i| _mm256_loadu_si256(from.add(i))) };
        let [s0, s1, s2, s3] = sums;
        sums = [_mm256_xor_si256(s0, v0), _mm256_xor_si256(s1, v1), _mm256_xor_si256(s2, v2), _mm256_xor_si256(s3, v3)];
    }
    let [s0, s1, s2, s3] = sums;
    let sum = _mm256_xor_si256(_mm256_xor_si256(s0, s1), _mm256_xor_si256(s2, s3));
    let mut lanes = [0u64; 4];
    // SAFETY: four words are written, with no alignment asked for.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
    lanes.iter().chain(rest).fold(0, |sum, word| sum ^ word)
}

#[target_feature(enable = "avx2,fma")]
fn write(words: &mut [u64], word: u64) {
    let (blocks, rest) = words.as_chunks_mut::<8>();
    let vector = _mm256_set1_epi64x(word.cast_signed());
    for block in blocks {
        let to = block.as_mut_ptr().cast::<__m256i>();
        // SAFETY: a block has two vectors of four words; no alignment is asked for.
        unsafe {
            _mm256_storeu_si256(to, vector);
            _mm256_storeu_si256(to.add(1), vector);
        }
    }
    rest.fill(word);
}

#[target_feature(enable = "avx2,fma")]
fn triad(a: &mut [f64], b: &[f64], c: &[f64], factor: f64) {
    let ((a_blocks, a_rest), (b_blocks, b_rest), (c_blocks, c_rest)) =
        (a.as_chunks_mut::<4>(), b.as_chunks::<4>(), c.as_chunks::<4>());
    let vector = _mm256_set1_pd(factor);
    for ((a, b), c) in a_blocks.iter_mut().zip(b_blocks).zip(c_blocks) {
        // SAFETY: each block is one vector of four; no alignment is asked for.
        unsafe {
            let (b, c) = (_mm256_loadu_pd(b.as_ptr()), _mm256_loadu_pd(c.as_ptr()));
            _mm256_storeu_pd(a.as_mut_ptr(), _mm256_fmadd_pd(vector, c, b));
        }
    }
    for ((a, b), c) in a_rest.iter_mut().zip(b_rest).zip(c_rest) {
        *a = b + factor * c;
    }
}
