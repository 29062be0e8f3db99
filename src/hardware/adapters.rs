//! What is known about graphics adapters from the facts a driver gives: vendor, kind, duplicates. Pure; knows no graphics API.
//!
//! Invariants
//! - A card seen through several APIs or drivers is listed once, through the best of them; two equal cards stay two.
//! - A processor that pretends to be a card is labelled software whatever its driver says.

use crate::wire::node::{Gpu, GpuKind};

/// Graphics API, best first: where a card is seen through several, the first one is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Api {
    Vulkan,
    Dx12,
    Metal,
}

impl Api {
    const fn name(self) -> &'static str {
        match self {
            Self::Vulkan => "vulkan",
            Self::Dx12 => "dx12",
            Self::Metal => "metal",
        }
    }
}

/// An adapter in its driver's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) vendor: u32,
    pub(crate) device: u32,
    pub(crate) kind: GpuKind,
    pub(crate) api: Api,
    pub(crate) driver: String,
    pub(crate) driver_info: String,
    pub(crate) pci_address: String,
    pub(crate) subgroup_size_max: u32,
}

const NVIDIA: u32 = 0x10de;
const AMD: u32 = 0x1002;
const AMD_CPU: u32 = 0x1022;
const INTEL: u32 = 0x8086;
const APPLE: u32 = 0x106b;
const MICROSOFT: u32 = 0x1414;
const GOOGLE: u32 = 0x1ae0;
const MESA: u32 = 0x10005;

/// Lower-case parts of names that only software adapters have.
const SOFTWARE_NAMES: [&str; 6] =
    ["llvmpipe", "lavapipe", "swiftshader", "basic render", "softpipe", "software rasterizer"];

/// The adapter as it goes into the inventory.
pub(crate) fn describe(facts: &Facts) -> Gpu {
    let driver = [facts.driver.trim(), facts.driver_info.trim()];
    Gpu {
        name: facts.name.trim().to_owned(),
        vendor: vendor(facts.vendor, facts.api),
        kind: kind(facts),
        backend: facts.api.name().to_owned(),
        driver: driver.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "),
        pci_address: Some(facts.pci_address.trim().to_ascii_lowercase()).filter(|address| !address.is_empty()),
        uuid: None,
    }
}

/// Who made it, by PCI vendor id. Metal gives no ids for Apple's own.
fn vendor(id: u32, api: Api) -> String {
    match id {
        NVIDIA => "nvidia".to_owned(),
        AMD | AMD_CPU => "amd".to_owned(),
        INTEL => "intel".to_owned(),
        APPLE => "apple".to_owned(),
        0 if api == Api::Metal => "apple".to_owned(),
        other => format!("{other:#06x}"),
    }
}

fn kind(facts: &Facts) -> GpuKind {
    let name = facts.name.to_ascii_lowercase();
    let named = SOFTWARE_NAMES.iter().any(|software| name.contains(software));
    // Microsoft's adapters are WARP or stand for another card, Google's is SwiftShader, Mesa's own id is llvmpipe's.
    let made = [MICROSOFT, GOOGLE, MESA].contains(&facts.vendor);
    // NVIDIA's and AMD's hardware runs at least 32 lanes together. Fewer, and it is a processor under a borrowed name (as
    // wine's DX12 shows one). 0 is "not told".
    let impostor = [NVIDIA, AMD].contains(&facts.vendor) && (1..32).contains(&facts.subgroup_size_max);
    if named || made || impostor { GpuKind::Software } else { facts.kind }
}

/// Which of the adapters to keep: their indices, in the order given.
pub(crate) fn without_duplicates(adapters: &[Facts]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..adapters.len()).collect();
    order.sort_by_key(|index| adapters[*index].api);
    // For each kept one: the APIs through which it has been seen again.
    let mut kept: Vec<(usize, Vec<Api>)> = Vec::new();
    for index in order {
        let new = &adapters[index];
        let unclaimed = |(_, claimed): &&mut (usize, Vec<Api>)| !claimed.contains(&new.api);
        let by_address = kept.iter_mut().find(|(old, _)| same_card_by_address(&adapters[*old], new));
        let seen_before = match by_address {
            Some(seen) => Some(seen),
            None => kept.iter_mut().filter(unclaimed).find(|(old, _)| same_card_by_ids(&adapters[*old], new)),
        };
        match seen_before {
            Some((_, claimed)) => claimed.push(new.api),
            None => kept.push((index, Vec::new())),
        }
    }
    let mut indices: Vec<usize> = kept.into_iter().map(|(index, _)| index).collect();
    indices.sort_unstable();
    indices
}

/// The same slot. DX12's address is looked up by device id, so that it is the same for two equal cards: it proves nothing.
fn same_card_by_address(old: &Facts, new: &Facts) -> bool {
    let told = old.api == Api::Vulkan && new.api == Api::Vulkan && !old.pci_address.is_empty();
    told && old.pci_address.eq_ignore_ascii_case(&new.pci_address)
}

