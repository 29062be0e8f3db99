//! Kernels against their twins on the adapters of this machine, and the shaders as text.

use wgpu::naga;

use super::chains::Chains;
use super::matmul::Product;
use super::memory::Traffic;
use super::*;

fn adapters() -> Vec<Adapter> {
    let adapters = gpu::list();
    assert!(!adapters.is_empty(), "{}", gpu::none_found());
    adapters
}

#[test]
fn every_shader_is_valid_wgsl_with_the_entry_points_its_driver_uses() {
    const OF_CHAINS: &[&str] = &["chains1", "chains2", "chains4"];
    let shaders = [
        (chains::FP32.source, ["chains1", "chains2", "chains4", "chains8"].as_slice()),
        (chains::FP16.source, OF_CHAINS),
        (chains::INT32.source, OF_CHAINS),
        (chains::INT8_DOT.source, OF_CHAINS),
        (memory::COPY.source, &["fill", "copy1", "copy4"]),
        (memory::READ.source, &["read4", "read16"]),
        (memory::WRITE.source, &["write1", "write4"]),
        (matmul::FP32.source, &["fill", "block4", "block8"]),
        (matmul::FP16.source, &["fill", "block4", "block8"]),
        (latency::LOAD, &["fill", "follow"]),
        (latency::LAUNCH, &["count"]),
        (product_int8::SOURCE, &["product", "hash"]),
    ];
    for (source, entry_points) in shaders {
        let module =
            naga::front::wgsl::parse_str(source).unwrap_or_else(|error| panic!("{}", error.emit_to_string(source)));
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::SHADER_FLOAT16)
            .validate(&module)
            .unwrap();
        let found: Vec<&str> = module.entry_points.iter().map(|entry_point| entry_point.name.as_str()).collect();
        assert_eq!(found, entry_points);
        for entry_point in &module.entry_points {
            assert_eq!(entry_point.workgroup_size.iter().product::<u32>(), 256, "{}", entry_point.name);
        }
    }
}

#[test]
fn workgroups_are_spread_within_the_limit_of_a_dimension() {
    assert_eq!(device::spread(1), (1, 1));
    assert_eq!(device::spread(1 << 15), (1 << 15, 1));
    assert_eq!(device::spread(1 << 17), (1 << 15, 4));
    assert_eq!(device::workgroups(1 << 20), (1 << 12, 1));
}

#[test]
fn a_lost_adapter_is_a_problem_without_figures_and_is_not_offered() {
    let (mut measured, mut problems) = (Measured::default(), Vec::new());
    record(card(), Err(KernelError::Lost("reset".into())), &mut measured, &mut problems);
    assert!(measured.results.is_empty());
    assert!(!measured.gpus[0].kind.is_hardware());
    assert_eq!(problems, ["Example (vulkan) was not measured: the adapter was lost: reset"]);
}

#[test]
fn an_adapter_that_computes_wrongly_is_reported_unverified_without_figures() {
    let (mut measured, mut problems) = (Measured::default(), Vec::new());
    let wrong = KernelError::Wrong { kernel: "fp32 FMA", detail: "chain 3 is 1, not 2".into() };
    record(card(), Err(wrong), &mut measured, &mut problems);
    assert!(!measured.results[0].verified);
    assert_eq!((measured.results[0].score, measured.results[0].fp32_flops), (0, 0.0));
    assert!(!measured.gpus[0].kind.is_hardware());
    assert!(problems[0].contains("computed wrongly"), "{problems:?}");
}

#[test]
fn nan_and_infinity_are_errors_never_figures() {
    for bad in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
        assert!(figure("x", Some(bad)).is_err(), "{bad}");
    }
    assert!(figure("x", None).is_err());
    assert!(figure("x", Some(1.0)).is_ok());
}

const SHORT: Budget = Budget { kernel: Duration::from_millis(1), variant: Duration::from_millis(1) };

#[test]
#[ignore = "needs a Vulkan adapter"]
fn every_kernel_agrees_with_its_twin_on_every_adapter() {
    for adapter in adapters() {
        let device = Device::open(&adapter, &Clock::system()).unwrap();
        let mut figures = Figures::default();
        for step in steps(false) {
            (step.run)(&device, SHORT, &mut figures).unwrap_or_else(|error| panic!("{}: {error}", step.what));
        }
        let without_f16 = if device.has(wgpu::Features::SHADER_F16) { 0 } else { 2 };
        let without_memory = if figures.more.memory_bytes_found.is_none() { 1 } else { 0 };
        // A transfer has two figures, and challenges are sized by one that is no part of the score.
        assert_eq!(
            figures.more.figures().count(),
            STEPS_BESIDES.len() + 2 - without_f16 - without_memory,
            "{figures:?}"
        );
        assert!(figures.more.figures().all(|(_, figure)| figure > 0.1), "{figures:?}");
    }
}

