//! What a driver of an engine can do with its settings, or, before there are any, with the defaults.

use cofferdam_driver_sdk::capabilities::supervised;
use cofferdam_driver_sdk::proto::{Capabilities, ImageSources, Isolation, Limits, NetworkClass};

use crate::settings::Config;

/// Runtimes that put more than a kernel's namespaces between a container and the host.
const USERSPACE_KERNELS: [&str; 1] = ["runsc"];
const VIRTUAL_MACHINES: [&str; 4] = ["kata", "kata-runtime", "kata-qemu", "krun"];

pub(crate) fn of(config: Option<&Config>) -> Capabilities {
    let mut networks = vec![NetworkClass::None.into()];
    if config.is_some_and(|config| config.open_network.is_some()) {
        networks.push(NetworkClass::Open.into());
    }
    let runtime = config.and_then(|config| config.runtime.as_deref());
    Capabilities {
        images: Some(ImageSources {
            host: false,
            registry: true,
            archive: config.is_some_and(|config| !config.archive_paths.is_empty()),
        }),
        networks,
        // What an engine can do. Whether its host lets it is in the fingerprint. A volume has no
        // bound, so the disk is not among them.
        limits: Some(Limits {
            memory: true,
            cpu: true,
            pids: true,
            disk: false,
        }),
        stop_start: true,
        pause: true,
        console: true,
        stats: true,
        gpu: config.is_some_and(|config| config.allow_gpus),
        host_mounts: config.is_some_and(|config| !config.bind_paths.is_empty()),
        choose_user: true,
        ..supervised(isolation(runtime))
    }
}

/// A caller can choose another runtime only among those that the operator allowed.
fn isolation(runtime: Option<&str>) -> Isolation {
    match runtime {
        Some(name) if USERSPACE_KERNELS.contains(&name) => Isolation::UserspaceKernel,
        Some(name) if VIRTUAL_MACHINES.contains(&name) => Isolation::VirtualMachine,
        _ => Isolation::Container,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_decides_about_isolation() {
        assert_eq!(isolation(None), Isolation::Container);
        assert_eq!(isolation(Some("runsc")), Isolation::UserspaceKernel);
        assert_eq!(isolation(Some("kata")), Isolation::VirtualMachine);
        assert_eq!(of(None).isolation(), Isolation::Container);
    }
}
