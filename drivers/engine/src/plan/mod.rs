//! From a sandbox's spec to the request that makes its container. Pure.
//!
//! ```text
//!   spec ─╮
//!   settings, engine's facts ─┼─► check (violations) ─► container request · weaknesses
//!   image ─╯
//! ```
//!
//! What is not asked for is closed: no network, read-only root, no capability, no new privileges,
//! no root, the engine's seccomp filter, limits on memory, CPU and processes. What is opened says
//! so in the sandbox's weaknesses.

mod check;
mod mounts;
mod weaknesses;

use std::collections::{BTreeMap, HashMap};

use bollard_stubs::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use cofferdam_driver_sdk::proto::{NetworkClass, SandboxSpec};

use crate::driver_config::{DriverConfig, WorkspaceKind};
use crate::facts::EngineFacts;
use crate::image::ImageFacts;
use crate::labels::{self, Record};
use crate::settings::{Config, UlimitSetting};

pub(crate) use check::{check, driver_config};

/// Where the supervisor's file is in every container.
pub(crate) const SUPERVISOR_DIR: &str = "/.cofferdam/bin";
pub(crate) const SUPERVISOR_NAME: &str = "cofferdam-supervisor";
/// Where the callback directory is mounted.
const CALLBACK_DIR: &str = "/.cofferdam/callback";

pub(crate) const WORKSPACE_DEFAULT: &str = "/workspace";
/// The workload's login name inside.
pub(crate) const USER: &str = "sandbox";
const HOSTNAME_DEFAULT: &str = "sandbox";

/// A console is a few lines; a workload cannot write there.
const LOG_BYTES_MAX: &str = "1m";

/// How the supervisor's byte stream is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The callback directory is mounted.
    Mount,
    /// The driver carries it over stdin and stdout.
    Relay,
}

impl Stream {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Relay => "relay",
        }
    }
}

/// Where a sandbox is made, as far as it decides what the request is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) config: &'a Config,
    pub(crate) facts: &'a EngineFacts,
    pub(crate) log_driver: &'a str,
}

/// What was prepared for it.
#[derive(Debug, Clone)]
pub(crate) struct Prepared<'a> {
    pub(crate) gateway_id: &'a str,
    pub(crate) sandbox_id: &'a str,
    pub(crate) spec_digest: &'a str,
    pub(crate) create_time_unix_ms: u64,
    pub(crate) stream: Stream,
    /// Of the engine's host, when mounted.
    pub(crate) callback: &'a str,
    pub(crate) supervisor_volume: &'a str,
    /// Empty: the workspace is in memory.
    pub(crate) workspace_volume: &'a str,
}

/// What is asked of the engine, and what is remembered.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) body: ContainerCreateBody,
    pub(crate) record: Record,
}

/// The request for a spec without violations.
pub(crate) fn plan(
    spec: &SandboxSpec,
    config: &DriverConfig,
    image: &ImageFacts,
    place: Place<'_>,
    prepared: &Prepared<'_>,
) -> Plan {
    let (uid, gid) = user(spec, config, image);
    let record = Record {
        gateway_id: prepared.gateway_id.to_owned(),
        sandbox_id: prepared.sandbox_id.to_owned(),
        spec_digest: prepared.spec_digest.to_owned(),
        create_time_unix_ms: prepared.create_time_unix_ms,
        expire_time_unix_ms: spec.expire_time_unix_ms,
        stream: prepared.stream.as_str().to_owned(),
        image: image.name.clone(),
        image_digest: image.digest.clone(),
        workspace_volume: prepared.workspace_volume.to_owned(),
        uid,
        gid,
        workspace: workspace(spec).to_owned(),
        weaknesses: weaknesses::of(spec, config, image, place),
        environment: image.environment.clone(),
        callback: prepared.callback.to_owned(),
    };
    let body = ContainerCreateBody {
        // By id: what was examined is what runs, whatever becomes of the name.
        image: Some(image.id.clone()),
        entrypoint: Some(vec![format!("{SUPERVISOR_DIR}/{SUPERVISOR_NAME}")]),
        cmd: Some(supervisor_arguments(prepared.stream)),
        user: Some(format!("{uid}:{gid}")),
        hostname: Some(match spec.hostname.as_str() {
            "" => HOSTNAME_DEFAULT.to_owned(),
            name => name.to_owned(),
        }),
        working_dir: Some("/".to_owned()),
        labels: Some(all_labels(spec, &record)),
        // The bootstrap's way in, and the stream's when it is relayed.
        open_stdin: Some(true),
        stdin_once: Some(prepared.stream == Stream::Mount),
        attach_stdin: Some(true),
        attach_stdout: Some(prepared.stream == Stream::Relay),
        attach_stderr: Some(prepared.stream == Stream::Relay),
        tty: Some(false),
        stop_signal: Some("SIGTERM".to_owned()),
        // The image's own would run programs that nobody asked for.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(host_config(
            spec,
            config,
            image,
            place,
            prepared,
            (uid, gid),
        )),
        ..ContainerCreateBody::default()
    };
    Plan { body, record }
}

