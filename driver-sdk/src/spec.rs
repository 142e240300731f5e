//! What is wrong with a sandbox spec: everything at once, in the words of its fields.
//!
//! [`validate`] holds what follows from the contract and from a driver's capabilities; a driver
//! adds only what its platform knows. [`SpecDigest`] is what "the same spec" means.

mod digest;
mod violations;

use std::collections::HashSet;

use crate::proto::{
    Capabilities, FieldViolation, Isolation, Limits, Mount, NetworkClass, PullPolicy, SandboxSpec,
    image_spec, mount,
};

pub use digest::SpecDigest;
pub use violations::Violations;

/// Bounds of the contract (its rule 7).
pub mod bounds {
    /// Bytes of a string.
    pub const STRING_BYTES_MAX: usize = 1024;
    /// Bytes of an id.
    pub const ID_BYTES_MAX: usize = 63;
    /// Entries of a map.
    pub const MAP_ENTRIES_MAX: usize = 64;
    /// Bytes of a map's key.
    pub const MAP_KEY_BYTES_MAX: usize = 256;
    /// Bytes of a map's value.
    pub const MAP_VALUE_BYTES_MAX: usize = 4096;
    /// Items of a list.
    pub const LIST_ITEMS_MAX: usize = 1024;
    /// Bytes of `driver_config`, and of settings.
    pub const STRUCT_BYTES_MAX: usize = 256 * 1024;
    /// Bytes of a message.
    pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
}

