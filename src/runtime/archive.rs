//! Images made on the spot: one static program in an otherwise empty image.
//!
//! The archive has the layout of `docker save`, which every engine can load without a registry.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// What goes into an image.
#[derive(Debug, Clone)]
pub struct ImageContents<'a> {
    /// The program's bytes.
    pub program: &'a [u8],
    /// Where it is, absolute; also the entrypoint.
    pub path: &'a str,
    /// Empty folders that everybody may write, absolute.
    pub folders: &'a [&'a str],
    /// The image's labels.
    pub labels: &'a [(&'a str, &'a str)],
    /// The processor, as Docker names it.
    pub architecture: &'a str,
}

/// An archive with one image called `tag`. The same contents make the same bytes.
///
/// # Errors
/// Never in practice: everything is written to memory.
pub fn image_archive(contents: &ImageContents<'_>, tag: &str) -> std::io::Result<Bytes> {
    let layer = layer(contents)?;
    let layer_digest = hex::encode(Sha256::digest(&layer));
    let labels: BTreeMap<_, _> = contents.labels.iter().copied().collect();
    let config = json!({
        "architecture": contents.architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": { "Entrypoint": [contents.path], "WorkingDir": "/", "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "fizz" }],
    })
    .to_string();
    let config_name = format!("{}.json", hex::encode(Sha256::digest(config.as_bytes())));
    let manifest = json!([{ "Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"] }]).to_string();
    let mut archive = tar::Builder::new(Vec::new());
    add_file(&mut archive, "layer.tar", 0o644, &layer)?;
    add_file(&mut archive, &config_name, 0o644, config.as_bytes())?;
    add_file(&mut archive, "manifest.json", 0o644, manifest.as_bytes())?;
    archive.into_inner().map(Bytes::from)
}

fn layer(contents: &ImageContents<'_>) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    add_file(&mut layer, contents.path.trim_start_matches('/'), 0o755, contents.program)?;
    for path in contents.folders {
        let mut folder = header(0o777, 0);
        folder.set_entry_type(tar::EntryType::Directory);
        layer.append_data(&mut folder, path.trim_start_matches('/'), std::io::empty())?;
    }
    layer.into_inner()
}

fn add_file(archive: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
    archive.append_data(&mut header(mode, bytes.len() as u64), name, bytes)
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header
}
