//! Twin of `shaders/matmul_fp32.wgsl`.
//!
//! Whole-number matrices are multiplied in integers and compared exactly: |sums| stay below 64 n < 2²⁴, where fp32 is exact in
//! any order. Matrices with full mantissas are compared element by element with a sum in f64 and its rounding bound.

/// A whole-number element, in [-8, 7].
pub(crate) fn whole_element(index: u32, seed: u32) -> i32 {
    i32::try_from(super::random(index.wrapping_add(seed)) % 16).expect("below 16") - 8
}

/// An element in [-1, 1).
pub(crate) fn element(index: u32, seed: u32) -> f64 {
    f64::from(super::random(index.wrapping_add(seed)) / 256) / f64::from(1 << 23) - 1.0
}

/// The product of two n × n whole-number matrices made from two seeds, row-major.
pub(crate) fn whole_product(n: u32, seed_a: u32, seed_b: u32) -> Vec<i32> {
    let size = n as usize;
    let b: Vec<i32> = (0..n * n).map(|index| whole_element(index, seed_b)).collect();
    let mut product = vec![0; size * size];
    for row in 0..n {
        let row_start = row as usize * size;
        let sums = &mut product[row_start..row_start + size];
        for depth in 0..n {
            let factor = whole_element(row * n + depth, seed_a);
            let b_row = &b[depth as usize * size..][..size];
            sums.iter_mut().zip(b_row).for_each(|(sum, element)| *sum += factor * element);
        }
    }
    product
}

/// One element of the product of matrices with full mantissas, and how far fp32 sums in any order may be from it.
pub(crate) fn product_element(n: u32, seed_a: u32, seed_b: u32, row: u32, column: u32) -> (f64, f64) {
    let terms = (0..n).map(|k| element(row * n + k, seed_a) * element(k * n + column, seed_b));
    let (sum, magnitude) = terms.fold((0.0, 0.0), |(sum, magnitude), term| (sum + term, magnitude + term.abs()));
    // n roundings of at most half an ulp each, relative to the sum of magnitudes.
    (sum, f64::from(n) * f64::from(f32::EPSILON) / 2.0 * magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_integer_product_is_the_sum_over_the_depth() {
        let n = 8;
        let product = whole_product(n, 1, 1000);
        for (row, column) in [(0, 0), (3, 5), (7, 7)] {
            let sum: i32 = (0..n).map(|k| whole_element(row * n + k, 1) * whole_element(k * n + column, 1000)).sum();
            assert_eq!(product[(row * n + column) as usize], sum);
        }
    }

    #[test]
    fn the_bound_admits_fp32_sums_and_little_more() {
        let (n, row, column) = (256, 3, 200);
        let (sum, bound) = product_element(n, 5, 77, row, column);
        let in_fp32 = (0..n).fold(0.0f32, |sum, k| {
            #[expect(clippy::cast_possible_truncation, reason = "elements are exact in fp32")]
            let (a, b) = (element(row * n + k, 5) as f32, element(k * n + column, 77) as f32);
            a.mul_add(b, sum)
        });
        assert!((f64::from(in_fp32) - sum).abs() <= bound);
        assert!(bound < 0.01);
    }
}
