enable f16;

// fp16 throughput: chains of x = fma(x, x, c) in half precision, each link waiting for the one before it. The last x is stored, so
// no link can be left out. For the check, seeds lie on cycles of quarters, which half precision computes without rounding; for the
// measurement c in [-1.9, -1.6) lets x roam chaotically through [-2, 2].
//
// Entry points differ in independent chains per invocation (1, 2, 4); the best one counts. Chain k of invocation i has number
// i × chains + k, starts from seeds[number % SEEDS] and ends in results[number]. A chain has 64 × params.rounds links.
//
// Twin: twins/fma_fp16.rs.

struct Params {
    rounds: u32,
}

const SEEDS: u32 = 4096u;

@group(0) @binding(0) var<uniform> params: Params;
// x: where a chain starts; y: its c. Both are exact in half precision.
@group(0) @binding(1) var<storage, read> seeds: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> results: array<f32>;

fn invocation(group: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return (group.y * groups.x + group.x) * 256u + local;
}

fn links16_scalar(start: f16, c: f16) -> f16 {
    var x = start;
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    return x;
}

fn links16_vec2(start: vec2<f16>, c: vec2<f16>) -> vec2<f16> {
    var x = start;
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    return x;
}

fn links16_vec4(start: vec4<f16>, c: vec4<f16>) -> vec4<f16> {
    var x = start;
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c); x = fma(x, x, c);
    return x;
}

@compute @workgroup_size(256)
fn chains1(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let chain = invocation(group, groups, local);
    let s0 = seeds[chain % SEEDS];
    var x = f16(s0.x);
    let c = f16(s0.y);
    for (var round = 0u; round < params.rounds; round++) {
        x = links16_scalar(x, c);
        x = links16_scalar(x, c);
        x = links16_scalar(x, c);
        x = links16_scalar(x, c);
    }
    results[chain] = f32(x);
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
    var x = vec2<f16>(f16(s0.x), f16(s1.x));
    let c = vec2<f16>(f16(s0.y), f16(s1.y));
    for (var round = 0u; round < params.rounds; round++) {
        x = links16_vec2(x, c);
        x = links16_vec2(x, c);
        x = links16_vec2(x, c);
        x = links16_vec2(x, c);
    }
    results[chain] = f32(x.x);
    results[chain + 1u] = f32(x.y);
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
    var x = vec4<f16>(f16(s0.x), f16(s1.x), f16(s2.x), f16(s3.x));
    let c = vec4<f16>(f16(s0.y), f16(s1.y), f16(s2.y), f16(s3.y));
    for (var round = 0u; round < params.rounds; round++) {
        x = links16_vec4(x, c);
        x = links16_vec4(x, c);
        x = links16_vec4(x, c);
        x = links16_vec4(x, c);
    }
    results[chain] = f32(x.x);
    results[chain + 1u] = f32(x.y);
    results[chain + 2u] = f32(x.z);
    results[chain + 3u] = f32(x.w);
}
