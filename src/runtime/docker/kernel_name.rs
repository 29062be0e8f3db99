//! The smallest program that tells which kernel it runs on, as an image: what shows that a runtime gives containers a kernel of their
//! own. It is `uname(buffer); write(1, buffer.release, 65); exit(0)` in machine code, so that no image has to be fetched.

use sha2::{Digest as _, Sha256};

/// Where the program is loaded.
const BASE: u64 = 0x40_0000;
/// File header and one program header.
const HEADERS: u64 = 64 + 56;

/// x86-64: `sub rsp,512; mov rdi,rsp; mov eax,63; syscall; lea rsi,[rsp+130]; mov edi,1; mov edx,65; mov eax,1; syscall;
/// xor edi,edi; mov eax,60; syscall`.
const X86_64: &[u8] = &[
    0x48, 0x81, 0xec, 0x00, 0x02, 0x00, 0x00, 0x48, 0x89, 0xe7, 0xb8, 0x3f, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x48, 0x8d,
    0xb4, 0x24, 0x82, 0x00, 0x00, 0x00, 0xbf, 0x01, 0x00, 0x00, 0x00, 0xba, 0x41, 0x00, 0x00, 0x00, 0xb8, 0x01, 0x00,
    0x00, 0x00, 0x0f, 0x05, 0x31, 0xff, 0xb8, 0x3c, 0x00, 0x00, 0x00, 0x0f, 0x05,
];

/// arm64: `sub sp,sp,512; mov x0,sp; mov x8,160; svc 0; add x1,sp,130; mov x0,1; mov x2,65; mov x8,64; svc 0; mov x0,0;
/// mov x8,93; svc 0`.
const AARCH64: &[u32] = &[
    0xd108_03ff,
    0x9100_03e0,
    0xd280_1408,
    0xd400_0001,
    0x9102_0be1,
    0xd280_0020,
    0xd280_0822,
    0xd280_0808,
    0xd400_0001,
    0xd280_0000,
    0xd280_0ba8,
    0xd400_0001,
];

/// The program for an architecture as Docker names it; nothing for one that it does not know.
pub(super) fn program(architecture: &str) -> Option<Vec<u8>> {
    match architecture {
        "amd64" | "x86_64" => Some(elf(0x3e, X86_64)),
        "arm64" | "aarch64" => {
            let code: Vec<u8> = AARCH64.iter().flat_map(|word| word.to_le_bytes()).collect();
            Some(elf(0xb7, &code))
        }
        _ => None,
    }
}

fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let size = HEADERS + code.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2, machine] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // One segment, readable and executable.
    for word in [1u32, 5] {
        file.extend(word.to_le_bytes());
    }
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend_from_slice(code);
    file
}

/// An archive as `docker save` writes it, with the program as its one file.
pub(super) fn image(tag: &str, architecture: &str, program: &[u8], label: &str) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, "kernel-name", program, 0o755)?;
    let layer = layer.into_inner()?;
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {"Labels": {label: "false"}},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(Sha256::digest(&layer)))]},
    });
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    add(&mut archive, "layer.tar", &layer, 0o644)?;
    add(&mut archive, "config.json", config.to_string().as_bytes(), 0o644)?;
    add(&mut archive, "manifest.json", manifest.to_string().as_bytes(), 0o644)?;
    archive.into_inner()
}

fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, path, bytes)
}
