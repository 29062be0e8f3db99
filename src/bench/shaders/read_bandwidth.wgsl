// Memory read bandwidth: every word of `source` is read once. An invocation xors all it reads and params.key into one word, which it
// stores; so none can be left out, and what is stored is a sixteenth or a sixty-fourth of what is read.
//
// Entry points differ in how much an invocation reads (64 or 256 bytes); the best one counts. Sizes are powers of two and dispatches
// cover the buffers exactly.
//
// Twin: twins/read_bandwidth.rs.

struct Params {
    seed: u32,
    key: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> sums: array<u32>;

fn folded(v: vec4<u32>) -> u32 {
    return v.x ^ v.y ^ v.z ^ v.w;
}

fn four(i: u32) -> vec4<u32> {
    return (source[i] ^ source[i + 256u]) ^ (source[i + 512u] ^ source[i + 768u]);
}

@compute @workgroup_size(256)
fn read4(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let workgroup = group.y * groups.x + group.x;
    sums[workgroup * 256u + local] = folded(four(workgroup * 1024u + local)) ^ params.key;
}

@compute @workgroup_size(256)
fn read16(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let workgroup = group.y * groups.x + group.x;
    let i = workgroup * 4096u + local;
    let sum = (four(i) ^ four(i + 1024u)) ^ (four(i + 2048u) ^ four(i + 3072u));
    sums[workgroup * 256u + local] = folded(sum) ^ params.key;
}
