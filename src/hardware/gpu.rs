//! Graphics adapters as wgpu lists them. Maps drivers into the process: only the benchmark child comes here.

use super::adapters::{self, Api, Facts};
use crate::os;
use crate::wire::node::{Gpu, GpuKind};

/// An adapter that can be opened, and its description.
#[derive(Debug)]
pub(crate) struct Adapter {
    pub(crate) handle: wgpu::Adapter,
    pub(crate) gpu: Gpu,
}

/// All adapters of this machine, every card once.
pub(crate) fn list() -> Vec<Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::DX12 | wgpu::Backends::METAL;
    // No debug output or validation layers, in debug builds either: they slow down what is measured.
    descriptor.flags = wgpu::InstanceFlags::empty();
    let backends = descriptor.backends;
    let instance = wgpu::Instance::new(descriptor);
    let found: Vec<(wgpu::Adapter, Facts)> = pollster::block_on(instance.enumerate_adapters(backends))
        .into_iter()
        .filter_map(|handle| facts(&handle.get_info()).map(|facts| (handle, facts)))
        .collect();
    let all_facts: Vec<Facts> = found.iter().map(|(_, facts)| facts.clone()).collect();
    let kept = adapters::without_duplicates(&all_facts);
    let kept = found.into_iter().enumerate().filter(|(index, _)| kept.contains(index));
    kept.map(|(_, (handle, facts))| Adapter { handle, gpu: adapters::describe(&facts) }).collect()
}

fn facts(info: &wgpu::AdapterInfo) -> Option<Facts> {
    let api = match info.backend {
        wgpu::Backend::Vulkan => Api::Vulkan,
        wgpu::Backend::Dx12 => Api::Dx12,
        wgpu::Backend::Metal => Api::Metal,
        wgpu::Backend::Noop | wgpu::Backend::Gl | wgpu::Backend::BrowserWebGpu => return None,
    };
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => GpuKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => GpuKind::Integrated,
        wgpu::DeviceType::VirtualGpu => GpuKind::Virtual,
        wgpu::DeviceType::Cpu => GpuKind::Software,
        wgpu::DeviceType::Other => GpuKind::Unknown,
    };
    Some(Facts {
        name: info.name.clone(),
        vendor: info.vendor,
        device: info.device,
        kind,
        api,
        driver: info.driver.clone(),
        driver_info: info.driver_info.clone(),
        pci_address: info.device_pci_bus_id.clone(),
        subgroup_size_max: info.subgroup_max_size,
    })
}

/// What to do where no adapter was found, as a sentence.
pub(crate) fn none_found() -> String {
    if let Some(node) = os::unreachable_render_node() {
        return format!(
            "no graphics adapter can be used: no permission to open {node}; add yourself to its group: \
             `sudo usermod -aG render $USER`, then log in again"
        );
    }
    let what_to_do = if cfg!(target_os = "linux") {
        "install the Vulkan loader and your card's driver (`sudo apt-get install libvulkan1 mesa-vulkan-drivers` for AMD, \
         Intel and the software adapter, NVIDIA's own package for NVIDIA)"
    } else {
        "install or update your graphics card's driver"
    };
    format!("no graphics adapter was found; {what_to_do}, then run `fizz bench`")
}