/// Whether `value` is an id in the contract's sense.
#[must_use]
pub fn is_id(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= bounds::ID_BYTES_MAX
        && !value.starts_with('-')
        && value
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Everything that is wrong with `spec` for a driver that can do `capabilities`, apart from
/// `driver_config` (see [`settings`](crate::settings)) and from what only the platform knows.
#[must_use]
pub fn validate(spec: &SandboxSpec, capabilities: &Capabilities) -> Vec<FieldViolation> {
    let mut found = Violations::new();
    image(spec, capabilities, &mut found);
    limits(spec, capabilities, &mut found);
    network(spec, capabilities, &mut found);
    mounts(&spec.mounts, capabilities, &mut found);
    found.map("labels", spec.labels.iter());
    identity(spec, &mut found);
    if spec.expire_time_unix_ms == 0 {
        found.add("expire_time_unix_ms", "must be set: nothing lives for ever");
    }
    if spec.gpus > 0 && !capabilities.gpu {
        found.add("gpus", "this driver gives no GPUs; must be 0");
    }
    isolation(spec, capabilities, &mut found);
    found.into_vec()
}

fn image(spec: &SandboxSpec, capabilities: &Capabilities, found: &mut Violations) {
    let can = capabilities.images.unwrap_or_default();
    let image = spec.image.as_ref();
    match image.and_then(|image| image.source.as_ref()) {
        None => found.add("image", "must have a source: host, reference or archive"),
        Some(image_spec::Source::Host(_)) => found.check(
            can.host,
            "image.host",
            "this driver cannot use the host's own system directories",
        ),
        Some(image_spec::Source::Reference(reference)) => {
            found.string("image.reference", reference);
            found.check(
                !reference.is_empty(),
                "image.reference",
                "must not be empty",
            );
            found.check(
                can.registry,
                "image.reference",
                "this driver cannot use images from registries",
            );
        }
        Some(image_spec::Source::Archive(path)) => {
            found.string("image.archive", path);
            absolute_path("image.archive", path, found);
            found.check(
                can.archive,
                "image.archive",
                "this driver cannot use local archives",
            );
        }
    }
    if let Some(image) = image {
        if PullPolicy::try_from(image.pull).is_err() {
            unknown("image.pull", image.pull, found);
        }
        found.string("image.platform", &image.platform);
        if let Some(credentials) = &image.credentials {
            // Tokens of registries are long: the bound of a map's value, not that of a string.
            let fits = |value: &str| value.len() <= bounds::MAP_VALUE_BYTES_MAX;
            found.string("image.credentials.username", &credentials.username);
            found.check(
                fits(&credentials.password) && fits(&credentials.identity_token),
                "image.credentials",
                "a password or token may have 4096 bytes",
            );
        }
    }
}

/// What is asked for by a value that is not known cannot be given, and something else must not be.
fn unknown(field: &str, value: i32, found: &mut Violations) {
    found.add(field, format!("{value} is not known to this driver"));
}

fn limits(spec: &SandboxSpec, capabilities: &Capabilities, found: &mut Violations) {
    let Some(limits) = &spec.limits else { return };
    let Some(required) = &limits.required else {
        return;
    };
    let can = capabilities.limits.unwrap_or_default();
    for (name, required, enforced) in each_limit(required, &can) {
        if required && !enforced {
            found.add(
                format!("limits.required.{name}"),
                format!("this driver cannot enforce a {name} limit here"),
            );
        }
    }
}

fn each_limit(a: &Limits, b: &Limits) -> [(&'static str, bool, bool); 4] {
    [
        ("memory", a.memory, b.memory),
        ("cpu", a.cpu, b.cpu),
        ("pids", a.pids, b.pids),
        ("disk", a.disk, b.disk),
    ]
}

fn network(spec: &SandboxSpec, capabilities: &Capabilities, found: &mut Violations) {
    let Some(network) = &spec.network else {
        return;
    };
    found.list("network.allow", network.allow.len());
    for (index, rule) in network.allow.iter().enumerate() {
        found.string(&format!("network.allow[{index}]"), rule);
    }
    let class = match NetworkClass::try_from(network.class) {
        Ok(NetworkClass::Unspecified) => NetworkClass::None,
        Ok(class) => class,
        Err(_) => return unknown("network.class", network.class, found),
    };
    if !capabilities.networks.contains(&i32::from(class)) {
        let can: Vec<_> = capabilities
            .networks()
            .map(|class| class.as_str_name())
            .collect();
        found.add(
            "network.class",
            format!(
                "{} is not enforced by this driver, which has {}",
                class.as_str_name(),
                can.join(", ")
            ),
        );
    }
    if class != NetworkClass::Egress && !network.allow.is_empty() {
        found.add("network.allow", "only has a meaning with the class EGRESS");
    }
}

fn mounts(mounts: &[Mount], capabilities: &Capabilities, found: &mut Violations) {
    found.list("mounts", mounts.len());
    let mut targets = HashSet::new();
    for (index, mount) in mounts.iter().enumerate() {
        let field = |name: &str| format!("mounts[{index}].{name}");
        found.string(&field("target"), &mount.target);
        absolute_path(&field("target"), &mount.target, found);
        if !targets.insert(mount.target.as_str()) {
            found.add(field("target"), "is the target of another mount already");
        }
        match &mount.source {
            None => found.add(
                format!("mounts[{index}]"),
                "must have a source: host_path, volume or tmpfs",
            ),
            Some(mount::Source::HostPath(path)) => {
                found.string(&field("host_path"), path);
                absolute_path(&field("host_path"), path, found);
                found.check(
                    capabilities.host_mounts,
                    &field("host_path"),
                    "the operator of this driver allows no host paths",
                );
            }
            Some(mount::Source::Volume(name)) => {
                found.string(&field("volume"), name);
                found.check(!name.is_empty(), &field("volume"), "must not be empty");
            }
            Some(mount::Source::Tmpfs(_)) => {}
        }
    }
}

fn identity(spec: &SandboxSpec, found: &mut Violations) {
    found.string("workspace", &spec.workspace);
    if !spec.workspace.is_empty() {
        absolute_path("workspace", &spec.workspace, found);
    }
    if !spec.hostname.is_empty() && !is_hostname(&spec.hostname) {
        found.add(
            "hostname",
            "must be 1 to 63 letters, digits and dashes, with no dash at an end",
        );
    }
    for (field, id) in [("uid", spec.uid), ("gid", spec.gid)] {
        found.check(id < u32::MAX, field, "4294967295 is no id");
    }
}

fn isolation(spec: &SandboxSpec, capabilities: &Capabilities, found: &mut Violations) {
    let name = |isolation: i32| {
        Isolation::try_from(isolation).map_or("UNKNOWN", |isolation| isolation.as_str_name())
    };
    if spec.isolation_min > capabilities.isolation {
        found.add(
            "isolation_min",
            format!(
                "{} is asked for, and this driver gives {}",
                name(spec.isolation_min),
                name(capabilities.isolation)
            ),
        );
    }
}

/// Absolute, without `.`, `..`, empty parts or NUL, and not the root itself.
fn absolute_path(field: &str, path: &str, found: &mut Violations) {
    let normal = path.strip_prefix('/').is_some_and(|rest| {
        !rest.contains('\0') && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
    });
    found.check(
        normal,
        field,
        "must be an absolute path without \".\", \"..\" and doubled or trailing slashes",
    );
}

fn is_hostname(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests;
