//! The hardware score: one number for what an adapter can do. Pure.
//!
//! An adapter that reaches exactly the reference in all three measurements scores 100; twice all of it scores 200. Between the
//! three it is the geometric mean, so that an adapter twice as good in one is worth the same wherever it is better, and none
//! of the three can be traded for nothing:
//!
//! ```text
//! score = 100 × ∛( fp32 / 1 TFLOP/s  ×  memory / 25 GB/s  ×  matmul / 0.5 TFLOP/s )
//! ```
//!
//! 25 GB/s of copy bandwidth (read plus written) and half the FMA rate in a plain tiled product are what current cards have per
//! TFLOP/s. Rounded to a whole number, at least 1 for an adapter that computes at all; 0 is "nothing measured".

use crate::wire::bench::GpuResult;

/// fp32 fused multiply-add throughput that scores 100, in operations per second.
pub const FP32_FLOPS_REFERENCE: f64 = 1e12;
/// Copy bandwidth (read plus written) that scores 100, in bytes per second.
pub const MEMORY_BYTES_PER_SECOND_REFERENCE: f64 = 25e9;
/// fp32 matrix multiplication throughput that scores 100, in operations per second.
pub const MATMUL_FLOPS_REFERENCE: f64 = 0.5e12;

/// Score of one adapter. Anything that is no positive finite number scores 0.
#[must_use]
pub fn adapter(fp32_flops: f64, memory_bytes_per_second: f64, matmul_flops: f64) -> u32 {
    let shares = [
        fp32_flops / FP32_FLOPS_REFERENCE,
        memory_bytes_per_second / MEMORY_BYTES_PER_SECOND_REFERENCE,
        matmul_flops / MATMUL_FLOPS_REFERENCE,
    ];
    if shares.iter().any(|share| !share.is_finite() || *share <= 0.0) {
        return 0;
    }
    // Logarithms keep the product of large shares from overflowing.
    let mean = (shares.iter().map(|share| share.ln()).sum::<f64>() / 3.0).exp();
    whole((100.0 * mean).round().max(1.0))
}

/// Score of a machine: its best hardware adapter's, or its best software adapter's where there is no hardware one.
#[must_use]
pub fn overall(results: &[GpuResult]) -> u32 {
    let best = |hardware: bool| {
        let counted = results.iter().filter(|result| result.verified && result.kind.is_hardware() == hardware);
        counted.map(|result| result.score).max()
    };
    best(true).or_else(|| best(false)).unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of u32 first")]
fn whole(score: f64) -> u32 {
    score.clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::node::GpuKind;

    fn result(kind: GpuKind, score: u32, verified: bool) -> GpuResult {
        GpuResult {
            name: "Example".into(),
            kind,
            pci_address: None,
            fp32_flops: 1.0,
            memory_bytes_per_second: 1.0,
            matmul_flops: 1.0,
            score,
            verified,
            more: Default::default(),
            health: None,
        }
    }

    #[test]
    fn the_reference_scores_one_hundred_and_twice_of_it_two_hundred() {
        assert_eq!(adapter(1e12, 25e9, 0.5e12), 100);
        assert_eq!(adapter(2e12, 50e9, 1e12), 200);
    }

    #[test]
    fn what_was_not_measured_scores_nothing() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(adapter(bad, 25e9, 0.5e12), 0);
            assert_eq!(adapter(1e12, bad, 0.5e12), 0);
            assert_eq!(adapter(1e12, 25e9, bad), 0);
        }
    }

    #[test]
    fn the_slowest_adapter_that_computes_still_scores_one() {
        assert_eq!(adapter(1.0, 1.0, 1.0), 1);
    }

    #[test]
    fn hardware_counts_before_software_and_wrong_results_do_not_count() {
        let software = result(GpuKind::Software, 90, true);
        let slow_card = result(GpuKind::Discrete, 40, true);
        let wrong_card = result(GpuKind::Discrete, 4_000, false);
        assert_eq!(overall(&[]), 0);
        assert_eq!(overall(std::slice::from_ref(&software)), 90);
        assert_eq!(overall(&[software.clone(), slow_card]), 40);
        assert_eq!(overall(&[software, wrong_card]), 90);
    }

    proptest! {
        #[test]
        fn faster_never_scores_less(
            fp32 in 1e6f64..1e17, memory in 1e6f64..1e15, matmul in 1e6f64..1e17, factor in 1.0f64..100.0, which in 0usize..3,
        ) {
            let mut faster = [fp32, memory, matmul];
            faster[which] *= factor;
            prop_assert!(adapter(faster[0], faster[1], faster[2]) >= adapter(fp32, memory, matmul));
        }
    }
}
