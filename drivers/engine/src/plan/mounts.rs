//! Everything that is mounted into a container besides its image.

use std::collections::HashMap;

use bollard_stubs::models::{Mount, MountType, MountVolumeOptions};
use cofferdam_driver_sdk::proto::{SandboxSpec, mount};

use super::{CALLBACK_DIR, Prepared, SUPERVISOR_DIR, Stream, workspace};
use crate::driver_config::{DriverConfig, WorkspaceKind};
use crate::image::ImageFacts;

/// Where an image declares a volume and nobody mounts one, so that nothing unbounded is made.
const IMAGE_VOLUME_BYTES: u64 = 64 * 1024 * 1024;

pub(super) fn mounts(
    spec: &SandboxSpec,
    config: &DriverConfig,
    prepared: &Prepared<'_>,
) -> Vec<Mount> {
    let mut mounts = vec![volume(prepared.supervisor_volume, SUPERVISOR_DIR, true)];
    if prepared.stream == Stream::Mount {
        // The directory: a restarted gateway makes a new socket in it. Read-only is enough to
        // connect.
        mounts.push(bind(prepared.callback, CALLBACK_DIR, true));
    }
    if !prepared.workspace_volume.is_empty() {
        mounts.push(volume(prepared.workspace_volume, workspace(spec), false));
    }
    for wanted in &spec.mounts {
        let (target, read_only) = (wanted.target.as_str(), wanted.read_only);
        match &wanted.source {
            Some(mount::Source::Volume(name)) => mounts.push(volume(name, target, read_only)),
            Some(mount::Source::HostPath(path)) => mounts.push(bind(path, target, read_only)),
            // In `tmpfs`; a mount without a source was refused.
            Some(mount::Source::Tmpfs(_)) | None => {}
        }
    }
    for wanted in &config.volumes {
        mounts.push(volume(&wanted.name, &wanted.target, wanted.read_only));
    }
    for wanted in &config.binds {
        mounts.push(bind(&wanted.source, &wanted.target, wanted.read_only));
    }
    mounts
}

/// Directories in memory, with their options.
pub(super) fn tmpfs(
    spec: &SandboxSpec,
    config: &DriverConfig,
    image: &ImageFacts,
    (uid, gid): (u32, u32),
) -> HashMap<String, String> {
    let limits = spec.limits.unwrap_or_default();
    let open = |bytes: u64, mode: &str| options(bytes, mode, "");
    let mut all = HashMap::from([("/tmp".to_owned(), open(limits.tmp_bytes, "1777"))]);
    for path in unmounted_volumes(spec, config, image) {
        all.insert(path.to_owned(), open(IMAGE_VOLUME_BYTES, "1777"));
    }
    if config.workspace == WorkspaceKind::Memory {
        let owner = format!(",uid={uid},gid={gid}");
        let text = options(limits.disk_bytes, "0755", &owner);
        all.insert(workspace(spec).to_owned(), text);
    }
    for wanted in &spec.mounts {
        if let Some(mount::Source::Tmpfs(tmpfs)) = &wanted.source {
            all.insert(wanted.target.clone(), open(tmpfs.size_bytes, "1777"));
        }
    }
    for wanted in &config.tmpfs {
        all.insert(wanted.target.clone(), open(wanted.size_bytes, "1777"));
    }
    all
}

/// Volumes that the image declares and that nothing else is mounted on.
pub(super) fn unmounted_volumes<'a>(
    spec: &'a SandboxSpec,
    config: &'a DriverConfig,
    image: &'a ImageFacts,
) -> impl Iterator<Item = &'a str> {
    let taken: Vec<&str> = targets(spec, config).map(|(_, target)| target).collect();
    let declared = image.volumes.iter().map(String::as_str);
    declared.filter(move |path| !taken.contains(path))
}

/// Every place that is mounted on, with the field that says so.
pub(super) fn targets<'a>(
    spec: &'a SandboxSpec,
    config: &'a DriverConfig,
) -> impl Iterator<Item = (String, &'a str)> {
    let named = |list: &'static str| move |index: usize| format!("{list}[{index}].target");
    let own = [
        ("workspace".to_owned(), workspace(spec)),
        ("the driver's own".to_owned(), SUPERVISOR_DIR),
        ("the driver's own".to_owned(), CALLBACK_DIR),
    ];
    let mounts = spec.mounts.iter().enumerate();
    let volumes = config.volumes.iter().enumerate();
    let tmpfs = config.tmpfs.iter().enumerate();
    let binds = config.binds.iter().enumerate();
    own.into_iter()
        .chain(mounts.map(move |(at, one)| (named("mounts")(at), one.target.as_str())))
        .chain(
            volumes.map(move |(at, one)| (named("driver_config.volumes")(at), one.target.as_str())),
        )
        .chain(tmpfs.map(move |(at, one)| (named("driver_config.tmpfs")(at), one.target.as_str())))
        .chain(binds.map(move |(at, one)| (named("driver_config.binds")(at), one.target.as_str())))
}

fn volume(name: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        volume_options: Some(MountVolumeOptions {
            // What the image has there does not belong in it.
            no_copy: Some(true),
            ..MountVolumeOptions::default()
        }),
        ..mount_of(MountType::VOLUME, name, target, read_only)
    }
}

fn bind(source: &str, target: &str, read_only: bool) -> Mount {
    mount_of(MountType::BIND, source, target, read_only)
}

fn mount_of(kind: MountType, source: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(kind),
        source: Some(source.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

/// Programs may run there, as everywhere; nothing may gain privileges or be a device.
fn options(bytes: u64, mode: &str, more: &str) -> String {
    let size = match bytes {
        0 => String::new(),
        bytes => format!(",size={bytes}"),
    };
    format!("rw,exec,nosuid,nodev{size},mode={mode}{more}")
}
