//! GPUs for containers: which card can be handed over, how, and what must not come with it. Pure.
//!
//! Invariants
//! - A card is known by what stays the same: NVIDIA's by the driver's UUID, others by PCI address. Never by an index, which changes
//!   when a card is added or the machine starts anew.
//! - A card counts only if this engine can hand over exactly it.
//! - Variables that NVIDIA's toolkit or the loader of its hooks acts on reach it neither from a job nor from an image.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A card as the operating system knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuCard {
    /// PCI address `0000:01:00.0`, lower case.
    pub pci: String,
    /// The NVIDIA driver's identifier `GPU-…`; others have none.
    pub uuid: Option<String>,
    /// Its render node, `/dev/dri/renderD128`.
    pub render_node: Option<PathBuf>,
    /// Group of that node; 0 when it is root's or there is none.
    pub group: u32,
}

/// A card as a container gets it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum GpuBinding {
    /// Through NVIDIA's toolkit.
    Nvidia {
        /// `GPU-…`.
        uuid: String,
    },
    /// AMD's and Intel's: that device and nothing else.
    RenderNode {
        /// `/dev/dri/renderD128`.
        path: String,
        /// Where the card sits; the node's number may change, this does not.
        pci: String,
        /// Group that may open it.
        group: u32,
    },
}

/// What an engine can do with cards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuAbilities {
    /// Whether the engine runs on this machine itself, so that its devices are the engine's.
    pub local: bool,
    /// NVIDIA's cards that a CDI specification of the engine's names, by UUID.
    pub cdi_uuids: Vec<String>,
    /// Whether the engine has NVIDIA's toolkit for device requests.
    pub nvidia_requests: bool,
}

/// The card as this engine can hand it over; nothing when it cannot.
#[must_use]
pub fn bind(card: &GpuCard, abilities: &GpuAbilities) -> Option<GpuBinding> {
    if !abilities.local {
        return None;
    }
    if let Some(uuid) = &card.uuid {
        let can = abilities.nvidia_requests || abilities.cdi_uuids.contains(uuid);
        return can.then(|| GpuBinding::Nvidia { uuid: uuid.clone() });
    }
    let path = card.render_node.as_ref()?.to_str()?.to_owned();
    Some(GpuBinding::RenderNode { path, pci: card.pci.clone(), group: card.group })
}

/// The UUIDs that a CDI specification of NVIDIA's names, YAML or JSON.
#[must_use]
pub fn cdi_uuids(specification: &str) -> Vec<String> {
    if !specification.contains("nvidia.com/gpu") {
        return Vec::new();
    }
    let names = specification.split(['\n', ',', '{', '}']).filter_map(|part| {
        let (key, value) = part.split_once(':')?;
        let plain = |text: &str| text.trim().trim_start_matches('-').trim().trim_matches(['"', '\'']).to_owned();
        (plain(key) == "name").then(|| plain(value))
    });
    names.filter(|name| name.starts_with("GPU-")).collect()
}

/// Whether a variable must not reach a container.
///
/// `NVIDIA_*` tells the toolkit which cards and which of the host's files to hand over, also where the engine runs every container
/// through it. `LD_*` and the like are obeyed by the loader of the toolkit's hooks, which run as the host's root with the
/// container's environment (CVE-2025-23266), so they go where a GPU is given. What only programs inside act on
/// (`CUDA_VISIBLE_DEVICES`) stays.
#[must_use]
pub fn is_stripped(name: &str, with_gpus: bool) -> bool {
    let upper = name.to_ascii_uppercase();
    let loader = upper.starts_with("LD_") || matches!(upper.as_str(), "GLIBC_TUNABLES" | "GCONV_PATH" | "LOCPATH");
    upper.starts_with("NVIDIA_") || (with_gpus && loader)
}

/// A command that shows from inside whether the container still has its GPU: 0 when it has, 1 when it was taken. Where the image
/// has no shell nothing can be shown.
#[must_use]
pub fn check_command(binding: &GpuBinding) -> Vec<String> {
    let line = match binding {
        GpuBinding::Nvidia { uuid } => format!(
            "if command -v nvidia-smi >/dev/null; then nvidia-smi -L | grep -q '{uuid}' || exit 1; \
             else : </dev/nvidiactl || exit 1; fi"
        ),
        GpuBinding::RenderNode { path, .. } => format!("(: <>'{path}') || exit 1"),
    };
    ["/bin/sh", "-c", &line].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nvidia(uuid: &str) -> GpuCard {
        GpuCard {
            pci: "0000:01:00.0".into(),
            uuid: Some(uuid.into()),
            render_node: Some("/dev/dri/renderD128".into()),
            group: 0,
        }
    }

    fn amd() -> GpuCard {
        GpuCard { pci: "0000:0a:00.0".into(), uuid: None, render_node: Some("/dev/dri/renderD129".into()), group: 105 }
    }

    #[test]
    fn a_card_counts_only_if_this_engine_can_hand_over_exactly_it() {
        let local = GpuAbilities { local: true, ..GpuAbilities::default() };
        assert_eq!(bind(&nvidia("GPU-a"), &local), None, "no toolkit");
        let cdi = GpuAbilities { cdi_uuids: vec!["GPU-a".into()], ..local.clone() };
        assert_eq!(bind(&nvidia("GPU-a"), &cdi), Some(GpuBinding::Nvidia { uuid: "GPU-a".into() }));
        assert_eq!(bind(&nvidia("GPU-b"), &cdi), None, "the specification does not name this very card");
        let requests = GpuAbilities { nvidia_requests: true, ..local.clone() };
        assert!(bind(&nvidia("GPU-b"), &requests).is_some());
        let node = GpuBinding::RenderNode { path: "/dev/dri/renderD129".into(), pci: amd().pci, group: 105 };
        assert_eq!(bind(&amd(), &local), Some(node));
        assert_eq!(
            bind(&amd(), &GpuAbilities { local: false, ..requests }),
            None,
            "the engine's machine is another one"
        );
        assert_eq!(bind(&GpuCard { render_node: None, ..amd() }, &local), None);
    }

    #[test]
    fn specifications_are_read_in_both_of_their_forms() {
        let yaml = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: \"0\"\n- name: GPU-1-2\n- name: all\n";
        let json = r#"{"cdiVersion":"0.5.0","kind":"nvidia.com/gpu","devices":[{"name":"GPU-3","containerEdits":{}}]}"#;
        assert_eq!(cdi_uuids(yaml), ["GPU-1-2"]);
        assert_eq!(cdi_uuids(json), ["GPU-3"]);
        assert_eq!(cdi_uuids("kind: other.com/gpu\ndevices:\n- name: GPU-1\n"), Vec::<String>::new());
    }

    #[test]
    fn what_the_toolkit_acts_on_is_stripped_and_what_programs_inside_act_on_stays() {
        for always in ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "nvidia_visible_devices"] {
            assert!(is_stripped(always, false) && is_stripped(always, true), "{always}");
        }
        for with_gpus in ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GLIBC_TUNABLES"] {
            assert!(is_stripped(with_gpus, true) && !is_stripped(with_gpus, false), "{with_gpus}");
        }
        for never in ["CUDA_VISIBLE_DEVICES", "PATH", "HOME", "OLD_PATH"] {
            assert!(!is_stripped(never, true), "{never}");
        }
    }
}
