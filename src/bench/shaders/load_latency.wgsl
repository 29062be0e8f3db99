// Latency of a load: one invocation follows a chain of indices through memory, each load waiting for the one before it. Slots lie 128
// bytes apart, so that each is a line of its own, and slot i holds the slot that follows it: (i × MULTIPLIER + INCREMENT) mod slots,
// which visits every slot once before it comes back, in no order that a prefetcher knows. The last index is stored, and the next dispatch
// goes on from there: a driver may cut a loop that is too long short (llvmpipe does after 65535 rounds).
//
// Twin: twins/load_latency.rs.

struct Params {
    // A power of two.
    slots: u32,
    steps: u32,
}

const MULTIPLIER: u32 = 1664525u;
const INCREMENT: u32 = 1013904223u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> slots: array<u32>;
@group(0) @binding(2) var<storage, read_write> end: array<u32>;
@group(0) @binding(3) var<storage, read_write> filled: array<u32>;

@compute @workgroup_size(256)
fn fill(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * 256u + local;
    filled[i * 32u] = (i * MULTIPLIER + INCREMENT) & (params.slots - 1u);
}

@compute @workgroup_size(256)
fn follow(@builtin(local_invocation_index) local: u32) {
    if local != 0u {
        return;
    }
    var i = end[0];
    for (var step = 0u; step < params.steps; step++) {
        i = slots[i * 32u];
    }
    end[0] = i;
}
