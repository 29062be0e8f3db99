// int8 throughput: chains of x = dot(x, x) + c, where x is taken as four signed bytes and the sum as a word, each link waiting for the
// one before it. The last x is stored, so no link can be left out. A link is four products and four sums.
//
// Entry points differ in independent chains per invocation (1, 2, 4); the best one counts. Chain k of invocation i has number
// i × chains + k, starts from seeds[number % SEEDS] and ends in results[number]. A chain has 64 × params.rounds links.
//
// Twin: twins/dot_int8.rs.

struct Params {
    rounds: u32,
}

const SEEDS: u32 = 4096u;

@group(0) @binding(0) var<uniform> params: Params;
// x: where a chain starts; y: its c.
@group(0) @binding(1) var<storage, read> seeds: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> results: array<u32>;

fn invocation(group: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return (group.y * groups.x + group.x) * 256u + local;
}

fn link(x: u32, c: i32) -> u32 {
    return bitcast<u32>(dot4I8Packed(x, x) + c);
}

fn links16_scalar(start: u32, c: i32) -> u32 {
    var x = start;
    x = link(x, c); x = link(x, c); x = link(x, c); x = link(x, c);
    x = link(x, c); x = link(x, c); x = link(x, c); x = link(x, c);
    x = link(x, c); x = link(x, c); x = link(x, c); x = link(x, c);
    x = link(x, c); x = link(x, c); x = link(x, c); x = link(x, c);
    return x;
}

fn links16_vec2(start: vec2<u32>, c: vec2<i32>) -> vec2<u32> {
    var x = start;
    x = vec2(link(x.x, c.x), link(x.y, c.y)); x = vec2(link(x.x, c.x), link(x.y, c.y));
    x = vec2(link(x.x, c.x), link(x.y, c.y)); x = vec2(link(x.x, c.x), link(x.y, c.y));
    x = vec2(link(x.x, c.x), link(x.y, c.y)); x = vec2(link(x.x, c.x), link(x.y, c.y));
    x = vec2(link(x.x, c.x), link(x.y, c.y)); x = vec2(link(x.x, c.x), link(x.y, c.y));
    x = vec2(link(x.x, c.x), link(x.y, c.y)); x = vec2(link(x.x, c.x), link(x.y, c.y));
    x = vec2(link(x.x, c.x), link(x.y, c.y)); x = vec2(link(x.x, c.x), link(x.y, c.y));
    x = vec2(link(x.x, c.x), link(x.y, c.y)); x = vec2(link(x.x, c.x), link(x.y, c.y));
    x = vec2(link(x.x, c.x), link(x.y, c.y)); x = vec2(link(x.x, c.x), link(x.y, c.y));
    return x;
}

fn links16_vec4(start: vec4<u32>, c: vec4<i32>) -> vec4<u32> {
    var x = start;
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
    x = vec4(link(x.x, c.x), link(x.y, c.y), link(x.z, c.z), link(x.w, c.w));
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
    var x = s0.x;
    let c = bitcast<i32>(s0.y);
    for (var round = 0u; round < params.rounds; round++) {
        x = links16_scalar(x, c);
        x = links16_scalar(x, c);
        x = links16_scalar(x, c);
        x = links16_scalar(x, c);
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
    let c = vec2(bitcast<i32>(s0.y), bitcast<i32>(s1.y));
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
    let c = vec4(bitcast<i32>(s0.y), bitcast<i32>(s1.y), bitcast<i32>(s2.y), bitcast<i32>(s3.y));
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
