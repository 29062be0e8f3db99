//! One opened adapter: buffers, pipelines, timed batches, readback.
//!
//! Invariants
//! - Every fault the driver reports (lost device, memory, validation) surfaces as an error of the next call, none is skipped.
//! - Every wait has a deadline.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::KernelError;
use crate::bench::timing;
use crate::clock::{Clock, Steady};
use crate::hardware::gpu::Adapter;
use crate::wire::node::GpuKind;

/// Longest wait for one batch; batches are made to last 25 ms.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// Invocations of a workgroup in all our kernels.
const WORKGROUP: u32 = 256;

/// An adapter that computes.
#[derive(Debug)]
pub(in crate::bench) struct Device {
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// First fault reported since it was last looked at.
    fault: Arc<Mutex<Option<KernelError>>>,
    stopwatch: Option<Stopwatch>,
    clock: Clock,
    pub(super) kind: GpuKind,
    /// Largest buffer a kernel can use, in bytes.
    pub(super) buffer_bytes_max: u64,
}

/// Timestamps written by the device around a batch.
#[derive(Debug)]
struct Stopwatch {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
    nanos_per_tick: f64,
}

/// A shader, from its source; one module gives several pipelines.
#[derive(Debug)]
pub(super) struct Shader(wgpu::ShaderModule);

/// An entry point with its buffers, ready to be dispatched.
#[derive(Debug)]
pub(super) struct Kernel {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
}

impl Device {
    /// Opens an adapter with all it can do.
    pub(super) fn open(adapter: &Adapter, clock: &Clock) -> Result<Self, KernelError> {
        let limits = adapter.handle.limits();
        let features = adapter.handle.features() & (wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SHADER_F16);
        let timestamps = features & wgpu::Features::TIMESTAMP_QUERY;
        let descriptor = wgpu::DeviceDescriptor {
            label: None,
            required_features: features,
            required_limits: limits.clone(),
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(adapter.handle.request_device(&descriptor))
            .map_err(|error| KernelError::Open(error.to_string()))?;
        let fault = Arc::new(Mutex::new(None));
        watch(&device, &fault);
        let stopwatch = (!timestamps.is_empty()).then(|| Stopwatch::new(&device, &queue));
        let buffer_bytes_max = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size);
        let opened =
            Self { device, queue, fault, stopwatch, clock: clock.clone(), kind: adapter.gpu.kind, buffer_bytes_max };
        opened.check()?;
        Ok(opened)
    }

    /// The time, for work of several batches.
    pub(super) fn now(&self) -> Steady {
        self.clock.steady()
    }

    /// Whether the adapter can do this.
    pub(super) fn has(&self, features: wgpu::Features) -> bool {
        self.device.features().contains(features)
    }

    /// Compiles a shader of ours, without bounds checks: they would be measured too.
    pub(super) fn shader(&self, source: &'static str) -> Result<Shader, KernelError> {
        let descriptor = wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(source.into()) };
        // SAFETY: the sources are constants of this crate whose loops end, and which index only inside the buffers that
        // the callers in this folder make to fit their dispatches.
        let module =
            unsafe { self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
        self.check()?;
        Ok(Shader(module))
    }

