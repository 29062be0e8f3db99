//! Driver of the arithmetic kernels: `shaders/fma_fp32.wgsl`, `fma_fp16.wgsl`, `mad_int32.wgsl` and `dot_int8.wgsl`. They differ in
//! what a link of a chain is, and in what their twins say of it.

use std::time::Duration;

use super::device::{Device, Kernel, workgroups};
use super::{Budget, KernelError, figure};
use crate::bench::timing;
use crate::bench::twins::{LINKS_PER_ROUND, SEEDS, Words, dot_int8, fma_fp16, fma_fp32, mad_int32};
use crate::wire::node::GpuKind;

/// Rounds of the check: 128 links.
const ROUNDS_CHECKED: u32 = 2;
/// How long a long run is measured before its next figure.
const SUSTAIN_STEP: Duration = Duration::from_secs(1);
/// Ends that are looked at after the measurement.
const ENDS_LOOKED_AT: u64 = 1 << 16;

/// A family of kernels whose chains have the same links.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chains {
    name: &'static str,
    pub(super) source: &'static str,
    /// Entry points, and the chains per invocation of each.
    pub(super) variants: &'static [(&'static str, u64)],
    operations_per_link: u32,
    /// What the adapter must be able to do.
    needs: wgpu::Features,
    seeds_checked: fn() -> Vec<Words>,
    seeds_timed: fn() -> Vec<Words>,
    /// What should have been found at the end of a short chain, where it was not.
    mistake: fn(seed: Words, links: u32, found: u32) -> Option<String>,
    /// What is wrong with the end of a long chain.
    out_of_bounds: fn(end: u32) -> Option<f64>,
    /// How many of the [`SEEDS`] long chains must have ends of their own.
    different_min: usize,
}

const SCALAR_TO_VEC4: &[(&str, u64)] = &[("chains1", 1), ("chains2", 2), ("chains4", 4)];

/// fp32 fused multiply-add; an FMA counts two.
pub(super) const FP32: Chains = Chains {
    name: "fp32 FMA",
    source: include_str!("../shaders/fma_fp32.wgsl"),
    variants: &[("chains1", 1), ("chains2", 2), ("chains4", 4), ("chains8", 8)],
    operations_per_link: 2,
    needs: wgpu::Features::empty(),
    seeds_checked: fma_fp32::creeping_words,
    seeds_timed: fma_fp32::roaming_words,
    mistake: fma_fp32::mistake,
    out_of_bounds: fma_fp32::out_of_bounds,
    different_min: SEEDS / 2,
};

/// fp16 fused multiply-add; an FMA counts two.
pub(super) const FP16: Chains = Chains {
    name: "fp16 FMA",
    source: include_str!("../shaders/fma_fp16.wgsl"),
    variants: SCALAR_TO_VEC4,
    needs: wgpu::Features::SHADER_F16,
    seeds_checked: fma_fp16::cyclic_words,
    mistake: fma_fp16::mistake,
    // Half precision has few words, and chains of the same c meet.
    different_min: SEEDS / 32,
    ..FP32
};

/// 32-bit integer multiplication and addition; a link counts two.
pub(super) const INT32: Chains = Chains {
    name: "int32 multiply-add",
    source: include_str!("../shaders/mad_int32.wgsl"),
    variants: SCALAR_TO_VEC4,
    operations_per_link: 2,
    needs: wgpu::Features::empty(),
    seeds_checked: mad_int32::words,
    seeds_timed: mad_int32::words,
    mistake: mad_int32::mistake,
    out_of_bounds: |_| None,
    different_min: SEEDS / 2,
};

/// Dot product of four 8-bit integers, added to a 32-bit one; a link counts eight.
pub(super) const INT8_DOT: Chains = Chains {
    name: "int8 dot product",
    source: include_str!("../shaders/dot_int8.wgsl"),
    operations_per_link: 8,
    seeds_checked: dot_int8::words,
    seeds_timed: dot_int8::words,
    mistake: dot_int8::mistake,
    ..INT32
};

struct Bench<'a> {
    chains: &'a Chains,
    device: &'a Device,
    invocations: u64,
    parameters: wgpu::Buffer,
    seeds: wgpu::Buffer,
    results: wgpu::Buffer,
}

/// Operations per second of the best variant; nothing where the adapter lacks what the kernel needs.
pub(super) fn measure(device: &Device, budget: Budget, chains: &Chains) -> Result<Option<f64>, KernelError> {
    if device.has(chains.needs) { measure_best(device, budget, chains).map(Some) } else { Ok(None) }
}

fn measure_best(device: &Device, budget: Budget, chains: &Chains) -> Result<f64, KernelError> {
    let bench = Bench::new(device, chains)?;
    let (probed, kernel, per_invocation) = bench.best_variant(budget.variant)?;
    let rate = bench.rate(&kernel, per_invocation, budget.kernel)?;
    bench.look(per_invocation)?;
    Ok(rate.max(probed))
}

/// Operations per second in a long run, as [`ends`] has them: a card that grows too hot, or draws too much, is slower at the end.
pub(super) fn sustain(device: &Device, time: Duration, chains: &Chains) -> Result<(f64, f64), KernelError> {
    let bench = Bench::new(device, chains)?;
    let (_, kernel, per_invocation) = bench.best_variant(SUSTAIN_STEP / 20)?;
    let mut rates = Vec::new();
    let mut spent = Duration::ZERO;
    while spent < time || rates.len() < 4 {
        rates.push(bench.rate(&kernel, per_invocation, SUSTAIN_STEP)?);
        // Even a clock that stands still ends the loop.
        spent += SUSTAIN_STEP;
    }
    bench.look(per_invocation)?;
    Ok(ends(&rates))
}