#[test]
#[ignore = "needs a Vulkan adapter"]
fn a_challenge_has_the_same_root_and_answers_on_every_adapter_as_on_the_processor() {
    use crate::proof::generator::Seed;
    use crate::proof::product::Product;
    use crate::proof::{Size, field};
    for adapter in adapters() {
        for n in [256, 768, 1280] {
            let (size, seed) = (Size::try_from(n).unwrap(), Seed::from_bytes([n.to_le_bytes()[0]; 32]));
            let mut ready = product_int8::ProductInt8::prepare(&adapter, &Clock::system(), size).unwrap();
            let expected = Product::compute(&seed, size, 2);
            assert_eq!(ready.compute(&seed).unwrap(), expected.root(), "{} at {n}", adapter.gpu.name);
            assert_eq!(ready.times(&[8; 32]).unwrap(), expected.times(&[8; 32]));
            for row in [0, 129, n - 1] {
                let (elements, path) = ready.open(row).unwrap();
                assert_eq!(elements, expected.row(row as usize));
                assert_eq!(path, expected.path(row as usize));
                assert_eq!(
                    field::dot(&elements, &field::vector(&[8; 32], size.rows())),
                    expected.times(&[8; 32])[row as usize]
                );
            }
            assert!(ready.open(n).is_err());
        }
    }
}

/// A shader's source with one thing in it changed, the last time it occurs.
fn with_a_mistake(source: &str, right: &str, wrong: &str) -> &'static str {
    let at = source.rfind(right).unwrap();
    Box::leak(format!("{}{wrong}{}", &source[..at], &source[at + right.len()..]).into_boxed_str())
}

fn of_chains(chains: Chains, source: &'static str) -> Chains {
    let mut changed = chains;
    changed.source = source;
    changed
}

fn of_traffic(traffic: Traffic, source: &'static str) -> Traffic {
    let mut changed = traffic;
    changed.source = source;
    changed
}

fn of_product(product: Product, source: &'static str) -> Product {
    let mut changed = product;
    changed.source = source;
    changed
}