    /// An entry point with its buffers at their binding numbers.
    pub(super) fn kernel(
        &self,
        shader: &Shader,
        entry_point: &str,
        buffers: &[(u32, &wgpu::Buffer)],
    ) -> Result<Kernel, KernelError> {
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &shader.0,
            entry_point: Some(entry_point),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Kernels write what they read; clearing workgroup memory first would be measured too.
                zero_initialize_workgroup_memory: false,
                ..wgpu::PipelineCompilationOptions::default()
            },
            cache: None,
        });
        self.check()?;
        let entries: Vec<wgpu::BindGroupEntry<'_>> = buffers
            .iter()
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding: *binding, resource: buffer.as_entire_binding() })
            .collect();
        let bindings = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        self.check()?;
        Ok(Kernel { pipeline, bindings })
    }

    /// A buffer for kernels to read and write.
    pub(super) fn storage(&self, bytes: u64) -> Result<wgpu::Buffer, KernelError> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        self.buffer(bytes, usage)
    }

    /// A buffer of parameters, four words long.
    pub(super) fn parameters(&self, words: [u32; 4]) -> Result<wgpu::Buffer, KernelError> {
        let buffer = self.buffer(16, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)?;
        self.write(&buffer, bytemuck::cast_slice(&words));
        Ok(buffer)
    }

    /// Writes to the start of a buffer, before the next batch.
    pub(super) fn write(&self, buffer: &wgpu::Buffer, bytes: &[u8]) {
        self.queue.write_buffer(buffer, 0, bytes);
    }

    /// Dispatches `workgroups` of a kernel `times` in a row as one batch, waits, and says how long it took.
    pub(super) fn run(&self, kernel: &Kernel, workgroups: (u32, u32), times: u64) -> Result<Duration, KernelError> {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let timestamp_writes = self.stopwatch.as_ref().map(Stopwatch::writes);
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        pass.set_pipeline(&kernel.pipeline);
        pass.set_bind_group(0, &kernel.bindings, &[]);
        for _ in 0..times {
            pass.dispatch_workgroups(workgroups.0, workgroups.1, 1);
        }
        drop(pass);
        if let Some(stopwatch) = &self.stopwatch {
            stopwatch.resolve(&mut encoder);
        }
        let commands = encoder.finish();
        let before = self.clock.steady();
        self.submit(commands)?;
        let wall = self.clock.steady().since(before);
        let device = match &self.stopwatch {
            Some(stopwatch) => stopwatch.read(&self.mapped(&stopwatch.readable)?),
            None => None,
        };
        Ok(timing::settle(wall, device))
    }

    /// Dispatches one workgroup, and says how long it took until its end was known here.
    pub(super) fn round_trip(&self, kernel: &Kernel) -> Result<Duration, KernelError> {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&kernel.pipeline);
        pass.set_bind_group(0, &kernel.bindings, &[]);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        self.timed(encoder)
    }

    /// Copies all of a buffer to another `times` in a row, and says how long it took until its end was known here.
    pub(super) fn copy(
        &self,
        from: &wgpu::Buffer,
        to: &wgpu::Buffer,
        bytes: u64,
        times: u64,
    ) -> Result<Duration, KernelError> {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for _ in 0..times {
            encoder.copy_buffer_to_buffer(from, 0, to, 0, bytes);
        }
        self.timed(encoder)
    }

    fn timed(&self, encoder: wgpu::CommandEncoder) -> Result<Duration, KernelError> {
        let commands = encoder.finish();
        let before = self.clock.steady();
        self.submit(commands)?;
        Ok(self.clock.steady().since(before))
    }

    /// A buffer in memory that the processor writes, with these bytes.
    pub(super) fn filled_by_host(&self, bytes: &[u8]) -> Result<wgpu::Buffer, KernelError> {
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let buffer = self.buffer(bytes.len() as u64, usage)?;
        self.map(&buffer, wgpu::MapMode::Write)?;
        let mut range = buffer.get_mapped_range_mut(..).map_err(|error| KernelError::Refused(error.to_string()))?;
        range.copy_from_slice(bytes);
        drop(range);
        buffer.unmap();
        Ok(buffer)
    }

    /// A buffer in memory that the processor reads.
    pub(super) fn readable(&self, bytes: u64) -> Result<wgpu::Buffer, KernelError> {
        self.buffer(bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)
    }

    /// Reads some bytes of a buffer; `offset` and `bytes` are multiples of four.
    pub(super) fn read(&self, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>, KernelError> {
        let readable = self.readable(bytes)?;
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer, offset, &readable, 0, bytes);
        self.submit(encoder.finish())?;
        self.mapped(&readable)
    }

    fn buffer(&self, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer, KernelError> {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let descriptor = wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false };
        let buffer = self.device.create_buffer(&descriptor);
        if pollster::block_on(scope.pop()).is_some() {
            return Err(KernelError::OutOfMemory { bytes });
        }
        self.check()?;
        Ok(buffer)
    }

    fn submit(&self, commands: wgpu::CommandBuffer) -> Result<(), KernelError> {
        let submission = self.queue.submit([commands]);
        self.wait(Some(submission))
    }

    fn wait(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<(), KernelError> {
        let waited = self.device.poll(wgpu::PollType::Wait { submission_index, timeout: Some(WAIT_MAX) });
        self.check()?;
        match waited {
            Ok(_) => Ok(()),
            Err(wgpu::PollError::Timeout) => Err(KernelError::Hung { seconds: WAIT_MAX.as_secs() }),
            Err(error @ wgpu::PollError::WrongSubmissionIndex(..)) => Err(KernelError::Refused(error.to_string())),
        }
    }

    /// All bytes of a buffer that the processor reads.
    pub(super) fn mapped(&self, buffer: &wgpu::Buffer) -> Result<Vec<u8>, KernelError> {
        self.map(buffer, wgpu::MapMode::Read)?;
        let bytes = buffer.get_mapped_range(..).map_err(|error| KernelError::Refused(error.to_string()))?.to_vec();
        buffer.unmap();
        Ok(bytes)
    }

    fn map(&self, buffer: &wgpu::Buffer, mode: wgpu::MapMode) -> Result<(), KernelError> {
        let (answer, answered) = std::sync::mpsc::channel();
        buffer.map_async(mode, .., move |result| {
            // Nobody listens any more only when waiting failed, which is reported there.
            let _ = answer.send(result);
        });
        self.wait(None)?;
        match answered.try_recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(KernelError::Refused(error.to_string())),
            Err(_) => Err(KernelError::Refused("a buffer could not be read".to_owned())),
        }
    }

    /// The first fault since the last look.
    fn check(&self) -> Result<(), KernelError> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// Splits a number of workgroups, a power of two, over two dimensions: each may have 65535 at most.
