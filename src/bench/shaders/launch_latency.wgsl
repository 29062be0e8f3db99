// Latency of a launch: as little work as can be checked. Each dispatch adds one to a counter.
//
// Twin: twins/launch_latency.rs.

@group(0) @binding(0) var<storage, read_write> counter: array<u32>;

@compute @workgroup_size(256)
fn count(@builtin(local_invocation_index) local: u32) {
    if local == 0u {
        counter[0] += 1u;
    }
}