#[test]
#[ignore = "needs a Vulkan adapter"]
fn a_kernel_with_a_mistake_is_found_wrong() {
    type Measure = fn(&Device, &'static str) -> Result<(), KernelError>;
    let fp32: Measure = |device, source| chains::measure(device, SHORT, &of_chains(chains::FP32, source)).map(drop);
    let fp16: Measure = |device, source| chains::measure(device, SHORT, &of_chains(chains::FP16, source)).map(drop);
    let int32: Measure = |device, source| chains::measure(device, SHORT, &of_chains(chains::INT32, source)).map(drop);
    let int8: Measure = |device, source| chains::measure(device, SHORT, &of_chains(chains::INT8_DOT, source)).map(drop);
    let copy: Measure = |device, source| memory::measure(device, SHORT, &of_traffic(memory::COPY, source)).map(drop);
    let read: Measure = |device, source| memory::measure(device, SHORT, &of_traffic(memory::READ, source)).map(drop);
    let write: Measure = |device, source| memory::measure(device, SHORT, &of_traffic(memory::WRITE, source)).map(drop);
    let product: Measure = |device, source| matmul::measure(device, SHORT, &of_product(matmul::FP32, source)).map(drop);
    let half: Measure = |device, source| matmul::measure(device, SHORT, &of_product(matmul::FP16, source)).map(drop);
    let load: Measure = |device, source| latency::load(device, SHORT, source).map(drop);
    let launch: Measure = |device, source| latency::launch(device, SHORT, source).map(drop);
    let mistakes: [(&str, Measure, &str, &str, &str); 14] = [
        // One link of 128 left out, in the last variant.
        ("a link", fp32, chains::FP32.source, "y = fma(y, y, d);", ""),
        ("a store", fp32, chains::FP32.source, "results[chain + 7u] = p.y.w;", ""),
        ("a half link", fp16, chains::FP16.source, "x = fma(x, x, c);", ""),
        ("a whole link", int32, chains::INT32.source, "x = x * x + x;", ""),
        ("a start", int8, chains::INT8_DOT.source, "s3.x)", "s2.x)"),
        ("a dot product", int8, chains::INT8_DOT.source, "dot4I8Packed(x, x)", "bitcast<i32>(dot4U8Packed(x, x))"),
        ("a quarter", copy, memory::COPY.source, "copied[i + 768u] = v3 ^ key;", ""),
        ("a read", read, memory::READ.source, "i + 3072u", "i + 2048u"),
        ("a write", write, memory::WRITE.source, "written[i + 768u] = value(i + 768u);", ""),
        ("a column", product, matmul::FP32.source, "vec4(ahi.w), bhi", "vec4(ahi.w), blo"),
        ("a depth", product, matmul::FP32.source, "k < 8u", "k < 7u"),
        ("a tile", half, matmul::FP16.source, "acc7h += vec4<f32>(sum7h);", ""),
        ("a step", load, latency::LOAD, "step < params.steps", "step < params.steps - 1u"),
        ("a count", launch, latency::LAUNCH, "+= 1u", "+= 2u"),
    ];
    for adapter in adapters() {
        let device = Device::open(&adapter, &Clock::system()).unwrap();
        for (what, measure, source, right, wrong) in mistakes {
            let result = measure(&device, with_a_mistake(source, right, wrong));
            assert!(matches!(result, Err(KernelError::Wrong { .. })), "{what}: {result:?}");
        }
    }
}

#[test]
#[ignore = "needs a Vulkan adapter"]
fn a_kernel_that_overflows_gives_no_figure() {
    let source = with_a_mistake(chains::FP32.source, "x = links16(x, seed.y);", "x = links16(x, 3.0);");
    for adapter in adapters() {
        let device = Device::open(&adapter, &Clock::system()).unwrap();
        let result = chains::measure(&device, SHORT, &of_chains(chains::FP32, source));
        assert!(matches!(result, Err(KernelError::Wrong { .. } | KernelError::NoNumber { .. })), "{result:?}");
    }
}

#[test]
#[ignore = "needs a Vulkan adapter"]
fn a_walk_of_full_length_ends_where_its_twin_does() {
    let budget = Budget { kernel: Duration::from_millis(60), variant: Duration::ZERO };
    for adapter in adapters() {
        let device = Device::open(&adapter, &Clock::system()).unwrap();
        assert!(latency::load(&device, budget, latency::LOAD).unwrap() > 0.1);
    }
}

#[test]
#[ignore = "needs a Vulkan adapter"]
fn memory_is_found_by_filling_and_shared_memory_is_left_alone() {
    let bounds = vram::Bounds { buffer_bytes: 16 << 20, bytes_max: 70 << 20, time_max: Duration::from_secs(30) };
    for adapter in adapters() {
        let device = Device::open(&adapter, &Clock::system()).unwrap();
        assert_eq!(vram::find(&device, bounds).unwrap(), 64 << 20);
        // No memory at all is no figure of zero.
        let none = vram::find(&device, vram::Bounds { bytes_max: 0, ..bounds });
        assert!(matches!(none, Err(KernelError::OutOfMemory { .. })), "{none:?}");
        let too_slow = vram::find(&device, vram::Bounds { time_max: Duration::ZERO, ..bounds });
        assert!(matches!(too_slow, Err(KernelError::Refused(_))), "{too_slow:?}");
        if adapter.gpu.kind == GpuKind::Software {
            assert_eq!(vram::measure(&device, bounds).unwrap(), None);
        }
    }
}

#[test]
#[ignore = "needs a Vulkan adapter"]
fn a_buffer_beyond_the_limits_is_an_error_and_the_adapter_goes_on() {
    for adapter in adapters() {
        let device = Device::open(&adapter, &Clock::system()).unwrap();
        device.storage(1 << 60).unwrap_err();
        device.storage(1 << 10).unwrap();
    }
}

#[test]
#[ignore = "needs a Vulkan adapter"]
fn a_shader_that_does_not_compile_is_an_error_and_the_adapter_goes_on() {
    for adapter in adapters() {
        let device = Device::open(&adapter, &Clock::system()).unwrap();
        device.shader("this is no WGSL").unwrap_err();
        device.shader(chains::FP32.source).unwrap();
    }
}

#[test]
#[ignore = "needs a Vulkan adapter"]
fn software_adapters_are_measured_and_labelled() {
    let (mut problems, mut steps) = (Vec::new(), Vec::new());
    let options = BenchOptions { quick: true, list_only: false, sustain: Some(Duration::from_secs(4)) };
    let measured = measure_all(options, &Clock::system(), &mut |step| steps.push(step), &mut problems);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(measured.results.len(), measured.gpus.len());
    for (result, gpu) in measured.results.iter().zip(&measured.gpus) {
        assert!(result.verified && result.score >= 1);
        assert!(result.more.sustained_first_flops.unwrap() > 1e6 && result.more.sustained_last_flops.unwrap() > 1e6);
        assert_eq!(result.kind, gpu.kind);
        if gpu.name.contains("llvmpipe") {
            assert_eq!(gpu.kind, GpuKind::Software);
        }
    }
    let last = steps.last().unwrap();
    assert_eq!(last.steps_done, last.steps_total);
}

fn card() -> Gpu {
    Gpu {
        name: "Example".into(),
        vendor: "amd".into(),
        kind: GpuKind::Discrete,
        backend: "vulkan".into(),
        driver: "x".into(),
        pci_address: None,
        uuid: None,
    }
}
