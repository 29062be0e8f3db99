//! Driver of the matrix products: `shaders/matmul_fp32.wgsl` and `matmul_fp16.wgsl`.

use std::time::Duration;

use super::device::{Device, Kernel, Shader, workgroups};
use super::{Budget, KernelError, figure};
use crate::bench::timing;
use crate::bench::twins::{matmul_fp16, matmul_fp32};

const SEED_A: u32 = 1;
const SEED_B: u32 = 0x4000_0000;
/// Size that is compared with the twin in full, and the smallest that is timed.
const N_MIN: u32 = 256;
const N_MAX: u32 = 4096;
/// A product that takes this long is large enough; the next size would take eight times as long.
const LONG_ENOUGH: Duration = Duration::from_millis(4);
/// Elements of the timed product compared with the twin.
const ELEMENTS_CHECKED: u32 = 64;

/// An entry point, and rows of C per workgroup.
const VARIANTS: [(&str, u32); 2] = [("block4", 64), ("block8", 128)];

/// A way to multiply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    name: &'static str,
    pub(super) source: &'static str,
    /// Of an element of A and B; C is in fp32.
    element_bytes: u64,
    /// What the adapter must be able to do.
    needs: wgpu::Features,
    /// An element of the product, and how far the kernel's may be from it.
    element: fn(n: u32, seed_a: u32, seed_b: u32, row: u32, column: u32) -> (f64, f64),
}

/// All in fp32.
pub(super) const FP32: Product = Product {
    name: "fp32 matrix product",
    source: include_str!("../shaders/matmul_fp32.wgsl"),
    element_bytes: 4,
    needs: wgpu::Features::empty(),
    element: matmul_fp32::product_element,
};

/// Factors in fp16, the product in fp32.
pub(super) const FP16: Product = Product {
    name: "fp16 matrix product",
    source: include_str!("../shaders/matmul_fp16.wgsl"),
    element_bytes: 2,
    needs: wgpu::Features::SHADER_F16,
    element: matmul_fp16::product_element,
};

/// Three matrices of one size.
struct Matrices<'a> {
    product: &'a Product,
    n: u32,
    parameters: wgpu::Buffer,
    a: wgpu::Buffer,
    b: wgpu::Buffer,
    c: wgpu::Buffer,
}

/// Floating-point operations per second (2 n³ per product) of the best variant, at the smallest size that keeps the adapter busy;
/// nothing where the adapter lacks what the kernel needs.
pub(super) fn measure(device: &Device, budget: Budget, product: &Product) -> Result<Option<f64>, KernelError> {
    if device.has(product.needs) { measure_best(device, budget, product).map(Some) } else { Ok(None) }
}

fn measure_best(device: &Device, budget: Budget, product: &Product) -> Result<f64, KernelError> {
    let shader = device.shader(product.source)?;
    let small = Matrices::new(product, device, &shader, N_MIN, true)?;
    let mut best: Option<(Duration, usize)> = None;
    for (index, variant) in VARIANTS.into_iter().enumerate() {
        let kernel = small.kernel(device, &shader, variant)?;
        small.multiply(device, &kernel, variant, 1)?;
        small.check_all(device, variant)?;
        let took = small.multiply(device, &kernel, variant, 1)?;
        if best.is_none_or(|(least, _)| took < least) {
            best = Some((took, index));
        }
    }
    let (took, _) = best.ok_or(KernelError::NoTime { kernel: product.name })?;
    let matrices = large_enough(product, device, &shader, took)?;
    best_of_variants(device, &shader, &matrices, budget)
}

/// Matrices whose product takes [`LONG_ENOUGH`], given how long the smallest takes.
fn large_enough<'a>(
    product: &'a Product,
    device: &Device,
    shader: &Shader,
    smallest_took: Duration,
) -> Result<Matrices<'a>, KernelError> {
    let (mut n, mut took) = (N_MIN, smallest_took);
    let mut matrices = Matrices::new(product, device, shader, n, false)?;
    while n < N_MAX && took < LONG_ENOUGH {
        n *= 2;
        matrices = match Matrices::new(product, device, shader, n, false) {
            Ok(larger) => larger,
            Err(KernelError::OutOfMemory { .. }) => break,
            Err(error) => return Err(error),
        };
        let kernel = matrices.kernel(device, shader, VARIANTS[0])?;
        took = matrices.multiply(device, &kernel, VARIANTS[0], 1)?;
    }
    Ok(matrices)
}