/// Seen through another API with the same ids; or the same software adapter again.
fn same_card_by_ids(old: &Facts, new: &Facts) -> bool {
    let same_ids = (old.vendor, old.device) == (new.vendor, new.device);
    let both_software = kind(old) == GpuKind::Software && kind(new) == GpuKind::Software;
    (same_ids && old.api != new.api) || (both_software && same_ids && old.name == new.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(api: Api, device: u32, pci_address: &str) -> Facts {
        Facts {
            name: format!("Example {device}"),
            vendor: NVIDIA,
            device,
            kind: GpuKind::Discrete,
            api,
            driver: "Example".into(),
            driver_info: "1.2".into(),
            pci_address: pci_address.into(),
            subgroup_size_max: 32,
        }
    }

    fn llvmpipe() -> Facts {
        Facts {
            name: "llvmpipe (LLVM 15.0.6, 256 bits)".into(),
            vendor: MESA,
            device: 0,
            kind: GpuKind::Software,
            api: Api::Vulkan,
            driver: "llvmpipe".into(),
            driver_info: "Mesa 22.3.6 (LLVM 15.0.6)".into(),
            pci_address: String::new(),
            subgroup_size_max: 8,
        }
    }

    #[test]
    fn vendors_are_named_by_their_pci_ids_and_others_by_the_id() {
        for (id, name) in [
            (0x10de, "nvidia"),
            (0x1002, "amd"),
            (0x1022, "amd"),
            (0x8086, "intel"),
            (0x106b, "apple"),
            (0x5143, "0x5143"),
            (0x10005, "0x10005"),
            (0, "0x0000"),
        ] {
            assert_eq!(vendor(id, Api::Vulkan), name);
        }
        assert_eq!(vendor(0, Api::Metal), "apple");
    }

    #[test]
    fn processors_that_pretend_are_software_whatever_their_driver_says() {
        let basic =
            Facts { name: "Microsoft Basic Render Driver".into(), vendor: MICROSOFT, ..card(Api::Dx12, 0x8c, "") };
        let swift =
            Facts { name: "SwiftShader Device (LLVM 10)".into(), vendor: GOOGLE, ..card(Api::Vulkan, 0xc0de, "") };
        let renamed = Facts { name: "llvmpipe".into(), vendor: 0x1234, kind: GpuKind::Virtual, ..llvmpipe() };
        let borrowed =
            Facts { name: "NVIDIA GeForce GTX 470".into(), subgroup_size_max: 8, ..card(Api::Dx12, 0x6cd, "") };
        for software in [basic, swift, renamed, borrowed, llvmpipe()] {
            assert_eq!(describe(&software).kind, GpuKind::Software, "{}", software.name);
        }
    }

    #[test]
    fn a_real_card_keeps_its_kind_also_when_its_subgroups_are_not_told() {
        assert_eq!(describe(&card(Api::Vulkan, 1, "0000:01:00.0")).kind, GpuKind::Discrete);
        assert_eq!(describe(&Facts { subgroup_size_max: 0, ..card(Api::Dx12, 1, "") }).kind, GpuKind::Discrete);
        let intel =
            Facts { vendor: INTEL, kind: GpuKind::Integrated, subgroup_size_max: 16, ..card(Api::Vulkan, 1, "") };
        assert_eq!(describe(&intel).kind, GpuKind::Integrated);
    }

    #[test]
    fn descriptions_carry_driver_and_address_in_one_form() {
        let gpu = describe(&card(Api::Vulkan, 1, "0000:0A:00.0"));
        assert_eq!(gpu.driver, "Example 1.2");
        assert_eq!(gpu.pci_address.as_deref(), Some("0000:0a:00.0"));
        assert_eq!(gpu.backend, "vulkan");
        assert_eq!(describe(&llvmpipe()).pci_address, None);
    }

    #[test]
    fn a_card_seen_through_vulkan_and_dx12_is_listed_once_through_vulkan() {
        let seen = [card(Api::Dx12, 1, "0000:01:00.0"), card(Api::Vulkan, 1, "0000:01:00.0")];
        assert_eq!(without_duplicates(&seen), [1]);
    }

    #[test]
    fn two_equal_cards_stay_two_though_dx12_gives_both_the_same_address() {
        let seen = [
            card(Api::Vulkan, 1, "0000:01:00.0"),
            card(Api::Vulkan, 1, "0000:02:00.0"),
            card(Api::Dx12, 1, "0000:01:00.0"),
            card(Api::Dx12, 1, "0000:01:00.0"),
        ];
        assert_eq!(without_duplicates(&seen), [0, 1]);
        assert_eq!(without_duplicates(&seen[2..]), [0, 1]);
    }

    #[test]
    fn a_card_only_dx12_sees_is_kept_beside_the_ones_both_see() {
        let seen = [card(Api::Vulkan, 1, ""), card(Api::Dx12, 1, ""), card(Api::Dx12, 1, ""), card(Api::Dx12, 2, "")];
        assert_eq!(without_duplicates(&seen), [0, 2, 3]);
    }

    #[test]
    fn two_vulkan_drivers_of_one_slot_are_one_card() {
        let other_driver = Facts { driver: "Another".into(), ..card(Api::Vulkan, 1, "0000:01:00.0") };
        assert_eq!(without_duplicates(&[card(Api::Vulkan, 1, "0000:01:00.0"), other_driver]), [0]);
    }

    #[test]
    fn a_software_adapter_listed_twice_is_one_and_a_card_beside_it_stays() {
        assert_eq!(without_duplicates(&[llvmpipe(), card(Api::Vulkan, 1, "0000:01:00.0"), llvmpipe()]), [0, 1]);
        assert_eq!(without_duplicates(&[]), Vec::<usize>::new());
    }
}
