//! The image of the demo's job, built on the spot: one static program and an empty folder for its picture.

use std::io::Read as _;

use bytes::Bytes;

use crate::runtime::LABEL_SHARED;
use crate::runtime::archive::{ImageContents, image_archive};

/// The program inside the image.
pub const PROGRAM: &str = "/render";
/// The folder it writes its picture to.
pub const OUTPUT: &str = "/output";
/// Marks the images of demos.
pub const LABEL_DEMO: &str = "io.fizz.demo";

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo-job.gz"));

/// The demo's job as a Linux program for this processor; `None` when this build could not make it.
///
/// # Errors
/// When the embedded program cannot be unpacked, which only a broken build has.
pub fn program() -> std::io::Result<Option<Vec<u8>>> {
    if PACKED.is_empty() {
        return Ok(None);
    }
    let mut program = Vec::new();
    flate2::read::GzDecoder::new(PACKED).read_to_end(&mut program)?;
    Ok(Some(program))
}

/// An image archive that holds `program` and is called `tag`; `architecture` as Docker names it.
///
/// # Errors
/// Never in practice: everything is written to memory.
pub fn archive(program: &[u8], architecture: &str, tag: &str) -> std::io::Result<Bytes> {
    let labels = &[(LABEL_DEMO, "1"), (LABEL_SHARED, "true")];
    image_archive(&ImageContents { program, path: PROGRAM, folders: &[OUTPUT], labels, architecture }, tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};
    use std::collections::BTreeMap;

    fn entries(archive: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), (entry.header().mode().unwrap(), bytes))
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn the_archive_names_its_image_and_every_digest_in_it_is_right() {
        let bytes = archive(b"program", "amd64", "fizz-demo:1").unwrap();
        let files = entries(&bytes);
        let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"].1).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "fizz-demo:1");
        let config_name = manifest[0]["Config"].as_str().unwrap();
        let config_bytes = &files[config_name].1;
        assert_eq!(config_name, format!("{}.json", hex::encode(Sha256::digest(config_bytes))));
        let config: serde_json::Value = serde_json::from_slice(config_bytes).unwrap();
        let layer = &files["layer.tar"].1;
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hex::encode(Sha256::digest(layer))));
        assert_eq!(config["architecture"], "amd64");
        assert_eq!(config["config"]["Labels"][LABEL_SHARED], "true", "the node lends it to the demo's renter");
        let layer = entries(layer);
        assert_eq!(layer["render"], (0o755, b"program".to_vec()));
        assert_eq!(layer["output"].0, 0o777);
    }

    #[test]
    fn the_same_program_makes_the_same_image() {
        assert_eq!(archive(b"program", "amd64", "a:1").unwrap(), archive(b"program", "amd64", "a:1").unwrap());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_embedded_program_is_for_linux_and_needs_no_other_file() {
        let program = program().unwrap().expect("this build made the program");
        assert_eq!(program[..6], *b"\x7fELF\x02\x01", "a 64-bit little-endian program");
        let number = |at: usize, size: usize| program[at..at + size].iter().rfold(0, |n, b| n << 8 | usize::from(*b));
        let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        let kinds: Vec<usize> = (0..count).map(|i| number(table + i * size, 4)).collect();
        const INTERPRETER: usize = 3;
        assert!(kinds.contains(&1) && !kinds.contains(&INTERPRETER), "it is linked statically: {kinds:?}");
    }
}
