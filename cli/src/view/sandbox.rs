//! Sandboxes, for programs and for people.

use std::collections::BTreeMap;

use cofferdam_proto::compute::v1 as compute;
use cofferdam_proto::gateway::v1::{Sandbox, SandboxState};
use serde::Serialize;
use serde_json::Value;

use super::{json, known, name, text};
use crate::mount::show_mount;
use crate::render::Block;
use crate::ui::Tone;
use crate::units::{show_cpus, show_duration_ms, show_size, show_time};

#[derive(Debug, Serialize)]
pub(crate) struct SandboxView {
    sandbox_id: String,
    name: Option<String>,
    driver: String,
    state: String,
    reason: Option<String>,
    message: Option<String>,
    create_time_unix_ms: Option<u64>,
    ready_time_unix_ms: Option<u64>,
    state_time_unix_ms: Option<u64>,
    expire_time_unix_ms: Option<u64>,
    idle_timeout_ms: Option<u64>,
    session: bool,
    running_executions: u32,
    running_transfers: u32,
    owner_uid: u32,
    execution_id: Option<String>,
    weaknesses: Vec<String>,
    spec: Option<SpecView>,
    observed: Option<ObservedView>,
}

#[derive(Debug, Serialize)]
struct SpecView {
    image: Option<String>,
    uid: u32,
    gid: u32,
    memory_bytes: Option<u64>,
    cpu_millis: Option<u64>,
    pids: Option<u64>,
    disk_bytes: Option<u64>,
    tmp_bytes: Option<u64>,
    network: String,
    egress_allow: Vec<String>,
    mounts: Vec<MountView>,
    labels: BTreeMap<String, String>,
    gpus: u32,
    driver_config: Option<Value>,
    isolation_min: String,
    root_writable: bool,
    workspace: String,
    hostname: String,
}

