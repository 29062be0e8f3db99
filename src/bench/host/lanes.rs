//! Arithmetic and memory loops in the widest vectors that this processor has, found when the program runs; and the same with plain
//! numbers where none are known.
//!
//! Every arithmetic kernel runs independent chains x ← x·x + c (integers: x ← x·x + x), each link waiting for the one before it, so
//! that nothing can be left out; enough chains run side by side to hide the latency of a link.

#[cfg(target_arch = "x86_64")]
mod x86_64;

/// Chains that run side by side in each kernel, of one vector each.
const CHAINS: usize = 12;

/// Runs so many links of every chain; gives where each ended, in bits. Chain k starts at [`Element::start`].
pub(super) type Kernel = fn(links: u64) -> Vec<u64>;

/// What one kind of vector can do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes {
    /// For people.
    pub(super) name: &'static str,
    pub(super) int32: Kernel,
    pub(super) fp32: Kernel,
    pub(super) fp64: Kernel,
    /// Whether a product and its sum are rounded once.
    pub(super) fused: bool,
    /// The xor of all words.
    pub(super) read: fn(&[u64]) -> u64,
    /// Writes one word all over.
    pub(super) write: fn(&mut [u64], u64),
    /// `a[i] = b[i] + factor × c[i]`.
    pub(super) triad: fn(&mut [f64], &[f64], &[f64], f64),
}

/// The widest vectors of this processor.
pub(super) fn best() -> Lanes {
    #[cfg(target_arch = "x86_64")]
    if let Some(lanes) = x86_64::best() {
        return lanes;
    }
    PORTABLE
}

/// Plain numbers. A compiler may still make vectors of them.
pub(super) const PORTABLE: Lanes = Lanes {
    name: "no vectors",
    int32: run::<u32>,
    fp32: run::<f32>,
    fp64: run::<f64>,
    fused: false,
    read: |words| words.iter().fold(0, |sum, word| sum ^ word),
    write: |words, word| words.fill(word),
    triad: |a, b, c, factor| {
        for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
            *a = b + factor * c;
        }
    },
};

/// A number that chains are made of.
pub(super) trait Element: Copy {
    /// The constant of every chain.
    const C: Self;
    /// Where chain `number` starts.
    fn start(number: u32) -> Self;
    /// One link, rounded twice.
    fn link(self) -> Self;
    /// As a word.
    fn bits(self) -> u64;
}

impl Element for u32 {
    const C: Self = 0;

    fn start(number: u32) -> Self {
        number.wrapping_mul(0x9e37_79b8) | 2
    }

    fn link(self) -> Self {
        self.wrapping_mul(self).wrapping_add(self)
    }

    fn bits(self) -> u64 {
        u64::from(self)
    }
}

impl Element for f32 {
    const C: Self = -1.7;

    fn start(number: u32) -> Self {
        f32::from(u16::try_from(number % 1000).unwrap_or(0)) / 2500.0 + 0.001
    }

    fn link(self) -> Self {
        self * self + Self::C
    }

    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl Element for f64 {
    const C: Self = -1.7;

    fn start(number: u32) -> Self {
        f64::from(number % 1000) / 2500.0 + 0.001
    }

    fn link(self) -> Self {
        self * self + Self::C
    }

    fn bits(self) -> u64 {
        self.to_bits()
    }
}

fn run<E: Element>(links: u64) -> Vec<u64> {
    let mut chains: [E; CHAINS] = std::array::from_fn(|number| E::start(u32::try_from(number).unwrap_or(0)));
    for _ in 0..links {
        for x in &mut chains {
            *x = x.link();
        }
    }
    chains.iter().map(|x| x.bits()).collect()
}
