//! Twin of `shaders/load_latency.wgsl`: where a walk ends, without walking it.

const MULTIPLIER: u64 = 1_664_525;
const INCREMENT: u64 = 1_013_904_223;

/// The slot after so many steps. Steps are composed by doubling: a map i → a·i + b applied twice is i → a²·i + (a + 1)·b.
pub(crate) fn end(slots: u32, start: u32, steps: u64) -> u32 {
    let modulus = u64::from(slots);
    let (mut a, mut b) = (MULTIPLIER % modulus, INCREMENT % modulus);
    let mut at = u64::from(start);
    let mut left = steps;
    while left > 0 {
        if left % 2 == 1 {
            at = (a * at + b) % modulus;
        }
        b = (a + 1) * b % modulus;
        a = a * a % modulus;
        left /= 2;
    }
    u32::try_from(at).expect("below the number of slots")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubling_comes_to_where_walking_does() {
        let slots = 1 << 12;
        let mut at = 77;
        for steps in 0..1000 {
            assert_eq!(u64::from(end(slots, 77, steps)), at);
            at = (at * MULTIPLIER + INCREMENT) % u64::from(slots);
        }
    }

    #[test]
    fn every_slot_is_visited_before_the_walk_comes_back() {
        let back = (1u64..).find(|steps| end(1 << 12, 0, *steps) == 0);
        assert_eq!(back, Some(1 << 12));
    }
}