#[derive(Debug, Serialize)]
struct MountView {
    target: String,
    read_only: bool,
    host_path: Option<String>,
    volume: Option<String>,
    tmpfs_size_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ObservedView {
    state: String,
    conditions: Vec<ConditionView>,
    termination: Option<TerminationView>,
    oom_kill_count: Option<u64>,
    boots: u64,
    platform_id: Option<String>,
    image_digest: Option<String>,
    stream: Option<String>,
}

#[derive(Debug, Serialize)]
struct ConditionView {
    r#type: String,
    status: String,
    message: String,
    change_time_unix_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct TerminationView {
    reason: String,
    exit_code: i32,
    signal: u32,
    message: String,
    time_unix_ms: Option<u64>,
}

impl From<&Sandbox> for SandboxView {
    fn from(sandbox: &Sandbox) -> Self {
        Self {
            sandbox_id: sandbox.sandbox_id.clone(),
            name: text(&sandbox.name),
            driver: sandbox.driver.clone(),
            state: state(sandbox),
            reason: text(&sandbox.reason),
            message: text(&sandbox.message),
            create_time_unix_ms: known(sandbox.create_time_unix_ms),
            ready_time_unix_ms: known(sandbox.ready_time_unix_ms),
            state_time_unix_ms: known(sandbox.state_time_unix_ms),
            expire_time_unix_ms: known(sandbox.expire_time_unix_ms),
            idle_timeout_ms: known(sandbox.idle_timeout_ms),
            session: sandbox.session,
            running_executions: sandbox.running_executions,
            running_transfers: sandbox.running_transfers,
            owner_uid: sandbox.owner_uid,
            execution_id: text(&sandbox.execution_id),
            weaknesses: sandbox.weaknesses.clone(),
            spec: sandbox.spec.as_ref().map(SpecView::from),
            observed: sandbox.observed.as_ref().map(ObservedView::from),
        }
    }
}

impl From<&compute::SandboxSpec> for SpecView {
    fn from(spec: &compute::SandboxSpec) -> Self {
        let limits = spec.limits.unwrap_or_default();
        let network = spec.network.clone().unwrap_or_default();
        Self {
            image: image(spec),
            uid: spec.uid,
            gid: spec.gid,
            memory_bytes: known(limits.memory_bytes),
            cpu_millis: known(limits.cpu_millis),
            pids: known(limits.pids),
            disk_bytes: known(limits.disk_bytes),
            tmp_bytes: known(limits.tmp_bytes),
            network: network_name(network.class),
            egress_allow: network.allow,
            mounts: spec.mounts.iter().map(MountView::from).collect(),
            labels: spec.labels.clone().into_iter().collect(),
            gpus: spec.gpus,
            driver_config: spec.driver_config.as_ref().map(json::from_struct),
            isolation_min: isolation_name(spec.isolation_min),
            root_writable: spec.root_writable,
            workspace: spec.workspace.clone(),
            hostname: spec.hostname.clone(),
        }
    }
}

impl From<&compute::Mount> for MountView {
    fn from(mount: &compute::Mount) -> Self {
        use compute::mount::Source;
        let (host_path, volume, tmpfs_size_bytes) = match &mount.source {
            Some(Source::HostPath(path)) => (Some(path.clone()), None, None),
            Some(Source::Volume(name)) => (None, Some(name.clone()), None),
            Some(Source::Tmpfs(tmpfs)) => (None, None, Some(tmpfs.size_bytes)),
            None => (None, None, None),
        };
        Self {
            target: mount.target.clone(),
            read_only: mount.read_only,
            host_path,
            volume,
            tmpfs_size_bytes,
        }
    }
}

impl From<&compute::Sandbox> for ObservedView {
    fn from(observed: &compute::Sandbox) -> Self {
        let state = name(
            observed.state,
            compute::SandboxState::as_str_name,
            &["SANDBOX_STATE_"],
        );
        Self {
            state: state.replace("FAILED_STATE", "FAILED"),
            conditions: observed
                .conditions
                .iter()
                .map(ConditionView::from)
                .collect(),
            termination: observed.termination.as_ref().map(TerminationView::from),
            oom_kill_count: observed.oom_kill_count,
            boots: observed.boots,
            platform_id: text(&observed.platform_id),
            image_digest: text(&observed.image_digest),
            stream: text(&observed.stream),
        }
    }
}

impl From<&compute::Condition> for ConditionView {
    fn from(condition: &compute::Condition) -> Self {
        Self {
            r#type: name(
                condition.r#type,
                compute::ConditionType::as_str_name,
                &["CONDITION_TYPE_"],
            ),
            status: name(
                condition.status,
                compute::ConditionStatus::as_str_name,
                &["CONDITION_STATUS_"],
            ),
            message: condition.message.clone(),
            change_time_unix_ms: known(condition.change_time_unix_ms),
        }
    }
}

impl From<&compute::Termination> for TerminationView {
    fn from(termination: &compute::Termination) -> Self {
        Self {
            reason: name(
                termination.reason,
                compute::TerminationReason::as_str_name,
                &["TERMINATION_REASON_"],
            ),
            exit_code: termination.exit_code,
            signal: termination.signal,
            message: termination.message.clone(),
            time_unix_ms: known(termination.time_unix_ms),
        }
    }
}

/// "READY"
pub(crate) fn state(sandbox: &Sandbox) -> String {
    name(
        sandbox.state,
        SandboxState::as_str_name,
        &["SANDBOX_STATE_"],
    )
}

pub(crate) fn state_tone(sandbox: &Sandbox) -> Tone {
    match sandbox.state() {
        SandboxState::Ready => Tone::Good,
        SandboxState::Failed => Tone::Bad,
        SandboxState::Stopped | SandboxState::Deleted => Tone::Faint,
        _ => Tone::Warning,
    }
}

/// "host", "debian:12", "archive:/x"
pub(crate) fn image(spec: &compute::SandboxSpec) -> Option<String> {
    use compute::image_spec::Source;
    match spec.image.as_ref()?.source.as_ref()? {
        Source::Host(_) => Some("host".to_owned()),
        Source::Reference(reference) => Some(reference.clone()),
        Source::Archive(path) => Some(format!("archive:{path}")),
    }
}

pub(super) fn isolation_name(value: i32) -> String {
    name(value, compute::Isolation::as_str_name, &["ISOLATION_"])
}

pub(super) fn network_name(value: i32) -> String {
    name(
        value,
        compute::NetworkClass::as_str_name,
        &["NETWORK_CLASS_"],
    )
}

/// Nothing for 0.
fn count(count: u32) -> String {
    match count {
        0 => String::new(),
        count => count.to_string(),
    }
}

/// For `inspect`.
pub(crate) fn lines(sandbox: &Sandbox) -> Block {
    let mut block = Block::default();
    let time = |unix_ms| known(unix_ms).map(show_time).unwrap_or_default();
    block
        .add("sandbox", &sandbox.sandbox_id)
        .add("name", &sandbox.name)
        .add("driver", &sandbox.driver)
        .toned("state", state(sandbox), state_tone(sandbox))
        .add("reason", &sandbox.reason)
        .add("message", &sandbox.message)
        .add("execution", &sandbox.execution_id)
        .add("running", sandbox.running_executions.to_string())
        .add("transfers", count(sandbox.running_transfers))
        .add("created", time(sandbox.create_time_unix_ms))
        .add("ready", time(sandbox.ready_time_unix_ms))
        .add("expires", time(sandbox.expire_time_unix_ms))
        .add(
            "idle timeout",
            known(sandbox.idle_timeout_ms)
                .map(show_duration_ms)
                .unwrap_or_default(),
        )
        .add("owner", format!("uid {}", sandbox.owner_uid));
    if let Some(spec) = &sandbox.spec {
        spec_lines(&mut block, spec);
    }
    if let Some(observed) = &sandbox.observed {
        block
            .add("platform id", &observed.platform_id)
            .add("image digest", &observed.image_digest);
        block.list(
            "conditions",
            observed.conditions.iter().map(|condition| {
                let view = ConditionView::from(condition);
                format!("{} {} {}", view.r#type, view.status, view.message)
            }),
        );
    }
    block.list("weaknesses", &sandbox.weaknesses);
    block
}

fn spec_lines(block: &mut Block, spec: &compute::SandboxSpec) {
    let view = SpecView::from(spec);
    let size = |bytes: Option<u64>| bytes.map(show_size).unwrap_or_default();
    block
        .add("image", view.image.unwrap_or_default())
        .add("user", format!("{}:{}", view.uid, view.gid))
        .add("memory", size(view.memory_bytes))
        .add("cpus", view.cpu_millis.map(show_cpus).unwrap_or_default())
        .add(
            "pids",
            view.pids.map(|pids| pids.to_string()).unwrap_or_default(),
        )
        .add("disk", size(view.disk_bytes))
        .add("tmp", size(view.tmp_bytes))
        .add("network", view.network)
        .list("allowed", &view.egress_allow)
        .list("mounts", spec.mounts.iter().map(show_mount))
        .add("workspace", view.workspace)
        .add(
            "root",
            if view.root_writable {
                "writable"
            } else {
                "read-only"
            },
        )
        .list(
            "labels",
            view.labels
                .iter()
                .map(|(key, value)| format!("{key}={value}")),
        );
}
