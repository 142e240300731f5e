//! Capabilities and fingerprints.

use cofferdam_proto::compute::v1 as wire;

use super::spec::{
    isolation_from_wire, isolation_to_wire, limits_from_wire, limits_to_wire, network_from_wire,
    network_to_wire,
};
use super::{enums, plain};
use crate::driver::{
    Capabilities, Check, CheckResult, Execution, Fingerprint, Health, ImageSources, Resources,
};

enums!(health_to_wire, health_from_wire, Health, wire::Health:
    Unknown = Unspecified,
    Undetected = Undetected,
    Unhealthy = Unhealthy,
    Healthy = Healthy,
);

enums!(result_to_wire, result_from_wire, CheckResult, wire::CheckResult:
    Unknown = Unspecified,
    Passed = Passed,
    Warning = Warning,
    Failed = Failed,
);

pub fn capabilities_to_wire(capabilities: &Capabilities) -> wire::Capabilities {
    let execution = match capabilities.execution {
        Execution::Supervised => wire::Execution::Supervised,
        Execution::DriverExecuted => wire::Execution::DriverExecuted,
    };
    let images = capabilities.images;
    wire::Capabilities {
        execution: execution as i32,
        isolation: isolation_to_wire(capabilities.isolation),
        images: Some(wire::ImageSources {
            host: images.host,
            registry: images.registry,
            archive: images.archive,
        }),
        networks: capabilities
            .networks
            .iter()
            .map(|n| network_to_wire(*n))
            .collect(),
        limits: Some(limits_to_wire(capabilities.limits)),
        stop_start: capabilities.stop_start,
        pause: capabilities.pause,
        snapshot: capabilities.snapshot,
        console: capabilities.console,
        stats: capabilities.stats,
        gpu: capabilities.gpu,
        command_stdin: capabilities.command_stdin,
        command_files: capabilities.command_files,
        host_mounts: capabilities.host_mounts,
        choose_user: capabilities.choose_user,
    }
}

/// `None`: the driver does not say who executes, or says something this gateway does not know.
pub fn capabilities_from_wire(capabilities: wire::Capabilities) -> Option<Capabilities> {
    let execution = match wire::Execution::try_from(capabilities.execution) {
        Ok(wire::Execution::Supervised) => Execution::Supervised,
        Ok(wire::Execution::DriverExecuted) => Execution::DriverExecuted,
        Ok(wire::Execution::Unspecified) | Err(_) => return None,
    };
    let images = capabilities.images.unwrap_or_default();
    let networks = capabilities.networks.into_iter();
    Some(Capabilities {
        execution,
        isolation: isolation_from_wire(capabilities.isolation),
        images: ImageSources {
            host: images.host,
            registry: images.registry,
            archive: images.archive,
        },
        networks: networks.filter_map(network_from_wire).collect(),
        limits: limits_from_wire(capabilities.limits),
        stop_start: capabilities.stop_start,
        pause: capabilities.pause,
        snapshot: capabilities.snapshot,
        console: capabilities.console,
        stats: capabilities.stats,
        gpu: capabilities.gpu,
        command_stdin: capabilities.command_stdin,
        command_files: capabilities.command_files,
        host_mounts: capabilities.host_mounts,
        choose_user: capabilities.choose_user,
    })
}

pub fn fingerprint_to_wire(fingerprint: &Fingerprint) -> wire::FingerprintResponse {
    wire::FingerprintResponse {
        health: health_to_wire(fingerprint.health),
        reason: fingerprint.reason.clone(),
        fix: fingerprint.fix.clone(),
        attributes: fingerprint.attributes.clone().into_iter().collect(),
        capacity: Some(resources_to_wire(fingerprint.capacity)),
        used: Some(resources_to_wire(fingerprint.used)),
        limits: Some(limits_to_wire(fingerprint.limits)),
        checks: fingerprint.checks.iter().map(check_to_wire).collect(),
    }
}

pub fn fingerprint_from_wire(fingerprint: wire::FingerprintResponse) -> Fingerprint {
    let attributes = fingerprint.attributes.into_iter();
    Fingerprint {
        health: health_from_wire(fingerprint.health),
        reason: plain(fingerprint.reason),
        fix: plain(fingerprint.fix),
        attributes: attributes
            .map(|(name, value)| (plain(name), plain(value)))
            .collect(),
        capacity: resources_from_wire(fingerprint.capacity),
        used: resources_from_wire(fingerprint.used),
        limits: limits_from_wire(fingerprint.limits),
        checks: fingerprint
            .checks
            .into_iter()
            .map(check_from_wire)
            .collect(),
    }
}

fn resources_to_wire(resources: Resources) -> wire::Resources {
    wire::Resources {
        sandboxes: resources.sandboxes,
        cpu_millis: resources.cpu_millis,
        memory_bytes: resources.memory_bytes,
        disk_bytes: resources.disk_bytes,
    }
}

fn resources_from_wire(resources: Option<wire::Resources>) -> Resources {
    let resources = resources.unwrap_or_default();
    Resources {
        sandboxes: resources.sandboxes,
        cpu_millis: resources.cpu_millis,
        memory_bytes: resources.memory_bytes,
        disk_bytes: resources.disk_bytes,
    }
}

fn check_to_wire(check: &Check) -> wire::Check {
    wire::Check {
        id: check.id.clone(),
        result: result_to_wire(check.result),
        detail: check.detail.clone(),
        fix: check.fix.clone(),
    }
}

fn check_from_wire(check: wire::Check) -> Check {
    Check {
        id: plain(check.id),
        result: result_from_wire(check.result),
        detail: plain(check.detail),
        fix: plain(check.fix),
    }
}
