//! The demo's job writes its pictures with an encoder of its own; here they are read by somebody else's code.

#[expect(
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "part of the demo's job, which is a program of its own"
)]
#[path = "../assets/demo-job/png.rs"]
mod png;

use std::io::Read;

/// Reads a PNG as the specification has it: checks every checksum and hands back width, height and pixels.
fn decode(file: &[u8]) -> (usize, usize, Vec<u8>) {
    let mut rest = file.strip_prefix(b"\x89PNG\r\n\x1a\n").expect("signature");
    let (mut header, mut data, mut ended) = (Vec::new(), Vec::new(), false);
    while !rest.is_empty() {
        assert!(!ended, "nothing comes after IEND");
        let size = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let (kind, body) = (&rest[4..8], &rest[8..8 + size]);
        let mut crc = flate2::Crc::new();
        crc.update(&rest[4..8 + size]);
        assert_eq!(rest[8 + size..12 + size], crc.sum().to_be_bytes(), "checksum of {kind:?}");
        match kind {
            b"IHDR" => header = body.to_vec(),
            b"IDAT" => data.extend_from_slice(body),
            b"IEND" => ended = true,
            other => panic!("unexpected chunk {other:?}"),
        }
        rest = &rest[12 + size..];
    }
    assert!(ended, "IEND is there");
    assert_eq!(header[8..], [8, 2, 0, 0, 0], "8-bit RGB");
    let width = u32::from_be_bytes(header[..4].try_into().unwrap()) as usize;
    let height = u32::from_be_bytes(header[4..8].try_into().unwrap()) as usize;
    let mut rows = Vec::new();
    flate2::read::ZlibDecoder::new(data.as_slice()).read_to_end(&mut rows).expect("zlib stream");
    assert_eq!(rows.len(), height * (1 + width * 3));
    let pixels = rows.chunks_exact(1 + width * 3).flat_map(|row| {
        assert_eq!(row[0], 0, "no filter");
        &row[1..]
    });
    (width, height, pixels.copied().collect())
}

#[test]
fn a_picture_survives_the_way_through_png() {
    // Larger than one stored block, and no multiple of it.
    let (width, height) = (257, 131);
    let pixels: Vec<u8> = (0..width * height * 3).map(|i: usize| u8::try_from(i * 31 % 251).unwrap()).collect();
    assert_eq!(decode(&png::encode(width, height, &pixels)), (width, height, pixels));
}

#[test]
fn the_smallest_picture_is_a_picture() {
    assert_eq!(decode(&png::encode(1, 1, &[1, 2, 3])), (1, 1, vec![1, 2, 3]));
}
