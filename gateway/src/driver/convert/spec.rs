//! Specs, as they go to drivers and as the store keeps them.

use cofferdam_proto::compute::v1 as wire;

use super::{ConvertError, struct_from_wire, struct_to_wire};
use crate::model::{
    Credentials, ImageSource, ImageSpec, Isolation, LimitSet, Mount, MountSource, NetworkClass,
    NetworkSpec, PullPolicy, ResourceLimits, SandboxSpec, UnixMillis,
};

pub fn spec_to_wire(spec: &SandboxSpec) -> wire::SandboxSpec {
    wire::SandboxSpec {
        image: Some(image_to_wire(&spec.image)),
        uid: spec.uid,
        gid: spec.gid,
        limits: Some(resource_limits_to_wire(spec.limits)),
        network: Some(wire::NetworkSpec {
            class: network_to_wire(spec.network.class),
            allow: spec.network.allow.clone(),
        }),
        mounts: spec.mounts.iter().map(mount_to_wire).collect(),
        labels: spec.labels.clone().into_iter().collect(),
        expire_time_unix_ms: spec.expire_time.0,
        gpus: spec.gpus,
        driver_config: Some(struct_to_wire(&spec.driver_config)),
        isolation_min: isolation_to_wire(spec.isolation_min),
        root_writable: spec.root_writable,
        workspace: spec.workspace.clone(),
        hostname: spec.hostname.clone(),
    }
}

pub fn spec_from_wire(spec: wire::SandboxSpec) -> Result<SandboxSpec, ConvertError> {
    let network = spec.network.unwrap_or_default();
    let class = network_from_wire(network.class)
        .ok_or_else(|| invalid("network.class", "not a network class"))?;
    let mounts: Result<Vec<Mount>, _> = spec.mounts.into_iter().map(mount_from_wire).collect();
    Ok(SandboxSpec {
        image: image_from_wire(spec.image.unwrap_or_default())?,
        uid: spec.uid,
        gid: spec.gid,
        limits: resource_limits_from_wire(spec.limits.unwrap_or_default()),
        network: NetworkSpec {
            class,
            allow: network.allow,
        },
        mounts: mounts?,
        labels: spec.labels.into_iter().collect(),
        expire_time: UnixMillis(spec.expire_time_unix_ms),
        gpus: spec.gpus,
        driver_config: struct_from_wire(spec.driver_config.unwrap_or_default()),
        isolation_min: isolation_from_wire(spec.isolation_min),
        root_writable: spec.root_writable,
        workspace: spec.workspace,
        hostname: spec.hostname,
    })
}

fn invalid(what: &'static str, problem: &str) -> ConvertError {
    let problem = problem.to_owned();
    ConvertError { what, problem }
}

fn image_to_wire(image: &ImageSpec) -> wire::ImageSpec {
    use wire::image_spec::Source;
    let source = match &image.source {
        ImageSource::Host => Source::Host(wire::HostImage {}),
        ImageSource::Reference(reference) => Source::Reference(reference.clone()),
        ImageSource::Archive(path) => Source::Archive(path.clone()),
    };
    let pull = match image.pull {
        PullPolicy::Missing => wire::PullPolicy::Missing,
        PullPolicy::Always => wire::PullPolicy::Always,
        PullPolicy::Never => wire::PullPolicy::Never,
    };
    let credentials = image
        .credentials
        .as_ref()
        .map(|c| wire::RegistryCredentials {
            username: c.username.clone(),
            password: c.password.clone(),
            identity_token: c.identity_token.clone(),
        });
    wire::ImageSpec {
        pull: pull as i32,
        credentials,
        platform: image.platform.clone(),
        source: Some(source),
    }
}

fn image_from_wire(image: wire::ImageSpec) -> Result<ImageSpec, ConvertError> {
    use wire::image_spec::Source;
    let source = match image.source {
        Some(Source::Host(_)) => ImageSource::Host,
        Some(Source::Reference(reference)) => ImageSource::Reference(reference),
        Some(Source::Archive(path)) => ImageSource::Archive(path),
        None => return Err(invalid("image", "no source")),
    };
    let pull = match wire::PullPolicy::try_from(image.pull) {
        Ok(wire::PullPolicy::Always) => PullPolicy::Always,
        Ok(wire::PullPolicy::Never) => PullPolicy::Never,
        Ok(wire::PullPolicy::Missing | wire::PullPolicy::Unspecified) => PullPolicy::Missing,
        Err(_) => return Err(invalid("image.pull", "not a pull policy")),
    };
    let credentials = image.credentials.map(|c| Credentials {
        username: c.username,
        password: c.password,
        identity_token: c.identity_token,
    });
    Ok(ImageSpec {
        source,
        pull,
        credentials,
        platform: image.platform,
    })
}

