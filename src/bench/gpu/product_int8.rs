//! Driver of `shaders/product_int8.wgsl`: the part of a challenge that a graphics adapter answers.
//!
//! Memory on the adapter: C (4·n² bytes) in bands and an eighth of a band for digests. C stays there until it is opened.

use std::borrow::Borrow;

use super::device::{Device, Kernel, spread};
use super::{Budget, KernelError, figure};
use crate::clock::Clock;
use crate::hardware::gpu::Adapter;
use crate::proof::generator::{Matrix, Seed};
use crate::proof::merkle::{Tree, row_digest_from_segments};
use crate::proof::product::Product;
use crate::proof::{SEGMENT, Size, field};
use crate::wire::Digest;

pub(super) const SOURCE: &str = include_str!("../shaders/product_int8.wgsl");
const NAME: &str = "challenge";
/// Rows of a workgroup's tile.
const TILE: u32 = 128;
/// Bands of C at most. Each is a dispatch of its own, so that none of a slow adapter's lasts long.
const BANDS_MAX: u32 = 32;
/// Bytes of a digest.
const DIGEST: usize = 32;

/// An adapter that is ready to compute: opened, compiled, with its memory.
#[derive(Debug)]
pub(in crate::bench) struct ProductInt8<D = Device> {
    device: D,
    size: Size,
    keys_a: wgpu::Buffer,
    keys_b: wgpu::Buffer,
    bands: Vec<Band>,
    tree: Option<Tree>,
}

/// Some rows of C.
#[derive(Debug)]
struct Band {
    rows: u32,
    elements: wgpu::Buffer,
    digests: wgpu::Buffer,
    product: Kernel,
    hash: Kernel,
}

/// Operations per second of the product at a size that takes a while, checked against its twin at the smallest.
pub(super) fn measure(opened: &Device, budget: Budget) -> Result<f64, KernelError> {
    let seed = Seed::from_bytes([1; 32]);
    let expected = Product::compute(&seed, Size::MIN, 1);
    let found = ProductInt8::on(opened, Size::MIN)?.compute(&seed)?;
    if found != expected.root() {
        return Err(KernelError::Wrong { kernel: NAME, detail: "the product of size 256 is another one".to_owned() });
    }
    let mut best: f64 = 0.0;
    for n in [512, 1024, 2048, 4096, 8192, 16_384] {
        let Ok(size) = Size::try_from(n) else { break };
        let mut ready = match ProductInt8::on(opened, size) {
            Err(KernelError::OutOfMemory { .. }) if best > 0.0 => break,
            ready => ready?,
        };
        let before = opened.now();
        ready.compute(&seed)?;
        let took = opened.now().since(before);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let rate = size.operations() as f64 / took.as_secs_f64();
        best = best.max(rate);
        if took > budget.kernel {
            break;
        }
    }
    figure(NAME, Some(best))
}

impl ProductInt8 {
    /// Opens the adapter and makes everything ready.
    pub(in crate::bench) fn prepare(adapter: &Adapter, clock: &Clock, size: Size) -> Result<Self, KernelError> {
        Self::on(Device::open(adapter, clock)?, size)
    }
}

impl<D: Borrow<Device>> ProductInt8<D> {
    /// Makes everything ready, and runs one band of nonsense, because drivers compile at the first run.
    fn on(opened: D, size: Size) -> Result<Self, KernelError> {
        let device = opened.borrow();
        let shader = device.shader(SOURCE)?;
        let keys = |count: u32| device.storage(u64::from(count) * 8);
        let (keys_a, keys_b) = (keys(size.get())?, keys(size.get() / 4)?);
        let constants = device.storage(64 * 4)?;
        device.write(&constants, bytemuck::cast_slice(&round_constants()));
        let rows_max = size.get().div_ceil(BANDS_MAX).next_multiple_of(TILE);
        let mut bands = Vec::new();
        for row_first in (0..size.get()).step_by(rows_max as usize) {
            let rows = rows_max.min(size.get() - row_first);
            let segments = rows * (size.get() / segment_len());
            let parameters = device.parameters([size.get(), row_first, segments, 0])?;
            let elements = device.storage(u64::from(rows) * u64::from(size.get()) * 4)?;
            let digests = device.storage(u64::from(segments) * DIGEST as u64)?;
            let for_product = [(0, &parameters), (1, &keys_a), (2, &keys_b), (3, &elements)];
            let product = device.kernel(&shader, "product", &for_product)?;
            let for_hash = [(0, &parameters), (4, &constants), (5, &elements), (6, &digests)];
            let hash = device.kernel(&shader, "hash", &for_hash)?;
            bands.push(Band { rows, elements, digests, product, hash });
        }
        let ready = Self { device: opened, size, keys_a, keys_b, bands, tree: None };
        if let Some(band) = ready.bands.first() {
            ready.run(band)?;
        }
        Ok(ready)
    }

