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
}