fn mount_to_wire(mount: &Mount) -> wire::Mount {
    use wire::mount::Source;
    let source = match &mount.source {
        MountSource::HostPath(path) => Source::HostPath(path.clone()),
        MountSource::Volume(name) => Source::Volume(name.clone()),
        MountSource::Tmpfs { size_bytes } => Source::Tmpfs(wire::TmpfsMount {
            size_bytes: *size_bytes,
        }),
    };
    wire::Mount {
        target: mount.target.clone(),
        read_only: mount.read_only,
        source: Some(source),
    }
}

fn mount_from_wire(mount: wire::Mount) -> Result<Mount, ConvertError> {
    use wire::mount::Source;
    let source = match mount.source {
        Some(Source::HostPath(path)) => MountSource::HostPath(path),
        Some(Source::Volume(name)) => MountSource::Volume(name),
        Some(Source::Tmpfs(tmpfs)) => MountSource::Tmpfs {
            size_bytes: tmpfs.size_bytes,
        },
        None => return Err(invalid("mounts", "a mount has no source")),
    };
    Ok(Mount {
        target: mount.target,
        read_only: mount.read_only,
        source,
    })
}

fn resource_limits_to_wire(limits: ResourceLimits) -> wire::ResourceLimits {
    wire::ResourceLimits {
        memory_bytes: limits.memory_bytes,
        cpu_millis: limits.cpu_millis,
        pids: limits.pids,
        disk_bytes: limits.disk_bytes,
        tmp_bytes: limits.tmp_bytes,
        required: Some(limits_to_wire(limits.required)),
    }
}

fn resource_limits_from_wire(limits: wire::ResourceLimits) -> ResourceLimits {
    ResourceLimits {
        memory_bytes: limits.memory_bytes,
        cpu_millis: limits.cpu_millis,
        pids: limits.pids,
        disk_bytes: limits.disk_bytes,
        tmp_bytes: limits.tmp_bytes,
        required: limits_from_wire(limits.required),
    }
}

pub(super) fn limits_to_wire(limits: LimitSet) -> wire::Limits {
    wire::Limits {
        memory: limits.memory,
        cpu: limits.cpu,
        pids: limits.pids,
        disk: limits.disk,
    }
}

pub(super) fn limits_from_wire(limits: Option<wire::Limits>) -> LimitSet {
    let limits = limits.unwrap_or_default();
    LimitSet {
        memory: limits.memory,
        cpu: limits.cpu,
        pids: limits.pids,
        disk: limits.disk,
    }
}

pub(super) fn network_to_wire(class: NetworkClass) -> i32 {
    let class = match class {
        NetworkClass::None => wire::NetworkClass::None,
        NetworkClass::Egress => wire::NetworkClass::Egress,
        NetworkClass::Open => wire::NetworkClass::Open,
    };
    class as i32
}

pub(super) fn network_from_wire(class: i32) -> Option<NetworkClass> {
    match wire::NetworkClass::try_from(class) {
        Ok(wire::NetworkClass::None) => Some(NetworkClass::None),
        Ok(wire::NetworkClass::Egress) => Some(NetworkClass::Egress),
        Ok(wire::NetworkClass::Open) => Some(NetworkClass::Open),
        Ok(wire::NetworkClass::Unspecified) | Err(_) => None,
    }
}

pub(super) fn isolation_to_wire(isolation: Option<Isolation>) -> i32 {
    let isolation = match isolation {
        None => wire::Isolation::Unspecified,
        Some(Isolation::NoIsolation) => wire::Isolation::NoIsolation,
        Some(Isolation::Namespaces) => wire::Isolation::Namespaces,
        Some(Isolation::Container) => wire::Isolation::Container,
        Some(Isolation::UserspaceKernel) => wire::Isolation::UserspaceKernel,
        Some(Isolation::VirtualMachine) => wire::Isolation::VirtualMachine,
        Some(Isolation::RemoteMachine) => wire::Isolation::RemoteMachine,
    };
    isolation as i32
}

pub(super) fn isolation_from_wire(isolation: i32) -> Option<Isolation> {
    match wire::Isolation::try_from(isolation) {
        Ok(wire::Isolation::NoIsolation) => Some(Isolation::NoIsolation),
        Ok(wire::Isolation::Namespaces) => Some(Isolation::Namespaces),
        Ok(wire::Isolation::Container) => Some(Isolation::Container),
        Ok(wire::Isolation::UserspaceKernel) => Some(Isolation::UserspaceKernel),
        Ok(wire::Isolation::VirtualMachine) => Some(Isolation::VirtualMachine),
        Ok(wire::Isolation::RemoteMachine) => Some(Isolation::RemoteMachine),
        Ok(wire::Isolation::Unspecified) | Err(_) => None,
    }
}
