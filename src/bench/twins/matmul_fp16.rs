//! Twin of `shaders/matmul_fp16.wgsl`.
//!
//! Whole-number matrices are those of [`super::matmul_fp32`], and their product is exact as well: a sum within a tile stays below
//! 16 · 64 = 2¹⁰, half precision is exact up to 2¹¹. Matrices with full mantissas are compared with a sum in f64 and its bound.

/// An element in [-1, 1), a multiple of 2⁻¹⁰.
fn element(index: u32, seed: u32) -> f64 {
    f64::from(super::random(index.wrapping_add(seed)) >> 21) / 1024.0 - 1.0
}

/// One element of the product, and how far a sum of tiles of half-precision sums may be from it.
pub(crate) fn product_element(n: u32, seed_a: u32, seed_b: u32, row: u32, column: u32) -> (f64, f64) {
    let terms = (0..n).map(|k| element(row * n + k, seed_a) * element(k * n + column, seed_b));
    let (sum, magnitude) = terms.fold((0.0, 0.0), |(sum, magnitude), term| (sum + term, magnitude + term.abs()));
    // A product is rounded by itself, then up to 16 times more on its way through its tile, by 2⁻¹¹ of what is there each time; the
    // sum over the tiles is in fp32.
    let in_tiles = 17.0 / 2048.0;
    let over_tiles = f64::from(n) * f64::from(f32::EPSILON) / 2.0;
    (sum, (in_tiles + over_tiles) * magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_exact_in_eleven_bits_and_cover_the_range() {
        let elements: Vec<f64> = (0..10_000).map(|index| element(index, 3)).collect();
        assert!(elements.iter().all(|x| (x * 1024.0).fract() == 0.0 && (-1.0..1.0).contains(x)));
        assert!(elements.iter().any(|x| *x < -0.99) && elements.iter().any(|x| *x > 0.99));
    }

    #[test]
    fn the_bound_is_far_below_what_a_missing_tile_would_change() {
        let (n, row, column) = (256, 3, 200);
        let (_, bound) = product_element(n, 5, 77, row, column);
        assert!(bound < 1.0, "{bound}");
    }
}
