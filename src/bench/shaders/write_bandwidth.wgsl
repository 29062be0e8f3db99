// Memory write bandwidth: every word of `written` is written once, with its index xored with params.key. The key changes from
// batch to batch, so that what is found is known to have been written by the last one.
//
// Entry points differ in how much an invocation writes (16 or 64 bytes); the best one counts. Sizes are powers of two and dispatches
// cover the buffer exactly.
//
// Twin: twins/write_bandwidth.rs.

struct Params {
    seed: u32,
    key: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> written: array<vec4<u32>>;

fn value(i: u32) -> vec4<u32> {
    return (vec4(i * 4u) + vec4(0u, 1u, 2u, 3u)) ^ vec4(params.key);
}

@compute @workgroup_size(256)
fn write1(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * 256u + local;
    written[i] = value(i);
}

@compute @workgroup_size(256)
fn write4(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * 1024u + local;
    written[i] = value(i);
    written[i + 256u] = value(i + 256u);
    written[i + 512u] = value(i + 512u);
    written[i + 768u] = value(i + 768u);
}
