enable f16;

// fp16 matrix multiplication: C = A × B, all n × n, row-major, n a multiple of 128; A and B in half precision, C in fp32. Sums are in
// half precision within a tile, where 16 products are added at most, and in fp32 over the tiles. Tiles of A and B go through
// workgroup memory; every invocation keeps a block of C in registers.
//
// Entry points differ in that block: 4 × 4 (64 × 64 per workgroup) or 8 × 8 (128 × 128 per workgroup); the best one counts.
// Blocks are written out by hand, because an array indexed by a loop variable may end up in memory instead of registers.
//
// Twin: twins/matmul_fp16.rs.

struct Params {
    n: u32,
    // Which matrix `fill` makes.
    seed: u32,
    // 1: small whole numbers, whose products and sums are exact in fp16; 0: numbers in [-1, 1) with full mantissas.
    whole: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f16>>;
@group(0) @binding(3) var<storage, read_write> c: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> filled: array<f16>;

// PCG-RXS-M-XS of a counter.
fn random(counter: u32) -> u32 {
    let state = counter * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

// Element i comes from random(i + seed): from its low 4 bits a whole number in [-8, 7], or from its high 11 bits a number in
// [-1, 1) that is a multiple of 2⁻¹⁰. Both are exact.
@compute @workgroup_size(256)
fn fill(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.y * groups.x + group.x) * 256u + local;
    let word = random(i + params.seed);
    if params.whole == 1u {
        filled[i] = f16(f32(word & 15u) - 8.0);
    } else {
        filled[i] = f16(f32(word >> 21u) * 0x1p-10 - 1.0);
    }
}

// Tiles are 16 deep, A's transposed, with 4 words of padding against bank conflicts.
const STRIDE4: u32 = 68u;
var<workgroup> a_tile4: array<f16, 1088>;
var<workgroup> b_tile4: array<vec4<f16>, 256>;

@compute @workgroup_size(16, 16)
fn block4(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let stride = params.n / 4u;
    let row = group.y * 64u;
    let column = group.x * 16u;
    let a_row = index / 4u;
    let a_depth = index % 4u;
    let b_depth = index / 16u;
    let b_column = index % 16u;
    var acc0 = vec4<f32>();
    var acc1 = vec4<f32>();
    var acc2 = vec4<f32>();
    var acc3 = vec4<f32>();

    for (var depth = 0u; depth < params.n; depth += 16u) {
        let av = a[(row + a_row) * stride + depth / 4u + a_depth];
        let at = a_depth * 4u * STRIDE4 + a_row;
        a_tile4[at] = av.x;
        a_tile4[at + STRIDE4] = av.y;
        a_tile4[at + 2u * STRIDE4] = av.z;
        a_tile4[at + 3u * STRIDE4] = av.w;
        b_tile4[index] = b[(depth + b_depth) * stride + column + b_column];
        workgroupBarrier();
        var sum0 = vec4<f16>();
        var sum1 = vec4<f16>();
        var sum2 = vec4<f16>();
        var sum3 = vec4<f16>();
        for (var k = 0u; k < 16u; k++) {
            let from_a = k * STRIDE4 + local.y * 4u;
            let av = vec4(a_tile4[from_a], a_tile4[from_a + 1u], a_tile4[from_a + 2u], a_tile4[from_a + 3u]);
            let bv = b_tile4[k * 16u + local.x];
            sum0 = fma(vec4(av.x), bv, sum0);
            sum1 = fma(vec4(av.y), bv, sum1);
            sum2 = fma(vec4(av.z), bv, sum2);
            sum3 = fma(vec4(av.w), bv, sum3);
        }
        acc0 += vec4<f32>(sum0);
        acc1 += vec4<f32>(sum1);
        acc2 += vec4<f32>(sum2);
        acc3 += vec4<f32>(sum3);
        workgroupBarrier();
    }

    let out = (row + local.y * 4u) * stride + column + local.x;
    c[out + 0u * stride] = acc0;
    c[out + 1u * stride] = acc1;
    c[out + 2u * stride] = acc2;
    c[out + 3u * stride] = acc3;
}

// Tiles are 8 deep. An invocation's block is rows 4y..4y+3 and 64+4y.., columns 4x..4x+3 and 64+4x..
const STRIDE8: u32 = 132u;
var<workgroup> a_tile8: array<f16, 1056>;
var<workgroup> b_tile8: array<vec4<f16>, 256>;

@compute @workgroup_size(16, 16)
fn block8(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let stride = params.n / 4u;
    let row = group.y * 128u;
    let column = group.x * 32u;
    let a_row = index / 2u;
    let a_depth = index % 2u;
    let b_depth = index / 32u;
    let b_column = index % 32u;
    var acc0l = vec4<f32>();
    var acc0h = vec4<f32>();
    var acc1l = vec4<f32>();
    var acc1h = vec4<f32>();
    var acc2l = vec4<f32>();
    var acc2h = vec4<f32>();
    var acc3l = vec4<f32>();
    var acc3h = vec4<f32>();
    var acc4l = vec4<f32>();
    var acc4h = vec4<f32>();
    var acc5l = vec4<f32>();
    var acc5h = vec4<f32>();
    var acc6l = vec4<f32>();
    var acc6h = vec4<f32>();
    var acc7l = vec4<f32>();
    var acc7h = vec4<f32>();

    for (var depth = 0u; depth < params.n; depth += 8u) {
        let av = a[(row + a_row) * stride + depth / 4u + a_depth];
        let at = a_depth * 4u * STRIDE8 + a_row;
        a_tile8[at] = av.x;
        a_tile8[at + STRIDE8] = av.y;
        a_tile8[at + 2u * STRIDE8] = av.z;
        a_tile8[at + 3u * STRIDE8] = av.w;
        b_tile8[index] = b[(depth + b_depth) * stride + column + b_column];
        workgroupBarrier();
        var sum0l = vec4<f16>();
        var sum0h = vec4<f16>();
        var sum1l = vec4<f16>();
        var sum1h = vec4<f16>();
        var sum2l = vec4<f16>();
        var sum2h = vec4<f16>();
        var sum3l = vec4<f16>();
        var sum3h = vec4<f16>();
        var sum4l = vec4<f16>();
        var sum4h = vec4<f16>();
        var sum5l = vec4<f16>();
        var sum5h = vec4<f16>();
        var sum6l = vec4<f16>();
        var sum6h = vec4<f16>();
        var sum7l = vec4<f16>();
        var sum7h = vec4<f16>();
        for (var k = 0u; k < 8u; k++) {
            let lo = k * STRIDE8 + local.y * 4u;
            let hi = lo + 64u;
            let alo = vec4(a_tile8[lo], a_tile8[lo + 1u], a_tile8[lo + 2u], a_tile8[lo + 3u]);
            let ahi = vec4(a_tile8[hi], a_tile8[hi + 1u], a_tile8[hi + 2u], a_tile8[hi + 3u]);
            let blo = b_tile8[k * 32u + local.x];
            let bhi = b_tile8[k * 32u + 16u + local.x];
            sum0l = fma(vec4(alo.x), blo, sum0l);
            sum0h = fma(vec4(alo.x), bhi, sum0h);
            sum1l = fma(vec4(alo.y), blo, sum1l);
            sum1h = fma(vec4(alo.y), bhi, sum1h);
            sum2l = fma(vec4(alo.z), blo, sum2l);
            sum2h = fma(vec4(alo.z), bhi, sum2h);
            sum3l = fma(vec4(alo.w), blo, sum3l);
            sum3h = fma(vec4(alo.w), bhi, sum3h);
            sum4l = fma(vec4(ahi.x), blo, sum4l);
            sum4h = fma(vec4(ahi.x), bhi, sum4h);
            sum5l = fma(vec4(ahi.y), blo, sum5l);
            sum5h = fma(vec4(ahi.y), bhi, sum5h);
            sum6l = fma(vec4(ahi.z), blo, sum6l);
            sum6h = fma(vec4(ahi.z), bhi, sum6h);
            sum7l = fma(vec4(ahi.w), blo, sum7l);
            sum7h = fma(vec4(ahi.w), bhi, sum7h);
        }
        acc0l += vec4<f32>(sum0l);
        acc0h += vec4<f32>(sum0h);
        acc1l += vec4<f32>(sum1l);
        acc1h += vec4<f32>(sum1h);
        acc2l += vec4<f32>(sum2l);
        acc2h += vec4<f32>(sum2h);
        acc3l += vec4<f32>(sum3l);
        acc3h += vec4<f32>(sum3h);
        acc4l += vec4<f32>(sum4l);
        acc4h += vec4<f32>(sum4h);
        acc5l += vec4<f32>(sum5l);
        acc5h += vec4<f32>(sum5h);
        acc6l += vec4<f32>(sum6l);
        acc6h += vec4<f32>(sum6h);
        acc7l += vec4<f32>(sum7l);
        acc7h += vec4<f32>(sum7h);
        workgroupBarrier();
    }

    let out = (row + local.y * 4u) * stride + column + local.x;
    c[out + 0u * stride] = acc0l;
    c[out + 0u * stride + 16u] = acc0h;
    c[out + 1u * stride] = acc1l;
    c[out + 1u * stride + 16u] = acc1h;
    c[out + 2u * stride] = acc2l;
    c[out + 2u * stride + 16u] = acc2h;
    c[out + 3u * stride] = acc3l;
    c[out + 3u * stride + 16u] = acc3h;
    c[out + 64u * stride] = acc4l;
    c[out + 64u * stride + 16u] = acc4h;
    c[out + 65u * stride] = acc5l;
    c[out + 65u * stride + 16u] = acc5h;
    c[out + 66u * stride] = acc6l;
    c[out + 66u * stride + 16u] = acc6h;
    c[out + 67u * stride] = acc7l;
    c[out + 67u * stride + 16u] = acc7h;
}
