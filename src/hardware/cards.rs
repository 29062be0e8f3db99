//! Cards as the operating system knows them: PCI address, NVIDIA's UUID, render node. Cheap enough to look again and again; touches
//! no graphics driver but its files in `/proc` and `/sys`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::os;
use crate::runtime::gpu::GpuCard;
use crate::wire::node::Gpu;

/// Where NVIDIA's driver lists its cards, by PCI address.
const NVIDIA: &str = "proc/driver/nvidia/gpus";
/// Where the kernel lists render nodes.
const DRM: &str = "sys/class/drm";
/// A card's own text is short.
const INFORMATION_BYTES_MAX: u64 = 64 << 10;

/// The cards below `root`, which is `/` but in tests, by PCI address. What cannot be read is not there.
#[must_use]
pub fn look(root: &Path) -> Vec<GpuCard> {
    let mut cards: BTreeMap<String, GpuCard> = BTreeMap::new();
    let card = |pci: String| GpuCard { pci, uuid: None, render_node: None, group: 0 };
    for entry in names(&root.join(NVIDIA)) {
        let text = os::read_start(&root.join(NVIDIA).join(&entry).join("information"), INFORMATION_BYTES_MAX);
        let pci = entry.to_ascii_lowercase();
        if let Some(uuid) = text.as_deref().and_then(uuid_of) {
            cards.entry(pci.clone()).or_insert_with(|| card(pci)).uuid = Some(uuid);
        }
    }
    for entry in names(&root.join(DRM)).into_iter().filter(|name| name.starts_with("renderD")) {
        let device = std::fs::canonicalize(root.join(DRM).join(&entry).join("device"));
        let name = device.ok().and_then(|path| Some(path.file_name()?.to_str()?.to_ascii_lowercase()));
        let Some(pci) = name.filter(|name| is_pci_address(name)) else { continue };
        let found = cards.entry(pci.clone()).or_insert_with(|| card(pci));
        found.group = os::group_of(&root.join("dev/dri").join(&entry)).unwrap_or(0);
        found.render_node = Some(PathBuf::from("/dev/dri").join(&entry));
    }
    cards.into_values().collect()
}

/// Writes into each adapter what its driver calls this very card.
pub fn name_adapters(gpus: &mut [Gpu], cards: &[GpuCard]) {
    for gpu in gpus {
        let card = cards.iter().find(|card| gpu.pci_address.as_deref() == Some(card.pci.as_str()));
        gpu.uuid = card.and_then(|card| card.uuid.clone());
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// `GPU UUID: GPU-…` of the driver's text. A card that is not ready shows question marks.
fn uuid_of(information: &str) -> Option<String> {
    let (_, rest) = information.split_once("GPU UUID:")?;
    let uuid = rest.split_whitespace().next()?;
    (uuid.starts_with("GPU-") && !uuid.contains('?')).then(|| uuid.to_owned())
}

/// `0000:01:00.0`.
fn is_pci_address(name: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = name.split([':', '.']).collect();
    name.contains('.') && parts.len() == 4 && parts.into_iter().all(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for (pci, text) in [
            ("0000:0A:00.0", "Model: \t\t NVIDIA X\nIRQ:   \t\t 96\nGPU UUID: \t GPU-11\nVideo BIOS: \t 94\n"),
            ("0000:0b:00.0", "Model: Unknown\nGPU UUID: \t GPU-????????-????\n"),
        ] {
            std::fs::create_dir_all(at(NVIDIA).join(pci)).unwrap();
            std::fs::write(at(NVIDIA).join(pci).join("information"), text).unwrap();
        }
        for (node, pci) in [("renderD128", "0000:03:00.0"), ("renderD129", "0000:0a:00.0"), ("card0", "0000:03:00.0")] {
            std::fs::create_dir_all(at("sys/devices").join(pci)).unwrap();
            std::fs::create_dir_all(at(DRM).join(node)).unwrap();
            os::symlink(&at("sys/devices").join(pci), &at(DRM).join(node).join("device")).unwrap();
        }
        root
    }

    #[test]
    fn cards_are_found_by_their_address_whatever_their_number() {
        let root = machine();
        let cards = look(root.path());
        let seen: Vec<_> = cards.iter().map(|c| (c.pci.as_str(), c.uuid.as_deref(), c.render_node.clone())).collect();
        assert_eq!(
            seen,
            [
                ("0000:03:00.0", None, Some(PathBuf::from("/dev/dri/renderD128"))),
                ("0000:0a:00.0", Some("GPU-11"), Some(PathBuf::from("/dev/dri/renderD129"))),
            ],
            "a card that is not ready has no identity and is not there"
        );
        assert_eq!(look(&root.path().join("nothing")), []);
    }

    #[test]
    fn an_adapter_gets_the_identity_of_the_card_in_its_slot() {
        let mut gpu = crate::wire::node::Gpu {
            name: "NVIDIA X".into(),
            vendor: "nvidia".into(),
            kind: crate::wire::node::GpuKind::Discrete,
            backend: "vulkan".into(),
            driver: "x".into(),
            pci_address: Some("0000:0a:00.0".into()),
            uuid: None,
        };
        name_adapters(std::slice::from_mut(&mut gpu), &look(machine().path()));
        assert_eq!(gpu.uuid.as_deref(), Some("GPU-11"));
    }
}
