//! A container's GPUs in the engine's own words.
//!
//! NVIDIA's by CDI where a specification of the engine's names all of them, else by a device request with exactly their UUIDs.
//! Others by their render node and the group that may open it; no other device comes along.

use bollard::models::{DeviceMapping, DeviceRequest};

use super::super::gpu::{GpuAbilities, GpuBinding};

/// What of a container's configuration is about its GPUs.
#[derive(Debug, Default, PartialEq)]
pub(super) struct GpuWords {
    pub(super) requests: Option<Vec<DeviceRequest>>,
    pub(super) devices: Option<Vec<DeviceMapping>>,
    pub(super) groups: Option<Vec<String>>,
}

/// How to ask for these.
pub(super) fn words(gpus: &[GpuBinding], abilities: &GpuAbilities) -> GpuWords {
    let mut uuids = Vec::new();
    let mut devices = Vec::new();
    let mut groups = Vec::new();
    for gpu in gpus {
        match gpu {
            GpuBinding::Nvidia { uuid } => uuids.push(uuid.clone()),
            GpuBinding::RenderNode { path, group, .. } => {
                devices.push(DeviceMapping {
                    path_on_host: Some(path.clone()),
                    path_in_container: Some(path.clone()),
                    cgroup_permissions: Some("rw".to_owned()),
                });
                groups.push(group.to_string());
            }
        }
    }
    groups.dedup();
    let some = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
    GpuWords {
        requests: request(uuids, abilities).map(|request| vec![request]),
        devices: Some(devices).filter(|devices| !devices.is_empty()),
        groups: some(groups),
    }
}

fn request(uuids: Vec<String>, abilities: &GpuAbilities) -> Option<DeviceRequest> {
    if uuids.is_empty() {
        return None;
    }
    Some(if uuids.iter().all(|uuid| abilities.cdi_uuids.contains(uuid)) {
        let names = uuids.iter().map(|uuid| format!("nvidia.com/gpu={uuid}")).collect();
        DeviceRequest { driver: Some("cdi".to_owned()), device_ids: Some(names), ..DeviceRequest::default() }
    } else {
        let capabilities = ["gpu", "compute", "utility"].map(str::to_owned).to_vec();
        DeviceRequest {
            driver: Some("nvidia".to_owned()),
            device_ids: Some(uuids),
            capabilities: Some(vec![capabilities]),
            ..DeviceRequest::default()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nvidia(uuid: &str) -> GpuBinding {
        GpuBinding::Nvidia { uuid: uuid.into() }
    }

    #[test]
    fn nvidia_goes_through_cdi_when_the_specification_names_this_very_card_and_by_uuid_else() {
        let cdi = GpuAbilities { local: true, cdi_uuids: vec!["GPU-a".into()], nvidia_requests: true };
        let asked = serde_json::to_value(words(&[nvidia("GPU-a")], &cdi).requests).unwrap();
        assert_eq!(asked, serde_json::json!([{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-a"]}]));
        let asked = serde_json::to_value(words(&[nvidia("GPU-a"), nvidia("GPU-b")], &cdi).requests).unwrap();
        assert_eq!(
            asked,
            serde_json::json!([{"Driver": "nvidia", "DeviceIDs": ["GPU-a", "GPU-b"], "Capabilities": [["gpu", "compute", "utility"]]}])
        );
    }

    #[test]
    fn a_render_node_comes_alone_with_the_group_that_may_open_it() {
        let node =
            |n: u32| GpuBinding::RenderNode { path: format!("/dev/dri/renderD{n}"), pci: format!("{n}"), group: 105 };
        let asked = words(&[node(128), node(129)], &GpuAbilities::default());
        assert_eq!(asked.requests, None);
        assert_eq!(asked.groups, Some(vec!["105".to_owned()]));
        let devices = serde_json::to_value(asked.devices).unwrap();
        assert_eq!(
            devices[0],
            serde_json::json!({"PathOnHost": "/dev/dri/renderD128", "PathInContainer": "/dev/dri/renderD128", "CgroupPermissions": "rw"})
        );
        assert_eq!(words(&[], &GpuAbilities::default()), GpuWords::default());
    }
}
