//! Twin of `shaders/launch_latency.wgsl`.

/// What the counter holds after so many launches of one workgroup.
pub(crate) fn counted(launches: u32) -> u32 {
    (0..launches).map(|_| 1).sum()
}
