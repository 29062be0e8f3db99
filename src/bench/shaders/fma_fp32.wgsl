// fp32 throughput: chains of x = fma(x, x, c), each link waiting for the one before it. The last x is stored, so no link
// can be left out. Seeds decide how a chain goes: for c just below 1/4 it creeps to a fixed point, which can be compared; for c in
// [-1.9, -1.6) it roams chaotically through [-2, 2], so that every link works on new digits. It never overflows.
//
// Entry points differ in independent chains per invocation (1, 2, 4, 8), which is what hides the latency of a link; the best
// one counts. Chain k of invocation i has number i × chains + k, starts from seeds[number % SEEDS] and ends in
// results[number]. A chain has 64 × params.rounds links.
//
// Twin: twins/fma_fp32.rs.

struct Params {
    rounds: u32,
}

const SEEDS: u32 = 4096u;

@group(0) @binding(0) var<uniform> params: Params;
// x: where a chain starts; y: its c.
@group(0) @binding(1) var<storage, read> seeds: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> results: array<f32>;

fn invocation(group: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return (group.y * groups.x + group.x) * 256u + local;
}

fn links16(start: f32, c: f32) -> f32 {
    var x = start;
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    return x;
}

fn links16_vec2(start: vec2<f32>, c: vec2<f32>) -> vec2<f32> {
    var x = start;
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    return x;
}

fn links16_vec4(start: vec4<f32>, c: vec4<f32>) -> vec4<f32> {
    var x = start;
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    return x;
}

struct Pair {
    x: vec4<f32>,
    y: vec4<f32>,
}

fn links8_pair(start: Pair, c: vec4<f32>, d: vec4<f32>) -> Pair {
    var x = start.x;
    var y = start.y;
    x = fma(x, x, c); y = fma(y, y, d); x = fma(x, x, c); y = fma(y, y, d);
    x = fma(x, x, c); y = fma(y, y, d); x = fma(x, x, c); y = fma(y, y, d);
    x = fma(x, x, c); y = fma(y, y, d); x = fma(x, x, c); y = fma(y, y, d);
    x = fma(x, x, c); y = fma(y, y, d); x = fma(x, x, c); y = fma(y, y, d);
    return Pair(x, y);
}

@compute @workgroup_size(256)
fn chains1(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let chain = invocation(group, groups, local);
    let seed = seeds[chain % SEEDS];
    var x = seed.x;
    for (var round = 0u; round < params.rounds; round++) {
        x = links16(x, seed.y);
        x = links16(x, seed.y);
        x = links16(x, seed.y);
        x = links16(x, seed.y);
    }
    results[chain] = x;
}

@compute @workgroup_size(256)
fn chains2(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let chain = invocation(group, groups, local) * 2u;
    let s0 = seeds[chain % SEEDS];
    let s1 = seeds[(chain + 1u) % SEEDS];
    var x = vec2(s0.x, s1.x);
    let c = vec2(s0.y, s1.y);
    for (var round = 0u; round < params.rounds; round++) {
        x = links16_vec2(x, c);
        x = links16_vec2(x, c);
        x = links16_vec2(x, c);
        x = links16_vec2(x, c);
    }
    results[chain] = x.x;
    results[chain + 1u] = x.y;
}

@compute @workgroup_size(256)
fn chains4(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let chain = invocation(group, groups, local) * 4u;
    let s0 = seeds[chain % SEEDS];
    let s1 = seeds[(chain + 1u) % SEEDS];
    let s2 = seeds[(chain + 2u) % SEEDS];
    let s3 = seeds[(chain + 3u) % SEEDS];
    var x = vec4(s0.x, s1.x, s2.x, s3.x);
    let c = vec4(s0.y, s1.y, s2.y, s3.y);
    for (var round = 0u; round < params.rounds; round++) {
        x = links16_vec4(x, c);
        x = links16_vec4(x, c);
        x = links16_vec4(x, c);
        x = links16_vec4(x, c);
    }
    results[chain] = x.x;
    results[chain + 1u] = x.y;
    results[chain + 2u] = x.z;
    results[chain + 3u] = x.w;
}

@compute @workgroup_size(256)
fn chains8(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let chain = invocation(group, groups, local) * 8u;
    let s0 = seeds[chain % SEEDS];
    let s1 = seeds[(chain + 1u) % SEEDS];
    let s2 = seeds[(chain + 2u) % SEEDS];
    let s3 = seeds[(chain + 3u) % SEEDS];
    let s4 = seeds[(chain + 4u) % SEEDS];
    let s5 = seeds[(chain + 5u) % SEEDS];
    let s6 = seeds[(chain + 6u) % SEEDS];
    let s7 = seeds[(chain + 7u) % SEEDS];
    var p = Pair(vec4(s0.x, s1.x, s2.x, s3.x), vec4(s4.x, s5.x, s6.x, s7.x));
    let c = vec4(s0.y, s1.y, s2.y, s3.y);
    let d = vec4(s4.y, s5.y, s6.y, s7.y);
    for (var round = 0u; round < params.rounds; round++) {
        p = links8_pair(p, c, d);
        p = links8_pair(p, c, d);
        p = links8_pair(p, c, d);
        p = links8_pair(p, c, d);
        p = links8_pair(p, c, d);
        p = links8_pair(p, c, d);
        p = links8_pair(p, c, d);
        p = links8_pair(p, c, d);
    }
    results[chain] = p.x.x;
    results[chain + 1u] = p.x.y;
    results[chain + 2u] = p.x.z;
    results[chain + 3u] = p.x.w;
    results[chain + 4u] = p.y.x;
    results[chain + 5u] = p.y.y;
    results[chain + 6u] = p.y.z;
    results[chain + 7u] = p.y.w;
}
