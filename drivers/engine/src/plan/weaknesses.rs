//! Where a sandbox is less than its spec or than the defaults: each a sentence, kept with it.

use cofferdam_driver_sdk::proto::{NetworkClass, SandboxSpec, mount};

use super::Place;
use super::mounts::unmounted_volumes;
use crate::driver_config::{DriverConfig, WorkspaceKind};
use crate::image::ImageFacts;

pub(super) fn of(
    spec: &SandboxSpec,
    config: &DriverConfig,
    image: &ImageFacts,
    place: Place<'_>,
) -> Vec<String> {
    let mut found = Vec::new();
    opened(spec, config, place, &mut found);
    not_enforced(spec, config, place, &mut found);
    for path in unmounted_volumes(spec, config, image) {
        found.push(format!(
            "the image declares a volume at {path}: it is an empty directory in memory here"
        ));
    }
    if config.image_user && image.user.is_none() {
        found.push(
            "the image's own user is root, or a name: the sandbox's user is used instead"
                .to_owned(),
        );
    }
    found
}

/// What somebody asked for that the defaults do not have.
fn opened(spec: &SandboxSpec, config: &DriverConfig, place: Place<'_>, found: &mut Vec<String>) {
    let class = spec.network.as_ref().map(|network| network.class());
    if let (Some(NetworkClass::Open), Some(name)) = (class, &place.config.open_network) {
        found.push(format!("it is on the engine's network {name}, unfiltered"));
    }
    if spec.root_writable {
        found.push("its root file system can be written, without bounds".to_owned());
    }
    if spec.gpus > 0 {
        found.push(format!("it has {} of the engine host's GPUs", spec.gpus));
    }
    let host_paths = spec.mounts.iter().filter_map(|mount| match &mount.source {
        Some(mount::Source::HostPath(path)) => Some((path, mount.read_only)),
        _ => None,
    });
    let binds = config
        .binds
        .iter()
        .map(|bind| (&bind.source, bind.read_only));
    for (path, read_only) in host_paths.chain(binds) {
        let how = if read_only { "read" } else { "read and write" };
        found.push(format!("it can {how} the engine host's {path}"));
    }
    for device in &config.devices {
        found.push(format!("it has the device {device}"));
    }
    for option in &config.security_options {
        found.push(format!("the security option {option} is set"));
    }
}

/// What was asked for and does not hold here.
fn not_enforced(
    spec: &SandboxSpec,
    config: &DriverConfig,
    place: Place<'_>,
    found: &mut Vec<String>,
) {
    let limits = spec.limits.unwrap_or_default();
    let can = place.facts.limits;
    let mut lacking = |wanted: bool, can: bool, sentence: &str| {
        if wanted && !can {
            found.push(sentence.to_owned());
        }
    };
    let kernel = "the kernel of the engine's host does not have it";
    lacking(
        limits.memory_bytes > 0,
        can.memory,
        &format!("the limit on memory is not enforced: {kernel}"),
    );
    lacking(
        limits.memory_bytes > 0,
        can.swap || !can.memory,
        "swap is not limited: the engine's host does not count it (swapaccount=1 on its kernel's \
         command line)",
    );
    lacking(
        limits.cpu_millis > 0,
        can.cpu,
        &format!("the limit on CPU time is not enforced: {kernel}"),
    );
    lacking(
        limits.pids > 0,
        can.pids,
        &format!("the limit on processes is not enforced: {kernel}"),
    );
    lacking(
        limits.disk_bytes > 0,
        config.workspace == WorkspaceKind::Memory,
        "the limit on the workspace's size is not enforced: an engine's volumes have no bounds \
         (driver_config workspace = \"memory\" has)",
    );
    lacking(
        true,
        config.workspace == WorkspaceKind::Volume,
        "the workspace is in memory and is empty again after a stop",
    );
    lacking(
        true,
        place.facts.seccomp,
        "there is no seccomp filter: the engine does not set one",
    );
}
