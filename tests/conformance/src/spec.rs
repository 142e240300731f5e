//! The sandboxes that the suite asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use cofferdam_gateway::driver::convert::struct_to_wire;
use cofferdam_proto::compute::v1::{
    Capabilities, HostImage, ImageSpec, NetworkClass, NetworkSpec, ResourceLimits, SandboxSpec,
    image_spec,
};

use crate::config::SandboxConfig;
use crate::wait;

/// Long enough for every case, and the end of what a run that was killed leaves behind.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

const MIB: u64 = 1 << 20;

/// A small sandbox that this driver should be able to make.
pub(crate) fn plain(config: &SandboxConfig, can: &Capabilities) -> SandboxSpec {
    let labels = BTreeMap::from([("purpose".to_owned(), "conformance".to_owned())]);
    let driver_config = &config.driver_config;
    SandboxSpec {
        image: Some(ImageSpec {
            source: Some(image(config)),
            ..ImageSpec::default()
        }),
        uid: config.uid,
        gid: config.gid,
        limits: Some(ResourceLimits {
            memory_bytes: 256 * MIB,
            cpu_millis: 1000,
            pids: 128,
            disk_bytes: 64 * MIB,
            tmp_bytes: 16 * MIB,
            required: None,
        }),
        network: Some(NetworkSpec {
            class: network(can).into(),
            allow: Vec::new(),
        }),
        labels,
        expire_time_unix_ms: expire_in(LIFETIME),
        driver_config: (!driver_config.is_empty()).then(|| struct_to_wire(driver_config)),
        ..SandboxSpec::default()
    }
}

/// `expire_time_unix_ms`, so far from now.
pub(crate) fn expire_in(lifetime: Duration) -> u64 {
    let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
    wait::now_ms().saturating_add(lifetime_ms)
}

fn image(config: &SandboxConfig) -> image_spec::Source {
    match (&config.image, &config.archive) {
        (Some(reference), _) => image_spec::Source::Reference(reference.clone()),
        (None, Some(path)) => image_spec::Source::Archive(path.to_string_lossy().into_owned()),
        (None, None) => image_spec::Source::Host(HostImage {}),
    }
}

/// None, unless the driver cannot give that.
fn network(can: &Capabilities) -> NetworkClass {
    let has_none = can.networks().any(|class| class == NetworkClass::None);
    match can.networks().next() {
        Some(first) if !has_none => first,
        _ => NetworkClass::None,
    }
}

/// Why the configured image cannot be used with this driver, and what to do.
pub(crate) fn image_trouble(
    config: &SandboxConfig,
    can: &Capabilities,
) -> Option<(String, String)> {
    let images = can.images.unwrap_or_default();
    let (there, what) = match image(config) {
        image_spec::Source::Host(_) => (images.host, "the host's own directories"),
        image_spec::Source::Reference(_) => (images.registry, "images from registries"),
        image_spec::Source::Archive(_) => (images.archive, "local archives"),
    };
    let can_use: Vec<&str> = [
        (images.host, "neither"),
        (images.registry, "`image`, an OCI reference"),
        (images.archive, "`archive`, a path"),
    ]
    .into_iter()
    .filter_map(|(there, what)| there.then_some(what))
    .collect();
    (!there).then(|| {
        (
            format!("the driver does not claim that it can use {what}"),
            format!(
                "set under [sandbox] of the file of --config: {}",
                can_use.join(", or ")
            ),
        )
    })
}