/// The best of the first quarter, and the median of the last.
fn ends(rates: &[f64]) -> (f64, f64) {
    let quarter = rates.len().div_ceil(4);
    let first = rates.iter().take(quarter).copied().fold(0.0, f64::max);
    let mut last: Vec<f64> = rates.iter().rev().take(quarter).copied().collect();
    last.sort_by(f64::total_cmp);
    (first, last.get(last.len() / 2).copied().unwrap_or(0.0))
}

/// Enough to fill the largest cards several times over; a processor needs few.
const fn invocations(kind: GpuKind) -> u64 {
    match kind {
        GpuKind::Software => 1 << 13,
        GpuKind::Integrated => 1 << 18,
        GpuKind::Discrete | GpuKind::Virtual | GpuKind::Unknown => 1 << 20,
    }
}

impl<'a> Bench<'a> {
    fn new(device: &'a Device, chains: &'a Chains) -> Result<Self, KernelError> {
        let invocations = invocations(device.kind);
        let chains_max = chains.variants.iter().map(|(_, chains)| *chains).max().unwrap_or(1);
        Ok(Self {
            chains,
            device,
            invocations,
            parameters: device.parameters([0; 4])?,
            seeds: device.storage(SEEDS as u64 * 8)?,
            results: device.storage(invocations * chains_max * 4)?,
        })
    }

    /// Checks every variant; the fastest, its rate, and its chains per invocation.
    fn best_variant(&self, time: Duration) -> Result<(f64, Kernel, u64), KernelError> {
        let shader = self.device.shader(self.chains.source)?;
        let mut best: Option<(f64, Kernel, u64)> = None;
        for (entry_point, per_invocation) in self.chains.variants {
            let buffers = [(0, &self.parameters), (1, &self.seeds), (2, &self.results)];
            let kernel = self.device.kernel(&shader, entry_point, &buffers)?;
            self.check(&kernel, entry_point)?;
            let rate = self.rate(&kernel, *per_invocation, time)?;
            if best.as_ref().is_none_or(|(most, ..)| rate > *most) {
                best = Some((rate, kernel, *per_invocation));
            }
        }
        best.ok_or(KernelError::NoTime { kernel: self.chains.name })
    }

    /// Compares short chains, every seed once, with the twin's.
    fn check(&self, kernel: &Kernel, entry_point: &str) -> Result<(), KernelError> {
        let seeds = (self.chains.seeds_checked)();
        self.prepare(&seeds, ROUNDS_CHECKED);
        self.device.run(kernel, workgroups(self.invocations), 1)?;
        let found = self.results(SEEDS as u64)?;
        for (number, (found, seed)) in found.iter().zip(&seeds).enumerate() {
            if let Some(mistake) = (self.chains.mistake)(*seed, ROUNDS_CHECKED * LINKS_PER_ROUND, *found) {
                let detail = format!("{entry_point}, chain {number} {mistake}");
                return Err(KernelError::Wrong { kernel: self.chains.name, detail });
            }
        }
        Ok(())
    }

    fn rate(&self, kernel: &Kernel, per_invocation: u64, time: Duration) -> Result<f64, KernelError> {
        self.prepare(&(self.chains.seeds_timed)(), 1);
        let rounds_per_second = timing::rate(time, u64::from(u32::MAX), |rounds| {
            let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
            self.device.write(&self.parameters, bytemuck::bytes_of(&rounds));
            self.device.run(kernel, workgroups(self.invocations), 1)
        })?;
        let links = self.invocations * per_invocation * u64::from(LINKS_PER_ROUND);
        #[expect(clippy::cast_precision_loss, reason = "below 2^33")]
        let per_round = (links * u64::from(self.chains.operations_per_link)) as f64;
        figure(self.chains.name, rounds_per_second.map(|rounds| rounds * per_round))
    }

    /// Looks at what the last timed batch left behind: numbers within bounds that are not all the same.
    fn look(&self, per_invocation: u64) -> Result<(), KernelError> {
        let ends = self.results((self.invocations * per_invocation).min(ENDS_LOOKED_AT))?;
        if let Some(found) = ends.iter().find_map(|end| (self.chains.out_of_bounds)(*end)) {
            return Err(if found.is_finite() {
                KernelError::Wrong { kernel: self.chains.name, detail: "long chains left their bounds".to_owned() }
            } else {
                KernelError::NoNumber { kernel: self.chains.name, found }
            });
        }
        let mut different: Vec<u32> = ends.into_iter().take(SEEDS).collect();
        different.sort_unstable();
        different.dedup();
        if different.len() < self.chains.different_min {
            let detail = format!("long chains have {} different ends", different.len());
            return Err(KernelError::Wrong { kernel: self.chains.name, detail });
        }
        Ok(())
    }

    fn prepare(&self, seeds: &[Words], rounds: u32) {
        self.device.write(&self.seeds, bytemuck::cast_slice(seeds));
        self.device.write(&self.parameters, bytemuck::bytes_of(&rounds));
    }

    fn results(&self, count: u64) -> Result<Vec<u32>, KernelError> {
        let bytes = self.device.read(&self.results, 0, count * 4)?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_slows_down_shows_it_between_its_first_and_its_last_seconds() {
        let slowing: Vec<f64> = (0..60).map(|second| if second < 20 { 100.0 } else { 80.0 }).collect();
        assert_eq!(ends(&slowing), (100.0, 80.0));
        // One disturbed second is no throttling.
        let mut steady = vec![100.0; 60];
        steady[59] = 10.0;
        assert_eq!(ends(&steady), (100.0, 100.0));
        assert_eq!(ends(&[]), (0.0, 0.0));
    }
}
