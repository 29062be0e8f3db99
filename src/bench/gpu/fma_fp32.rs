//! Driver of `shaders/fma_fp32.wgsl`.

use super::device::{Device, Kernel, workgroups};
use super::{Budget, KernelError, figure};
use crate::bench::timing;
use crate::bench::twins::fma_fp32::{
    LINKS_PER_ROUND, ROAMING_MAX, SEEDS, Seed, TOLERANCE, chain, creeping_seeds, roaming_seeds,
};
use crate::wire::node::GpuKind;

pub(super) const SOURCE: &str = include_str!("../shaders/fma_fp32.wgsl");
const NAME: &str = "fp32 FMA";
/// Rounds of the check: 128 links.
const ROUNDS_CHECKED: u32 = 2;
/// Chains compared with the twin: every seed once.
const CHAINS_CHECKED: usize = SEEDS;

/// An entry point, and its chains per invocation.
const VARIANTS: [(&str, u64); 4] = [("chains1", 1), ("chains2", 2), ("chains4", 4), ("chains8", 8)];
const CHAINS_MAX: u64 = 8;

struct Bench<'a> {
    device: &'a Device,
    invocations: u64,
    parameters: wgpu::Buffer,
    seeds: wgpu::Buffer,
    results: wgpu::Buffer,
}

/// Floating-point operations per second of the best variant; an FMA counts two.
pub(super) fn measure(device: &Device, budget: Budget) -> Result<f64, KernelError> {
    measure_source(device, budget, SOURCE)
}

/// [`measure`] of any source with the same entry points.
pub(super) fn measure_source(device: &Device, budget: Budget, source: &'static str) -> Result<f64, KernelError> {
    let bench = Bench {
        device,
        invocations: invocations(device.kind),
        parameters: device.parameters([0; 4])?,
        seeds: device.storage(SEEDS as u64 * 8)?,
        results: device.storage(invocations(device.kind) * CHAINS_MAX * 4)?,
    };
    let shader = device.shader(source)?;
    let mut best: Option<(f64, Kernel, u64)> = None;
    for (entry_point, chains) in VARIANTS {
        let buffers = [(0, &bench.parameters), (1, &bench.seeds), (2, &bench.results)];
        let kernel = device.kernel(&shader, entry_point, &buffers)?;
        bench.check(&kernel, entry_point)?;
        let flops = bench.flops(&kernel, chains, budget.variant)?;
        if best.as_ref().is_none_or(|(most, ..)| flops > *most) {
            best = Some((flops, kernel, chains));
        }
    }
    let (probed, kernel, chains) = best.ok_or(KernelError::NoTime { kernel: NAME })?;
    let flops = bench.flops(&kernel, chains, budget.kernel)?;
    bench.look(chains)?;
    Ok(flops.max(probed))
}

/// Enough to fill the largest cards several times over; a processor needs few.
const fn invocations(kind: GpuKind) -> u64 {
    match kind {
        GpuKind::Software => 1 << 13,
        GpuKind::Integrated => 1 << 18,
        GpuKind::Discrete | GpuKind::Virtual | GpuKind::Unknown => 1 << 20,
    }
}

impl Bench<'_> {
    /// Compares short chains with the twin's.
    fn check(&self, kernel: &Kernel, entry_point: &str) -> Result<(), KernelError> {
        let seeds = creeping_seeds();
        self.prepare(&seeds, ROUNDS_CHECKED);
        self.device.run(kernel, workgroups(self.invocations), 1)?;
        let found = self.results(CHAINS_CHECKED)?;
        for (number, (found, seed)) in found.iter().zip(&seeds).enumerate() {
            let wanted = chain(*seed, ROUNDS_CHECKED * LINKS_PER_ROUND);
            let near = (found - wanted).abs() <= TOLERANCE;
            if !near {
                let detail = format!("{entry_point}, chain {number} is {found}, not {wanted}");
                return Err(KernelError::Wrong { kernel: NAME, detail });
            }
        }
        Ok(())
    }

    fn flops(&self, kernel: &Kernel, chains: u64, time: std::time::Duration) -> Result<f64, KernelError> {
        self.prepare(&roaming_seeds(), 1);
        let rounds_per_second = timing::rate(time, u64::from(u32::MAX), |rounds| {
            let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
            self.device.write(&self.parameters, bytemuck::bytes_of(&rounds));
            self.device.run(kernel, workgroups(self.invocations), 1)
        })?;
        #[expect(clippy::cast_precision_loss, reason = "below 2^24")]
        let per_round = (self.invocations * chains * u64::from(LINKS_PER_ROUND) * 2) as f64;
        figure(NAME, rounds_per_second.map(|rounds| rounds * per_round))
    }

    /// Looks at what the last timed batch left behind: numbers within bounds that are not all the same.
    fn look(&self, chains: u64) -> Result<(), KernelError> {
        let ends = self.results(usize::try_from(self.invocations * chains).unwrap_or(SEEDS).min(1 << 16))?;
        if let Some(bad) = ends.iter().find(|end| !end.is_finite()) {
            return Err(KernelError::NoNumber { kernel: NAME, found: f64::from(*bad) });
        }
        let mut different: Vec<u32> = ends.iter().take(SEEDS).map(|end| end.to_bits()).collect();
        different.sort_unstable();
        different.dedup();
        if ends.iter().any(|end| end.abs() > ROAMING_MAX) || different.len() < SEEDS / 2 {
            return Err(KernelError::Wrong { kernel: NAME, detail: "long chains left their bounds".to_owned() });
        }
        Ok(())
    }

    fn prepare(&self, seeds: &[Seed], rounds: u32) {
        let words: Vec<f32> = seeds.iter().flat_map(|seed| [seed.start, seed.c]).collect();
        self.device.write(&self.seeds, bytemuck::cast_slice(&words));
        self.device.write(&self.parameters, bytemuck::bytes_of(&rounds));
    }

    fn results(&self, count: usize) -> Result<Vec<f32>, KernelError> {
        let bytes = self.device.read(&self.results, 0, count as u64 * 4)?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}
