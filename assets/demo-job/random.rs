//! Numbers for the paths: an even sequence for the first decisions of a path, plain random numbers for the rest.
//!
//! Both depend on seed, pixel and sample only, so that the picture does not depend on who renders what when.

/// A small permuted congruential generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(a: u32, b: u32) -> Self {
        let mut random = Self((u64::from(hash(a)) << 32 | u64::from(hash(b ^ 0x9e37_79b9))) ^ 0x853c_49e6_748f_ea9b);
        random.bits();
        random
    }

    fn bits(&mut self) -> u32 {
        let old = self.0;
        self.0 = old.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = (((old >> 18) ^ old) >> 27) as u32;
        word.rotate_right((old >> 59) as u32)
    }

    /// From 0 up to, not including, 1.
    pub fn next(&mut self) -> f32 {
        (self.bits() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.next()
    }
}

/// Numbers for one path.
pub struct Sampler {
    random: Random,
    shift: u32,
    index: u32,
    dimension: u32,
}

/// Fractions of 2³² that spread evenly in six dimensions (powers of the root of x⁷ = x + 1).
const STEPS: [u32; 6] = {
    let root = 1.112_775_684_278_705_5_f64;
    let mut steps = [0; 6];
    let mut power = 1.0;
    let mut i = 0;
    while i < 6 {
        power /= root;
        steps[i] = (power * 4_294_967_296.0) as u32;
        i += 1;
    }
    steps
};

impl Sampler {
    pub fn new(seed: u32, pixel: u32, index: u32) -> Self {
        let shift = hash(pixel ^ hash(seed));
        Self { random: Random::new(shift, index), shift, index, dimension: 0 }
    }

    pub fn next(&mut self) -> f32 {
        let d = self.dimension;
        self.dimension += 1;
        match STEPS.get(d as usize) {
            Some(step) => {
                let offset = hash(self.shift.wrapping_add(d.wrapping_mul(0x632b_e5ab)));
                (offset.wrapping_add(self.index.wrapping_mul(*step)) >> 8) as f32 * (1.0 / 16_777_216.0)
            }
            None => self.random.next(),
        }
    }

    pub fn pair(&mut self) -> (f32, f32) {
        (self.next(), self.next())
    }
}

fn hash(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}
