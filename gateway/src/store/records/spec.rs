//! A sandbox's spec as it is stored, version 1. Registry credentials are left out: they are for one
//! pull.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::names;
use crate::model::{
    ImageSource, ImageSpec, Isolation, LimitSet, Mount, MountSource, NetworkClass, NetworkSpec,
    PullPolicy, ResourceLimits, SandboxSpec, UnixMillis,
};

#[derive(Serialize, Deserialize)]
pub(super) struct SpecV1 {
    image: ImageV1,
    uid: u32,
    gid: u32,
    limits: LimitsV1,
    network: NetworkV1,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<MountV1>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    expire_time_unix_ms: u64,
    #[serde(default)]
    gpus: u32,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    driver_config: serde_json::Map<String, serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    isolation_min: Option<IsolationV1>,
    #[serde(default)]
    root_writable: bool,
    workspace: String,
    hostname: String,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct IsolationV1(#[serde(with = "names::isolation")] Isolation);

#[derive(Serialize, Deserialize)]
struct ImageV1 {
    source: ImageSourceV1,
    #[serde(with = "names::pull_policy")]
    pull: PullPolicy,
    platform: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ImageSourceV1 {
    Host,
    Reference(String),
    Archive(String),
}

#[derive(Serialize, Deserialize)]
struct LimitsV1 {
    memory_bytes: u64,
    cpu_millis: u64,
    pids: u64,
    disk_bytes: u64,
    tmp_bytes: u64,
    /// Names of the limits that were asked for.
    required: Vec<RequiredV1>,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
enum RequiredV1 {
    Memory,
    Cpu,
    Pids,
    Disk,
}

#[derive(Serialize, Deserialize)]
struct NetworkV1 {
    #[serde(with = "names::network_class")]
    class: NetworkClass,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct MountV1 {
    target: String,
    read_only: bool,
    source: MountSourceV1,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MountSourceV1 {
    HostPath(String),
    Volume(String),
    Tmpfs { size_bytes: u64 },
}

impl From<&SandboxSpec> for SpecV1 {
    fn from(spec: &SandboxSpec) -> Self {
        // Taken apart, so that a new field cannot be forgotten.
        let SandboxSpec {
            image,
            uid,
            gid,
            limits,
            network,
            mounts,
            labels,
            expire_time,
            gpus,
            driver_config,
            isolation_min,
            root_writable,
            workspace,
            hostname,
        } = spec;
        Self {
            image: image.into(),
            uid: *uid,
            gid: *gid,
            limits: limits.into(),
            network: NetworkV1 {
                class: network.class,
                allow: network.allow.clone(),
            },
            mounts: mounts.iter().map(MountV1::from).collect(),
            labels: labels.clone(),
            expire_time_unix_ms: expire_time.0,
            gpus: *gpus,
            driver_config: driver_config.clone(),
            isolation_min: isolation_min.map(IsolationV1),
            root_writable: *root_writable,
            workspace: workspace.clone(),
            hostname: hostname.clone(),
        }
    }
}

impl From<SpecV1> for SandboxSpec {
    fn from(spec: SpecV1) -> Self {
        Self {
            image: spec.image.into(),
            uid: spec.uid,
            gid: spec.gid,
            limits: spec.limits.into(),
            network: NetworkSpec {
                class: spec.network.class,
                allow: spec.network.allow,
            },
            mounts: spec.mounts.into_iter().map(Mount::from).collect(),
            labels: spec.labels,
            expire_time: UnixMillis(spec.expire_time_unix_ms),
            gpus: spec.gpus,
            driver_config: spec.driver_config,
            isolation_min: spec.isolation_min.map(|isolation| isolation.0),
            root_writable: spec.root_writable,
            workspace: spec.workspace,
            hostname: spec.hostname,
        }
    }
}

impl From<&ImageSpec> for ImageV1 {
    fn from(image: &ImageSpec) -> Self {
        let ImageSpec {
            source,
            pull,
            credentials: _,
            platform,
        } = image;
        Self {
            source: match source {
                ImageSource::Host => ImageSourceV1::Host,
                ImageSource::Reference(reference) => ImageSourceV1::Reference(reference.clone()),
                ImageSource::Archive(path) => ImageSourceV1::Archive(path.clone()),
            },
            pull: *pull,
            platform: platform.clone(),
        }
    }
}

impl From<ImageV1> for ImageSpec {
    fn from(image: ImageV1) -> Self {
        Self {
            source: match image.source {
                ImageSourceV1::Host => ImageSource::Host,
                ImageSourceV1::Reference(reference) => ImageSource::Reference(reference),
                ImageSourceV1::Archive(path) => ImageSource::Archive(path),
            },
            pull: image.pull,
            credentials: None,
            platform: image.platform,
        }
    }
}

impl From<&ResourceLimits> for LimitsV1 {
    fn from(limits: &ResourceLimits) -> Self {
        let ResourceLimits {
            memory_bytes,
            cpu_millis,
            pids,
            disk_bytes,
            tmp_bytes,
            required,
        } = *limits;
        let LimitSet {
            memory,
            cpu,
            pids: pids_required,
            disk,
        } = required;
        let required = [
            (memory, RequiredV1::Memory),
            (cpu, RequiredV1::Cpu),
            (pids_required, RequiredV1::Pids),
            (disk, RequiredV1::Disk),
        ];
        Self {
            memory_bytes,
            cpu_millis,
            pids,
            disk_bytes,
            tmp_bytes,
            required: required.into_iter().filter(|r| r.0).map(|r| r.1).collect(),
        }
    }
}

impl From<LimitsV1> for ResourceLimits {
    fn from(limits: LimitsV1) -> Self {
        let required = |limit| limits.required.contains(&limit);
        Self {
            memory_bytes: limits.memory_bytes,
            cpu_millis: limits.cpu_millis,
            pids: limits.pids,
            disk_bytes: limits.disk_bytes,
            tmp_bytes: limits.tmp_bytes,
            required: LimitSet {
                memory: required(RequiredV1::Memory),
                cpu: required(RequiredV1::Cpu),
                pids: required(RequiredV1::Pids),
                disk: required(RequiredV1::Disk),
            },
        }
    }
}

impl From<&Mount> for MountV1 {
    fn from(mount: &Mount) -> Self {
        let Mount {
            target,
            read_only,
            source,
        } = mount;
        Self {
            target: target.clone(),
            read_only: *read_only,
            source: match source {
                MountSource::HostPath(path) => MountSourceV1::HostPath(path.clone()),
                MountSource::Volume(name) => MountSourceV1::Volume(name.clone()),
                MountSource::Tmpfs { size_bytes } => MountSourceV1::Tmpfs {
                    size_bytes: *size_bytes,
                },
            },
        }
    }
}

impl From<MountV1> for Mount {
    fn from(mount: MountV1) -> Self {
        Self {
            target: mount.target,
            read_only: mount.read_only,
            source: match mount.source {
                MountSourceV1::HostPath(path) => MountSource::HostPath(path),
                MountSourceV1::Volume(name) => MountSource::Volume(name),
                MountSourceV1::Tmpfs { size_bytes } => MountSource::Tmpfs { size_bytes },
            },
        }
    }
}
