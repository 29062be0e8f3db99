//! Hardware as measured. `POST /v1/node/benchmarks` (signed).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::node::GpuKind;

/// One run of the benchmarks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BenchmarkReport {
    /// When the run ended.
    pub measured_at: Timestamp,
    /// SHA-256 (hex) over hardware, driver and kernel versions; a cached report is valid while it stays the same.
    pub fingerprint: String,
    /// Version of the benchmark method; reports of different methods are not compared.
    pub method: u32,
    /// Results per graphics adapter.
    pub gpus: Vec<GpuResult>,
    /// Hardware score: the best hardware adapter's, or the best software adapter's where there is no GPU. 100 = 1 TFLOP/s
    /// of fp32 with memory to match; see `bench::score`.
    pub score: u32,
    /// What could not be measured and why, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Results of one graphics adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GpuResult {
    /// Name as the driver gives it.
    pub name: String,
    /// What it is; software adapters are measured and labelled.
    pub kind: GpuKind,
    /// PCI address, where the backend tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// fp32 fused multiply-add throughput, floating-point operations per second (an FMA counts two).
    pub fp32_flops: f64,
    /// Memory bandwidth of a copy, bytes read plus written per second.
    pub memory_bytes_per_second: f64,
    /// fp32 matrix multiplication, floating-point operations per second (2·n³ per product).
    pub matmul_flops: f64,
    /// Score of this adapter alone.
    pub score: u32,
    /// Whether every kernel's result equalled its CPU twin's.
    pub verified: bool,
    /// What a full run finds besides; a quick one leaves it empty.
    #[serde(default, skip_serializing_if = "GpuFigures::is_empty")]
    pub more: GpuFigures,
}

impl GpuResult {
    /// Every figure with its name, for checks and tables.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let score = [
            ("fp32_flops", self.fp32_flops),
            ("memory_bytes_per_second", self.memory_bytes_per_second),
            ("matmul_flops", self.matmul_flops),
        ];
        score.into_iter().chain(self.more.figures())
    }
}

/// Further figures of a graphics adapter. One that is absent was not measured, or the adapter cannot do it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GpuFigures {
    /// fp16 fused multiply-add throughput, floating-point operations per second (an FMA counts two).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fp16_flops: Option<f64>,
    /// 32-bit integer multiply-add throughput, operations per second (a product with its sum counts two).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int32_ops: Option<f64>,
    /// Dot products of four 8-bit integers summed in 32 bits, operations per second (a dot product counts eight).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8_dot_ops: Option<f64>,
    /// Matrix multiplication with fp16 factors and fp32 sums, floating-point operations per second (2·n³ per product).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matmul_fp16_flops: Option<f64>,
    /// Memory bandwidth of reading alone, bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_read_bytes_per_second: Option<f64>,
    /// Memory bandwidth of writing alone, bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_write_bytes_per_second: Option<f64>,
}

impl GpuFigures {
    /// Whether nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Those that are there, with their names.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [
            ("fp16_flops", self.fp16_flops),
            ("int32_ops", self.int32_ops),
            ("int8_dot_ops", self.int8_dot_ops),
            ("matmul_fp16_flops", self.matmul_fp16_flops),
            ("memory_read_bytes_per_second", self.memory_read_bytes_per_second),
            ("memory_write_bytes_per_second", self.memory_write_bytes_per_second),
        ];
        all.into_iter().filter_map(|(name, figure)| Some((name, figure?)))
    }
}
