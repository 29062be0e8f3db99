// The product of a challenge: C = A × B, all n × n, 8-bit elements summed in 32 bits, n a multiple of 256; and SHA-256 of its
// segments. A and B are never stored: each workgroup generates the tiles it needs from the keys of their rows.
//
// C is written in bands of whole rows, each a buffer of its own, so that no buffer and no dispatch grows too large.
//
// Twin: proof/product.rs and proof/merkle.rs.

struct Params {
    n: u32,
    // First row of the band.
    row_first: u32,
    // Segments of the band.
    segments: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// A key for each row of A.
@group(0) @binding(1) var<storage, read> keys_a: array<vec2<u32>>;
// A key for each four rows of B.
@group(0) @binding(2) var<storage, read> keys_b: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> c: array<vec4<i32>>;
// SHA-256's constants.
@group(0) @binding(4) var<storage, read> constants: array<u32>;
@group(0) @binding(5) var<storage, read> hashed: array<u32>;
@group(0) @binding(6) var<storage, read_write> digests: array<u32>;

// Word `counter` of the row with this key: a keyed lowbias32, see proof/generator.rs.
fn word(key: vec2<u32>, counter: u32) -> u32 {
    var x = counter * 0x9e3779b9u + key.x;
    x ^= x >> 16u;
    x *= 0x7feb352du;
    x ^= x >> 15u;
    x += key.y;
    x *= 0x846ca68bu;
    return x ^ (x >> 16u);
}

fn dots(a: u32, b: vec4<u32>) -> vec4<i32> {
    return vec4(dot4I8Packed(a, b.x), dot4I8Packed(a, b.y), dot4I8Packed(a, b.z), dot4I8Packed(a, b.w));
}

// Tiles are 128 × 8 words of A (transposed, with 4 words of padding against bank conflicts) and 8 × 128 words of B. An
// invocation's block is rows 4y..4y+3 and 64+4y.., columns 4x..4x+3 and 64+4x..
const STRIDE: u32 = 132u;
var<workgroup> a_tile: array<u32, 1056>;
var<workgroup> b_tile: array<vec4<u32>, 256>;

@compute @workgroup_size(16, 16)
fn product(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let a_row = index / 2u;
    let a_depth = (index % 2u) * 4u;
    let b_depth = index / 32u;
    let b_column = (index % 32u) * 4u;
    let key_a = keys_a[params.row_first + group.y * 128u + a_row];
    let column = group.x * 128u + b_column;
    var acc0l = vec4<i32>();
    var acc0h = vec4<i32>();
    var acc1l = vec4<i32>();
    var acc1h = vec4<i32>();
    var acc2l = vec4<i32>();
    var acc2h = vec4<i32>();
    var acc3l = vec4<i32>();
    var acc3h = vec4<i32>();
    var acc4l = vec4<i32>();
    var acc4h = vec4<i32>();
    var acc5l = vec4<i32>();
    var acc5h = vec4<i32>();
    var acc6l = vec4<i32>();
    var acc6h = vec4<i32>();
    var acc7l = vec4<i32>();
    var acc7h = vec4<i32>();

    for (var depth = 0u; depth < params.n / 4u; depth += 8u) {
        let at = a_depth * STRIDE + a_row;
        a_tile[at] = word(key_a, depth + a_depth);
        a_tile[at + STRIDE] = word(key_a, depth + a_depth + 1u);
        a_tile[at + 2u * STRIDE] = word(key_a, depth + a_depth + 2u);
        a_tile[at + 3u * STRIDE] = word(key_a, depth + a_depth + 3u);
        let key_b = keys_b[depth + b_depth];
        b_tile[index] = vec4(word(key_b, column), word(key_b, column + 1u), word(key_b, column + 2u), word(key_b, column + 3u));
        workgroupBarrier();
        for (var k = 0u; k < 8u; k++) {
            let lo = k * STRIDE + local.y * 4u;
            let hi = lo + 64u;
            let blo = b_tile[k * 32u + local.x];
            let bhi = b_tile[k * 32u + 16u + local.x];
            acc0l += dots(a_tile[lo], blo);
            acc0h += dots(a_tile[lo], bhi);
            acc1l += dots(a_tile[lo + 1u], blo);
            acc1h += dots(a_tile[lo + 1u], bhi);
            acc2l += dots(a_tile[lo + 2u], blo);
            acc2h += dots(a_tile[lo + 2u], bhi);
            acc3l += dots(a_tile[lo + 3u], blo);
            acc3h += dots(a_tile[lo + 3u], bhi);
            acc4l += dots(a_tile[hi], blo);
            acc4h += dots(a_tile[hi], bhi);
            acc5l += dots(a_tile[hi + 1u], blo);
            acc5h += dots(a_tile[hi + 1u], bhi);
            acc6l += dots(a_tile[hi + 2u], blo);
            acc6h += dots(a_tile[hi + 2u], bhi);
            acc7l += dots(a_tile[hi + 3u], blo);
            acc7h += dots(a_tile[hi + 3u], bhi);
        }
        workgroupBarrier();
    }

    let stride = params.n / 4u;
    let out = (group.y * 128u + local.y * 4u) * stride + group.x * 32u + local.x;
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

fn turned(x: u32, bits: u32) -> u32 {
    return (x >> bits) | (x << (32u - bits));
}

// SHA-256 of each segment of 256 elements, which is 1024 bytes: sixteen blocks, and one with the length.
@compute @workgroup_size(256)
fn hash(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let segment = (group.y * groups.x + group.x) * 256u + local;
    if segment >= params.segments {
        return;
    }
    var s0 = 0x6a09e667u;
    var s1 = 0xbb67ae85u;
    var s2 = 0x3c6ef372u;
    var s3 = 0xa54ff53au;
    var s4 = 0x510e527fu;
    var s5 = 0x9b05688cu;
    var s6 = 0x1f83d9abu;
    var s7 = 0x5be0cd19u;
    var w: array<u32, 16>;
    for (var block = 0u; block < 17u; block++) {
        for (var i = 0u; i < 16u; i++) {
            if block < 16u {
                w[i] = hashed[segment * 256u + block * 16u + i];
            } else {
                w[i] = 0u;
            }
        }
        if block == 16u {
            w[0] = 0x80000000u;
            w[15] = 8192u;
        }
        var a = s0;
        var b = s1;
        var cc = s2;
        var d = s3;
        var e = s4;
        var f = s5;
        var g = s6;
        var h = s7;
        for (var t = 0u; t < 64u; t++) {
            let at = t & 15u;
            if t >= 16u {
                let w15 = w[(t + 1u) & 15u];
                let w2 = w[(t + 14u) & 15u];
                let sigma0 = turned(w15, 7u) ^ turned(w15, 18u) ^ (w15 >> 3u);
                let sigma1 = turned(w2, 17u) ^ turned(w2, 19u) ^ (w2 >> 10u);
                w[at] += sigma0 + w[(t + 9u) & 15u] + sigma1;
            }
            let sum1 = turned(e, 6u) ^ turned(e, 11u) ^ turned(e, 25u);
            let choice = (e & f) ^ (~e & g);
            let t1 = h + sum1 + choice + constants[t] + w[at];
            let sum0 = turned(a, 2u) ^ turned(a, 13u) ^ turned(a, 22u);
            let majority = (a & b) ^ (a & cc) ^ (b & cc);
            h = g;
            g = f;
            f = e;
            e = d + t1;
            d = cc;
            cc = b;
            b = a;
            a = t1 + sum0 + majority;
        }
        s0 += a;
        s1 += b;
        s2 += cc;
        s3 += d;
        s4 += e;
        s5 += f;
        s6 += g;
        s7 += h;
    }
    let out = segment * 8u;
    digests[out] = s0;
    digests[out + 1u] = s1;
    digests[out + 2u] = s2;
    digests[out + 3u] = s3;
    digests[out + 4u] = s4;
    digests[out + 5u] = s5;
    digests[out + 6u] = s6;
    digests[out + 7u] = s7;
}
