//! Everything that an engine, or its operator, finds wrong with a spec.

use std::collections::HashMap;
use std::path::Path;

use cofferdam_driver_sdk::proto::{FieldViolation, SandboxSpec, image_spec, mount};
use cofferdam_driver_sdk::settings;
use cofferdam_driver_sdk::spec::Violations;

use super::mounts::targets;
use crate::driver_config::DriverConfig;
use crate::facts::EngineFacts;
use crate::image::Reference;
use crate::labels;
use crate::settings::Config;

/// Where the kernel's own file systems are.
const KERNEL_DIRS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// `driver_config`, or what is wrong with it.
pub(crate) fn driver_config(spec: &SandboxSpec) -> Result<DriverConfig, Vec<FieldViolation>> {
    settings::driver_config(spec)
}

/// All violations of a spec that the server has found valid. Without facts (the engine is away)
/// what depends on them is left out.
pub(crate) fn check(
    spec: &SandboxSpec,
    config: &Config,
    facts: Option<&EngineFacts>,
) -> Vec<FieldViolation> {
    let mut found = Violations::new();
    image(spec, config, &mut found);
    for (index, wanted) in spec.mounts.iter().enumerate() {
        let field = |name: &str| format!("mounts[{index}].{name}");
        match &wanted.source {
            Some(mount::Source::Volume(name)) => volume(&field("volume"), name, config, &mut found),
            Some(mount::Source::HostPath(path)) => {
                bind(&field("host_path"), path, config, &mut found);
            }
            Some(mount::Source::Tmpfs(_)) | None => {}
        }
    }
    for name in spec.labels.keys().filter(|name| labels::is_own(name)) {
        found.add(
            format!("labels[{name:?}]"),
            "labels that begin with \"cofferdam.driver.\" are the driver's",
        );
    }
    match driver_config(spec) {
        Ok(own) => {
            only_here(&own, config, facts, &mut found);
            no_overlaps(spec, &own, &mut found);
        }
        Err(violations) => found.extend(violations),
    }
    found.into_vec()
}

fn image(spec: &SandboxSpec, config: &Config, found: &mut Violations) {
    let source = spec.image.as_ref().and_then(|image| image.source.as_ref());
    match source {
        Some(image_spec::Source::Reference(text)) => {
            if let Err(error) = Reference::parse(text) {
                found.add("image.reference", error.to_string());
            }
        }
        Some(image_spec::Source::Archive(path)) => {
            let path = Path::new(path);
            found.check(
                config.archive_paths.iter().any(|dir| path.starts_with(dir)),
                "image.archive",
                "is not below a directory that the operator allowed (archive_paths)",
            );
        }
        // The server has refused them.
        Some(image_spec::Source::Host(_)) | None => {}
    }
}

fn only_here(
    own: &DriverConfig,
    config: &Config,
    facts: Option<&EngineFacts>,
    found: &mut Violations,
) {
    for (index, wanted) in own.volumes.iter().enumerate() {
        let field = format!("driver_config.volumes[{index}].name");
        volume(&field, &wanted.name, config, found);
    }
    for (index, wanted) in own.binds.iter().enumerate() {
        let field = format!("driver_config.binds[{index}].source");
        bind(&field, &wanted.source, config, found);
    }
    for (index, device) in own.devices.iter().enumerate() {
        found.check(
            config.allowed_devices.contains(device),
            &format!("driver_config.devices[{index}]"),
            "is not a device that the operator allowed (allowed_devices)",
        );
    }
    for (index, option) in own.security_options.iter().enumerate() {
        found.check(
            config.allowed_security_options.contains(option),
            &format!("driver_config.security_options[{index}]"),
            "is not an option that the operator allowed (allowed_security_options)",
        );
    }
    if let Some(runtime) = &own.runtime {
        found.check(
            config.allowed_runtimes.contains(runtime),
            "driver_config.runtime",
            "is not a runtime that the operator allowed (allowed_runtimes)",
        );
        let is_missing = facts
            .is_some_and(|facts| !facts.runtimes.is_empty() && !facts.runtimes.contains(runtime));
        found.check(
            !is_missing,
            "driver_config.runtime",
            "is not a runtime that the engine has",
        );
    }
}

fn volume(field: &str, name: &str, config: &Config, found: &mut Violations) {
    found.check(
        config.allows_volume(name),
        field,
        "is not a volume that the operator allowed (allowed_volumes)",
    );
}

/// The path is one of the engine's host, so links in it cannot be followed here; an operator allows
/// only paths in which nobody else makes links.
fn bind(field: &str, path: &str, config: &Config, found: &mut Violations) {
    let path = Path::new(path);
    let is_plain = path.is_absolute() && path.components().all(|part| part.as_os_str() != "..");
    found.check(
        is_plain && config.allows_bind(path),
        field,
        "is not at or below a path that the operator allowed (bind_paths)",
    );
}

fn no_overlaps(spec: &SandboxSpec, own: &DriverConfig, found: &mut Violations) {
    let mut taken: HashMap<&str, String> = HashMap::from([("/tmp", "/tmp".to_owned())]);
    for (field, target) in targets(spec, own) {
        let path = Path::new(target);
        let is_plain = path.is_absolute()
            && target.len() > 1
            && path.components().all(|part| part.as_os_str() != "..");
        found.check(
            is_plain,
            &field,
            "must be an absolute path without \"..\", and not the root",
        );
        found.check(
            !KERNEL_DIRS.iter().any(|dir| path.starts_with(dir)),
            &field,
            "must not be in /proc, /sys or /dev",
        );
        if let Some(other) = taken.insert(target, field.clone()) {
            // The server has found pairs within `mounts`.
            if !(field.starts_with("mounts") && other.starts_with("mounts")) {
                found.add(
                    field,
                    format!("{target:?} is the target of {other} already"),
                );
            }
        }
    }
}