pub(super) fn spread(workgroups: u64) -> (u32, u32) {
    let x = workgroups.clamp(1, 1 << 15);
    (u32::try_from(x).unwrap_or(1 << 15), u32::try_from(workgroups / x).unwrap_or(u32::MAX).max(1))
}

/// Workgroups for so many invocations, a power of two.
pub(super) fn workgroups(invocations: u64) -> (u32, u32) {
    spread(invocations / u64::from(WORKGROUP))
}

/// Remembers the first fault of a device.
fn watch(device: &wgpu::Device, fault: &Arc<Mutex<Option<KernelError>>>) {
    let remember = |fault: &Mutex<Option<KernelError>>, error: KernelError| {
        fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    };
    let of_device = Arc::clone(fault);
    device.set_device_lost_callback(move |reason, message| {
        if !matches!(reason, wgpu::DeviceLostReason::Destroyed) {
            remember(&of_device, KernelError::Lost(message));
        }
    });
    let of_calls = Arc::clone(fault);
    device.on_uncaptured_error(Arc::new(move |error| {
        let error = match error {
            wgpu::Error::OutOfMemory { .. } => KernelError::OutOfMemory { bytes: 0 },
            wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
                KernelError::Refused(description)
            }
        };
        remember(&of_calls, error);
    }));
}

impl Stopwatch {
    fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false })
        };
        Self {
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readable: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            nanos_per_tick: f64::from(queue.get_timestamp_period()),
        }
    }

    const fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }

    fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.queries, 0..2, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readable, 0, 16);
    }

    /// Time between the two timestamps; `None` when they make no sense.
    fn read(&self, bytes: &[u8]) -> Option<Duration> {
        let ticks = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
        let passed = ticks(bytes.get(8..16)?)?.checked_sub(ticks(bytes.get(..8)?)?)?;
        #[expect(clippy::cast_precision_loss, reason = "a batch is far shorter than 2^53 ticks")]
        let seconds = passed as f64 * self.nanos_per_tick / 1e9;
        Duration::try_from_secs_f64(seconds).ok()
    }
}