    /// Computes the product and commits to it.
    pub(in crate::bench) fn compute(&mut self, seed: &Seed) -> Result<Digest, KernelError> {
        self.load_keys(&self.keys_a, seed, Matrix::A, self.size.get());
        self.load_keys(&self.keys_b, seed, Matrix::B, self.size.get() / 4);
        let mut rows = Vec::with_capacity(self.size.rows());
        for band in &self.bands {
            let digests = self.run(band)?;
            let of_row = self.size.rows() / SEGMENT * DIGEST;
            rows.extend(digests.chunks_exact(of_row).map(row_digest_from_segments));
        }
        let tree = Tree::new(rows);
        let root = tree.root();
        self.tree = Some(tree);
        Ok(root)
    }

    /// C·r for the vector of this seed. C comes over in bands.
    pub(in crate::bench) fn times(&self, vector_seed: &[u8; 32]) -> Result<Vec<u64>, KernelError> {
        let vector = field::vector(vector_seed, self.size.rows());
        let mut product = Vec::with_capacity(self.size.rows());
        for band in &self.bands {
            let bytes = self.device.borrow().read(&band.elements, 0, u64::from(band.rows) * self.row_bytes())?;
            let elements: Vec<i32> = bytemuck::pod_collect_to_vec(&bytes);
            product.extend(elements.chunks(self.size.rows()).map(|row| field::dot(row, &vector)));
        }
        Ok(product)
    }

    /// A row and its way to the root.
    pub(in crate::bench) fn open(&self, row: u32) -> Result<(Vec<i32>, Vec<Digest>), KernelError> {
        let rows_max = self.bands.first().map_or(1, |band| band.rows);
        let (Some(band), Some(tree)) = (self.bands.get((row / rows_max) as usize), &self.tree) else {
            return Err(KernelError::Refused(format!("there is no row {row} to open")));
        };
        let offset = u64::from(row % rows_max) * self.row_bytes();
        let bytes = self.device.borrow().read(&band.elements, offset, self.row_bytes())?;
        Ok((bytemuck::pod_collect_to_vec(&bytes), tree.path(row as usize)))
    }

    fn row_bytes(&self) -> u64 {
        u64::from(self.size.get()) * 4
    }

    fn load_keys(&self, buffer: &wgpu::Buffer, seed: &Seed, matrix: Matrix, count: u32) {
        let keys: Vec<[u32; 2]> = (0..count)
            .map(|index| {
                let key = seed.key(matrix, index);
                [key.first, key.second]
            })
            .collect();
        self.device.borrow().write(buffer, bytemuck::cast_slice(&keys));
    }

    /// One band: its elements, then the digests of its segments as bytes.
    fn run(&self, band: &Band) -> Result<Vec<u8>, KernelError> {
        self.device.borrow().run(&band.product, (self.size.get() / TILE, band.rows / TILE), 1)?;
        let segments = u64::from(band.rows * (self.size.get() / segment_len()));
        // Invocations past the last segment do nothing.
        self.device.borrow().run(&band.hash, spread(segments.div_ceil(256).next_power_of_two()), 1)?;
        let bytes = self.device.borrow().read(&band.digests, 0, segments * DIGEST as u64)?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
        Ok(words.into_iter().flat_map(u32::to_be_bytes).collect())
    }
}

const fn segment_len() -> u32 {
    256
}

/// SHA-256's constants: the fractions of the cube roots of the first 64 primes, in 32 bits.
fn round_constants() -> Vec<u32> {
    let primes = (2u128..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d))).take(64);
    primes.map(|prime| low_word(cube_root(prime << 96))).collect()
}

/// The largest integer whose cube is not above `number`.
fn cube_root(number: u128) -> u128 {
    let mut root: u128 = 0;
    for bit in (0..36).rev() {
        let larger = root | (1 << bit);
        if larger * larger * larger <= number {
            root = larger;
        }
    }
    root
}

#[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are the fraction")]
const fn low_word(number: u128) -> u32 {
    number as u32
}
