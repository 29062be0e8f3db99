// Memory bandwidth: every word of `source` is read once and written once to `target`, xored with params.key. The key changes
// from batch to batch, so that what is found in `target` is known to have been written by the last one.
//
// Entry points differ in how much an invocation copies (16 or 64 bytes); the best one counts. Sizes are powers of two and
// dispatches cover the buffers exactly, so there is nothing to check at the ends.
//
// Twin: twins/copy_bandwidth.rs.

struct Params {
    seed: u32,
    key: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> copied: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> filled: array<vec4<u32>>;

fn workgroup(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

// PCG-RXS-M-XS of a counter: no word follows from its neighbours, so nothing on the way can compress them.
fn random(counter: u32) -> u32 {
    let state = counter * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

// source[word i] = random(i + seed).
@compute @workgroup_size(256)
fn fill(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = workgroup(group, groups) * 256u + local;
    let first = i * 4u + params.seed;
    filled[i] = vec4(random(first), random(first + 1u), random(first + 2u), random(first + 3u));
}

@compute @workgroup_size(256)
fn copy1(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = workgroup(group, groups) * 256u + local;
    copied[i] = source[i] ^ vec4(params.key);
}

@compute @workgroup_size(256)
fn copy4(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = workgroup(group, groups) * 1024u + local;
    let key = vec4(params.key);
    let v0 = source[i];
    let v1 = source[i + 256u];
    let v2 = source[i + 512u];
    let v3 = source[i + 768u];
    copied[i] = v0 ^ key;
    copied[i + 256u] = v1 ^ key;
    copied[i + 512u] = v2 ^ key;
    copied[i + 768u] = v3 ^ key;
}
