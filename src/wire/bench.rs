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
    /// Processor, memory and disk; a quick run leaves it empty.
    #[serde(default, skip_serializing_if = "HostFigures::is_empty")]
    pub host: HostFigures,
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
    /// How it fared at the end of the run, where its driver tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<GpuHealth>,
}

impl GpuResult {
    /// Every figure with its name, for checks and tables.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let score = [
            ("fp32_flops", self.fp32_flops),
            ("memory_bytes_per_second", self.memory_bytes_per_second),
            ("matmul_flops", self.matmul_flops),
        ];
        score.into_iter().chain(self.more.figures()).chain(self.health.iter().flat_map(GpuHealth::figures))
    }
}

/// How an adapter fares, as its sensors and its driver say. What they do not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GpuHealth {
    /// Degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<f64>,
    /// Watts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_watts: Option<f64>,
    /// Of its arithmetic, hertz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_hertz: Option<f64>,
    /// What keeps it from its full clock, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_back_by: Vec<String>,
}

impl GpuHealth {
    /// Those figures that are there, with their names.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [
            ("temperature_celsius", self.temperature_celsius),
            ("power_watts", self.power_watts),
            ("clock_hertz", self.clock_hertz),
        ];
        all.into_iter().filter_map(|(name, figure)| Some((name, figure?)))
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
    /// The product that challenges ask for, as `coordinator::verify` sizes it: operations per second (2·n³ per product). Quick
    /// runs measure it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge_ops: Option<f64>,
    /// Matrix multiplication with fp16 factors and fp32 sums, floating-point operations per second (2·n³ per product).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matmul_fp16_flops: Option<f64>,
    /// Memory bandwidth of reading alone, bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_read_bytes_per_second: Option<f64>,
    /// Memory bandwidth of writing alone, bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_write_bytes_per_second: Option<f64>,
    /// A load that waits for the one before it, all over a buffer larger than caches, nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_latency_nanos: Option<f64>,
    /// From the submission of the smallest piece of work until its end is known, nanoseconds at the median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_nanos: Option<f64>,
    /// From the machine's memory to the adapter's, bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_bytes_per_second: Option<f64>,
    /// From the adapter's memory to the machine's, bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_bytes_per_second: Option<f64>,
    /// fp32 fused multiply-add throughput at the start of a long run (`--sustain`), floating-point operations per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sustained_first_flops: Option<f64>,
    /// The same at its end; less than at the start where the card grew too hot or drew too much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sustained_last_flops: Option<f64>,
    /// Memory of the adapter's own, found by filling it, bytes; absent for one that shares the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes_found: Option<u64>,
}

impl GpuFigures {
    /// Whether nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Those that are there, with their names.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> {
        #[expect(clippy::cast_precision_loss, reason = "no adapter has 2^53 bytes")]
        let memory_bytes_found = self.memory_bytes_found.map(|bytes| bytes as f64);
        let all = [
            ("fp16_flops", self.fp16_flops),
            ("int32_ops", self.int32_ops),
            ("int8_dot_ops", self.int8_dot_ops),
            ("challenge_ops", self.challenge_ops),
            ("matmul_fp16_flops", self.matmul_fp16_flops),
            ("memory_read_bytes_per_second", self.memory_read_bytes_per_second),
            ("memory_write_bytes_per_second", self.memory_write_bytes_per_second),
            ("memory_latency_nanos", self.memory_latency_nanos),
            ("launch_nanos", self.launch_nanos),
            ("upload_bytes_per_second", self.upload_bytes_per_second),
            ("download_bytes_per_second", self.download_bytes_per_second),
            ("sustained_first_flops", self.sustained_first_flops),
            ("sustained_last_flops", self.sustained_last_flops),
            ("memory_bytes_found", memory_bytes_found),
        ];
        all.into_iter().filter_map(|(name, figure)| Some((name, figure?)))
    }
}

/// Figures of processor, memory and disk. One that is absent was not measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostFigures {
    /// Threads that may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_threads: Option<u32>,
    /// The vectors with which the processor was measured, for people: `AVX2 with FMA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_vectors: Option<String>,
    /// 32-bit integer multiply-add on all threads that may be used, operations per second (a product with its sum counts two).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_int32_ops: Option<f64>,
    /// The same on one thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_int32_ops_one_thread: Option<f64>,
    /// fp32 multiply-add on all threads, floating-point operations per second (a product with its sum counts two).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_fp32_flops: Option<f64>,
    /// The same on one thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_fp32_flops_one_thread: Option<f64>,
    /// fp64 multiply-add on all threads, floating-point operations per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_fp64_flops: Option<f64>,
    /// The same on one thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_fp64_flops_one_thread: Option<f64>,
    /// Memory read by all threads, bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_read_bytes_per_second: Option<f64>,
    /// Memory written by all threads, bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_write_bytes_per_second: Option<f64>,
    /// STREAM's triad by all threads, bytes per second (24 for a sum).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_triad_bytes_per_second: Option<f64>,
    /// Disk read in a row, past the system's cache, bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_read_bytes_per_second: Option<f64>,
    /// Disk written in a row, past the system's cache and until it is there, bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_write_bytes_per_second: Option<f64>,
    /// Reads of 4 KiB here and there, one at a time, per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_reads_per_second: Option<f64>,
    /// Writes of 4 KiB here and there, one at a time, per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_writes_per_second: Option<f64>,
}

impl HostFigures {
    /// Whether nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Those figures that are there, with their names.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [
            ("cpu_int32_ops", self.cpu_int32_ops),
            ("cpu_int32_ops_one_thread", self.cpu_int32_ops_one_thread),
            ("cpu_fp32_flops", self.cpu_fp32_flops),
            ("cpu_fp32_flops_one_thread", self.cpu_fp32_flops_one_thread),
            ("cpu_fp64_flops", self.cpu_fp64_flops),
            ("cpu_fp64_flops_one_thread", self.cpu_fp64_flops_one_thread),
            ("memory_read_bytes_per_second", self.memory_read_bytes_per_second),
            ("memory_write_bytes_per_second", self.memory_write_bytes_per_second),
            ("memory_triad_bytes_per_second", self.memory_triad_bytes_per_second),
            ("disk_read_bytes_per_second", self.disk_read_bytes_per_second),
            ("disk_write_bytes_per_second", self.disk_write_bytes_per_second),
            ("disk_reads_per_second", self.disk_reads_per_second),
            ("disk_writes_per_second", self.disk_writes_per_second),
        ];
        all.into_iter().filter_map(|(name, figure)| Some((name, figure?)))
    }
}