fn host_config(
    spec: &SandboxSpec,
    config: &DriverConfig,
    image: &ImageFacts,
    place: Place<'_>,
    prepared: &Prepared<'_>,
    user: (u32, u32),
) -> HostConfig {
    let limits = spec.limits.unwrap_or_default();
    let memory = limited(limits.memory_bytes);
    HostConfig {
        network_mode: Some(network(spec, place.config)),
        readonly_rootfs: Some(!spec.root_writable),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(security_options(config)),
        privileged: Some(false),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: (place.facts.cgroup_version == "2")
            .then_some(HostConfigCgroupnsModeEnum::PRIVATE),
        memory,
        // The same as memory: no swap.
        memory_swap: memory,
        nano_cpus: limited(limits.cpu_millis.saturating_mul(1_000_000)),
        pids_limit: limited(limits.pids),
        cgroup_parent: place.config.cgroup_parent.clone(),
        ulimits: Some(ulimits(&place.config.ulimits, &config.ulimits)),
        shm_size: config.shm_bytes.and_then(limited),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        auto_remove: Some(false),
        // The supervisor is one.
        init: Some(false),
        log_config: Some(log_config(place.log_driver, prepared.stream)),
        runtime: config.runtime.clone().or(place.config.runtime.clone()),
        extra_hosts: Some(
            config
                .extra_hosts
                .iter()
                .map(|(name, address)| format!("{name}:{address}"))
                .collect(),
        ),
        devices: Some(
            config
                .devices
                .iter()
                .filter_map(|name| device(name))
                .collect(),
        ),
        device_requests: Some(device_requests(spec, config)),
        mounts: Some(mounts::mounts(spec, config, prepared)),
        tmpfs: Some(mounts::tmpfs(spec, config, image, user)),
        ..HostConfig::default()
    }
}

/// Who the workload is. The image's own user goes before only where that was asked for.
pub(crate) fn user(spec: &SandboxSpec, config: &DriverConfig, image: &ImageFacts) -> (u32, u32) {
    match image.user.filter(|_| config.image_user) {
        Some(user) => user,
        None => (spec.uid, spec.gid),
    }
}

pub(crate) fn workspace(spec: &SandboxSpec) -> &str {
    match spec.workspace.as_str() {
        "" => WORKSPACE_DEFAULT,
        path => path,
    }
}

/// Whether the workspace is a volume, which has to be prepared.
pub(crate) fn wants_volume(config: &DriverConfig) -> bool {
    config.workspace == WorkspaceKind::Volume
}

fn supervisor_arguments(stream: Stream) -> Vec<String> {
    let callback = match stream {
        Stream::Mount => format!("dir:{CALLBACK_DIR}"),
        Stream::Relay => "stdio".to_owned(),
    };
    vec![
        "--callback".to_owned(),
        callback,
        "--config-stdin".to_owned(),
    ]
}

/// The caller's own, then ours: nobody can pass for another sandbox.
fn all_labels(spec: &SandboxSpec, record: &Record) -> HashMap<String, String> {
    let theirs = spec.labels.iter().filter(|(name, _)| !labels::is_own(name));
    theirs
        .map(|(name, value)| (name.clone(), value.clone()))
        .chain(record.to_labels())
        .collect()
}

fn network(spec: &SandboxSpec, config: &Config) -> String {
    let class = spec.network.as_ref().map(|network| network.class());
    match (class, &config.open_network) {
        (Some(NetworkClass::Open), Some(network)) => network.clone(),
        // The server has refused what is not among the capabilities.
        _ => "none".to_owned(),
    }
}

fn security_options(config: &DriverConfig) -> Vec<String> {
    let always = "no-new-privileges".to_owned();
    std::iter::once(always)
        .chain(config.security_options.iter().cloned())
        .collect()
}

/// The stream must never be in a log: in relay mode it is the container's stdout.
fn log_config(driver: &str, stream: Stream) -> HostConfigLogConfig {
    match stream {
        Stream::Relay => HostConfigLogConfig {
            typ: Some("none".to_owned()),
            config: None,
        },
        Stream::Mount => HostConfigLogConfig {
            typ: Some(driver.to_owned()),
            config: Some(HashMap::from([(
                "max-size".to_owned(),
                LOG_BYTES_MAX.to_owned(),
            )])),
        },
    }
}

/// The sandbox's go before the operator's.
fn ulimits(
    operators: &BTreeMap<String, UlimitSetting>,
    callers: &BTreeMap<String, UlimitSetting>,
) -> Vec<ResourcesUlimits> {
    let mut all = operators.clone();
    all.extend(callers.iter().map(|(name, limit)| (name.clone(), *limit)));
    all.into_iter()
        .map(|(name, limit)| {
            let (soft, hard) = limit.bounds();
            ResourcesUlimits {
                name: Some(name),
                soft: Some(soft),
                hard: Some(hard),
            }
        })
        .collect()
}

/// A device by its path.
fn device(name: &str) -> Option<DeviceMapping> {
    name.starts_with('/').then(|| DeviceMapping {
        path_on_host: Some(name.to_owned()),
        path_in_container: Some(name.to_owned()),
        cgroup_permissions: Some("rw".to_owned()),
    })
}

/// GPUs, and devices by their CDI names.
fn device_requests(spec: &SandboxSpec, config: &DriverConfig) -> Vec<DeviceRequest> {
    let gpus = (spec.gpus > 0).then(|| DeviceRequest {
        count: Some(i64::from(spec.gpus)),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    });
    let names = config.devices.iter().filter(|name| !name.starts_with('/'));
    let names: Vec<String> = names.cloned().collect();
    let cdi = (!names.is_empty()).then(|| DeviceRequest {
        driver: Some("cdi".to_owned()),
        device_ids: Some(names),
        ..DeviceRequest::default()
    });
    gpus.into_iter().chain(cdi).collect()
}

/// 0 is "not limited".
fn limited(value: u64) -> Option<i64> {
    i64::try_from(value).ok().filter(|value| *value > 0)
}

#[cfg(test)]
mod tests;
