//! How much a node has to compute, and in which time.
//!
//! Invariants
//! - The work is what the claimed speed does in [`WORK_MILLIS`] at most, so that even a slow day stays within five seconds.
//! - Only verified hardware adapters are asked; where there is none, the processor is.
//! - A figure that is absurd (not finite, negative, astronomic) gives a challenge like any other.

use crate::proof::Size;
use crate::wire::bench::{BenchmarkReport, GpuResult};
use crate::wire::challenge::{Device, Part};

/// Time that the work takes at the expected speed.
pub const WORK_MILLIS: f64 = 3_000.0;
/// Who claims a rate of floating-point matrix products claims at least this part of it for the challenge's integer products: a
/// low claim there cannot go with a high score.
pub const PART_OF_MATMUL: f64 = 0.25;
/// Times the expected duration that is allowed: clocks that are not warm yet, a desktop that draws.
pub const SLACK: f64 = 1.4;
/// For the network, there and back.
pub const ALLOWANCE_MILLIS: f64 = 1_000.0;
/// The largest matrix: the result takes 4 GiB, and its check about 1 s of one core.
pub const SIZE_MAX: u32 = 32_768;
/// What processors compute. They claim no speed, so it shows only that one is there.
const SIZE_CPU: u32 = 512;
/// And in which time; most need a tenth of a second.
const CPU_MILLIS_MAX: u64 = 10_000;
const CPU_COST_MILLIS: u64 = 1_000;
/// Adapters in one challenge.
const GPUS_MAX: usize = 16;

/// What a node is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// For each device.
    pub parts: Vec<Part>,
    /// Milliseconds from the release of the nonce until the commitment.
    pub millis_max: u64,
    /// Milliseconds of computing that it is planned at.
    pub cost_millis: u64,
}

/// What a node with this report is asked.
#[must_use]
pub fn plan(report: &BenchmarkReport) -> Plan {
    let claims = report.gpus.iter().filter(|gpu| gpu.kind.is_hardware() && gpu.verified).take(GPUS_MAX);
    let parts: Vec<(Part, u64)> = claims.map(of_gpu).collect();
    match parts.iter().map(|(_, millis)| *millis).max() {
        Some(millis_max) => {
            let parts = parts.into_iter().map(|(part, _)| part).collect();
            Plan { parts, millis_max, cost_millis: millis_max }
        }
        None => {
            let parts = vec![Part { device: Device::Cpu, size: SIZE_CPU }];
            Plan { parts, millis_max: CPU_MILLIS_MAX, cost_millis: CPU_COST_MILLIS }
        }
    }
}

fn of_gpu(gpu: &GpuResult) -> (Part, u64) {
    let claimed = claimed_ops(gpu);
    let size = size_for(claimed);
    let device = Device::Gpu { name: gpu.name.clone(), pci_address: gpu.pci_address.clone() };
    (Part { device, size: size.get() }, millis_for(size, claimed))
}

/// Operations per second of the challenge's product that a report promises.
#[must_use]
pub fn claimed_ops(gpu: &GpuResult) -> f64 {
    gpu.more.challenge_ops.unwrap_or(0.0).max(gpu.matmul_flops * PART_OF_MATMUL)
}

/// The largest size that the claimed speed does in [`WORK_MILLIS`].
#[must_use]
pub fn size_for(claimed_ops_per_second: f64) -> Size {
    let sizes = (256..=SIZE_MAX).step_by(256).filter_map(|n| Size::try_from(n).ok());
    sizes.take_while(|size| expected_millis(*size, claimed_ops_per_second) <= WORK_MILLIS).last().unwrap_or(Size::MIN)
}

/// The time limit for a size at the claimed speed. The smallest work may take a slow adapter long; it gets a minute.
#[must_use]
pub fn millis_for(size: Size, claimed_ops_per_second: f64) -> u64 {
    let millis = expected_millis(size, claimed_ops_per_second).mul_add(SLACK, ALLOWANCE_MILLIS);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1000 and 60000")]
    let millis = millis.clamp(ALLOWANCE_MILLIS, 60_000.0) as u64;
    millis
}

fn expected_millis(size: Size, claimed_ops_per_second: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let operations = size.operations() as f64;
    // A claim of nothing is one of a single operation a second, and nothing is faster than infinitely fast.
    operations / claimed_ops_per_second.max(1.0) * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::bench::GpuFigures;
    use crate::wire::node::GpuKind;

    fn report(gpus: &[(GpuKind, bool, f64)]) -> BenchmarkReport {
        let gpu = |(number, (kind, verified, matmul_flops)): (usize, &(GpuKind, bool, f64))| GpuResult {
            name: format!("card {number}"),
            kind: *kind,
            pci_address: None,
            fp32_flops: *matmul_flops,
            memory_bytes_per_second: 1e9,
            matmul_flops: *matmul_flops,
            score: 1,
            verified: *verified,
            more: GpuFigures { challenge_ops: Some(*matmul_flops), ..GpuFigures::default() },
            health: None,
        };
        BenchmarkReport {
            measured_at: jiff::Timestamp::UNIX_EPOCH,
            fingerprint: "f".to_owned(),
            method: 1,
            gpus: gpus.iter().enumerate().map(gpu).collect(),
            host: Default::default(),
            score: 1,
            problems: Vec::new(),
        }
    }

    #[test]
    fn work_stays_within_five_seconds_whatever_is_claimed() {
        for claimed in [1e7, 1e8, 1e9, 1e10, 5e10, 3e11, 1e12, 8e12, 3e13, 1e15, f64::MAX] {
            let size = size_for(claimed);
            let millis = millis_for(size, claimed);
            assert!(size.get() <= SIZE_MAX);
            if claimed >= 1e8 {
                assert!(millis <= 5_200, "{claimed} gives {millis}");
            }
        }
        assert_eq!(size_for(0.0), Size::MIN);
        assert_eq!(millis_for(Size::MIN, 0.0), 60_000);
        for absurd in [f64::NAN, f64::INFINITY, -5.0] {
            assert!((1_000..=60_000).contains(&millis_for(size_for(absurd), absurd)));
        }
    }

    #[test]
    fn every_verified_hardware_adapter_has_its_part_and_no_other() {
        let gpus = [
            (GpuKind::Discrete, true, 8e12),
            (GpuKind::Software, true, 1e11),
            (GpuKind::Integrated, true, 5e11),
            (GpuKind::Discrete, false, 0.0),
        ];
        let plan = plan(&report(&gpus));
        let names: Vec<_> = plan.parts.iter().map(|part| &part.device).collect();
        assert!(matches!(&names[..], [Device::Gpu { name: first, .. }, Device::Gpu { name: second, .. }]
            if first == "card 0" && second == "card 2"));
        assert!(plan.parts[0].size > plan.parts[1].size);
    }

    #[test]
    fn a_low_claim_does_not_go_with_a_high_score() {
        let mut report = report(&[(GpuKind::Discrete, true, 8e12)]);
        report.gpus[0].more.challenge_ops = Some(1e9);
        assert!((claimed_ops(&report.gpus[0]) - 2e12).abs() < 1.0);
    }

    #[test]
    fn a_node_without_a_gpu_computes_on_its_processor() {
        let plan = plan(&report(&[(GpuKind::Software, true, 1e11)]));
        assert_eq!(plan.parts, [Part { device: Device::Cpu, size: SIZE_CPU }]);
    }
}