fn best_of_variants(
    device: &Device,
    shader: &Shader,
    matrices: &Matrices<'_>,
    budget: Budget,
) -> Result<f64, KernelError> {
    let mut best: Option<(f64, Kernel, (&str, u32))> = None;
    for variant in VARIANTS {
        let kernel = matrices.kernel(device, shader, variant)?;
        let flops = matrices.flops(device, &kernel, variant, budget.variant)?;
        if best.as_ref().is_none_or(|(most, ..)| flops > *most) {
            best = Some((flops, kernel, variant));
        }
    }
    let (probed, kernel, variant) = best.ok_or(KernelError::NoTime { kernel: matrices.product.name })?;
    let flops = matrices.flops(device, &kernel, variant, budget.kernel)?;
    matrices.check_some(device)?;
    Ok(flops.max(probed))
}

impl<'a> Matrices<'a> {
    /// Makes and fills A and B; whole numbers for an exact comparison, full mantissas for timing.
    fn new(product: &'a Product, device: &Device, shader: &Shader, n: u32, whole: bool) -> Result<Self, KernelError> {
        let elements = u64::from(n) * u64::from(n);
        let bytes = elements * product.element_bytes;
        if elements * 4 > device.buffer_bytes_max {
            return Err(KernelError::OutOfMemory { bytes: elements * 4 });
        }
        let matrices = Self {
            product,
            n,
            parameters: device.parameters([n, 0, u32::from(whole), 0])?,
            a: device.storage(bytes)?,
            b: device.storage(bytes)?,
            c: device.storage(elements * 4)?,
        };
        for (matrix, seed) in [(&matrices.a, SEED_A), (&matrices.b, SEED_B)] {
            let parameters = device.parameters([n, seed, u32::from(whole), 0])?;
            let fill = device.kernel(shader, "fill", &[(0, &parameters), (4, matrix)])?;
            device.run(&fill, workgroups(elements), 1)?;
        }
        Ok(matrices)
    }

    fn kernel(&self, device: &Device, shader: &Shader, variant: (&str, u32)) -> Result<Kernel, KernelError> {
        let buffers = [(0, &self.parameters), (1, &self.a), (2, &self.b), (3, &self.c)];
        device.kernel(shader, variant.0, &buffers)
    }

    fn multiply(
        &self,
        device: &Device,
        kernel: &Kernel,
        variant: (&str, u32),
        times: u64,
    ) -> Result<Duration, KernelError> {
        device.run(kernel, (self.n / variant.1, self.n / variant.1), times)
    }

    fn flops(
        &self,
        device: &Device,
        kernel: &Kernel,
        variant: (&str, u32),
        time: Duration,
    ) -> Result<f64, KernelError> {
        let products_per_second = timing::rate(time, 1 << 16, |times| self.multiply(device, kernel, variant, times))?;
        figure(self.product.name, products_per_second.map(|products| products * 2.0 * f64::from(self.n).powi(3)))
    }

    /// Compares every element of a product of whole numbers with the twin's, exactly.
    fn check_all(&self, device: &Device, variant: (&str, u32)) -> Result<(), KernelError> {
        let bytes = device.read(&self.c, 0, u64::from(self.n) * u64::from(self.n) * 4)?;
        let found: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        let wanted = matmul_fp32::whole_product(self.n, SEED_A, SEED_B);
        for (index, (found, wanted)) in found.into_iter().zip(wanted).enumerate() {
            let (found, wanted) = (f64::from(found), f64::from(wanted));
            if found != wanted {
                let detail = format!("{}, element {index} is {found}, not {wanted}", variant.0);
                return Err(KernelError::Wrong { kernel: self.product.name, detail });
            }
        }
        Ok(())
    }

    /// Compares some elements of the timed product with the twin's, within the rounding of fp32.
    fn check_some(&self, device: &Device) -> Result<(), KernelError> {
        let last = self.n - 1;
        for number in 0..ELEMENTS_CHECKED {
            // The corners, then elements all over.
            let (row, column) = match number {
                0 => (0, 0),
                1 => (last, last),
                2 => (0, last),
                3 => (last, 0),
                other => (other.wrapping_mul(2_654_435_761) % self.n, other.wrapping_mul(40_503) % self.n),
            };
            let offset = (u64::from(row) * u64::from(self.n) + u64::from(column)) * 4;
            let found: Vec<f32> = bytemuck::pod_collect_to_vec(&device.read(&self.c, offset, 4)?);
            let found = found.first().copied().map_or(f64::NAN, f64::from);
            if !found.is_finite() {
                return Err(KernelError::NoNumber { kernel: self.product.name, found });
            }
            let (wanted, bound) = (self.product.element)(self.n, SEED_A, SEED_B, row, column);
            if (found - wanted).abs() > bound {
                let detail = format!("row {row}, column {column} is {found}, not {wanted}");
                return Err(KernelError::Wrong { kernel: self.product.name, detail });
            }
        }
        Ok(())
    }
}
