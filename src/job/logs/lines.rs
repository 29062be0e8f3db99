//! Lines of a companion, each behind the name of its service.

use bytes::{BufMut as _, Bytes, BytesMut};

/// Puts `[name] ` before every line that begins in `bytes`; `open` says whether one was begun before, and whether one is left open.
pub(super) fn with_name(name: &str, bytes: &[u8], open: &mut bool) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes.len() + name.len() + 3);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if !*open {
            out.put_u8(b'[');
            out.put_slice(name.as_bytes());
            out.put_slice(b"] ");
        }
        out.put_slice(line);
        *open = !line.ends_with(b"\n");
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_gets_the_name_once_however_it_is_cut() {
        let mut open = false;
        let pieces = [&b"one\ntw"[..], b"o", b"\n", b"", b"three\n"];
        let out: Vec<u8> = pieces.iter().flat_map(|piece| with_name("db", piece, &mut open)).collect();
        assert_eq!(out, b"[db] one\n[db] two\n[db] three\n");
        assert!(!open);
    }
}
