//! What each kernel must compute, done on the CPU: one twin per file of `shaders/`, of the same name, sharing no code with it.
//!
//! Twins are written for being obviously right, not fast: other loops, other number types, and a closed form where there is one.

pub(crate) mod copy_bandwidth;
pub(crate) mod dot_int8;
pub(crate) mod fma_fp16;
pub(crate) mod fma_fp32;
pub(crate) mod launch_latency;
pub(crate) mod load_latency;
pub(crate) mod mad_int32;
pub(crate) mod matmul_fp16;
pub(crate) mod matmul_fp32;
pub(crate) mod read_bandwidth;
pub(crate) mod write_bandwidth;

/// Links per round of a chain.
pub(crate) const LINKS_PER_ROUND: u32 = 64;
/// Seeds that a kernel of chains needs; chains use them in turn.
pub(crate) const SEEDS: usize = 4096;
/// The two words of a seed: where a chain starts, and its constant.
pub(crate) type Words = [u32; 2];

/// The kernels' counter-based generator (PCG-RXS-M-XS, 32 bits), in 64-bit arithmetic cut back to 32 bits at every step.
fn random(counter: u32) -> u32 {
    const MASK: u64 = 0xffff_ffff;
    let state = (u64::from(counter) * 747_796_405 + 2_891_336_453) & MASK;
    let shift = (state >> 28) + 4;
    let word = (((state >> shift) ^ state) * 277_803_737) & MASK;
    u32::try_from((word >> 22) ^ word).expect("both were cut to 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_hash() {
        // Jarzynski and Olano, "Hash Functions for GPU Rendering" (2020), listing `pcg`.
        let published = |v: u32| {
            let state = v.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
            (word >> 22) ^ word
        };
        for counter in [0, 1, 2, 1000, u32::MAX] {
            assert_eq!(random(counter), published(counter));
        }
    }
}
