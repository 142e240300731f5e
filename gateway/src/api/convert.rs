//! Between the callers' wire types and the domain: the only place where both are seen.

use std::collections::BTreeMap;

use bytes::Bytes;
use cofferdam_proto::compute::v1 as compute;
use cofferdam_proto::gateway::v1 as wire;

use crate::driver::{Driver, DriverState, Notice, convert};
use crate::execution::{Chunk, Item};
use crate::model::{
    Environment, ExecutionFacts, ExecutionReason, ExecutionState, Isolation, Mount, MountSource,
    NetworkClass, PtySize, PullPolicy, SandboxState,
};
use crate::output::OutputStream;
use crate::sandbox::Sandbox;
use crate::sandbox::admission::{Problems, Wishes};

pub(super) fn wishes(request: wire::SandboxRequest, problems: &mut Problems) -> Wishes {
    let pull = match request.pull() {
        compute::PullPolicy::Always => PullPolicy::Always,
        compute::PullPolicy::Never => PullPolicy::Never,
        _ => PullPolicy::Missing,
    };
    let network = match request.network() {
        compute::NetworkClass::Unspecified => None,
        compute::NetworkClass::None => Some(NetworkClass::None),
        compute::NetworkClass::Egress => Some(NetworkClass::Egress),
        compute::NetworkClass::Open => Some(NetworkClass::Open),
    };
    if compute::NetworkClass::try_from(request.network).is_err() {
        problems.add("network", "is not a network class that this gateway knows");
    }
    let isolation_min = isolation(&request, problems);
    Wishes {
        pull,
        network,
        isolation_min,
        mounts: request
            .mounts
            .into_iter()
            .enumerate()
            .filter_map(|(index, mount)| self::mount(index, mount, problems))
            .collect(),
        driver: request.driver,
        name: request.name,
        image: request.image,
        user: request.user,
        memory_bytes: request.memory_bytes,
        cpu_millis: request.cpu_millis,
        pids: request.pids,
        disk_bytes: request.disk_bytes,
        tmp_bytes: request.tmp_bytes,
        egress_allow: request.egress_allow,
        labels: request.labels.into_iter().collect(),
        lifetime_ms: request.lifetime_ms,
        idle_timeout_ms: request.idle_timeout_ms,
        gpus: request.gpus,
        driver_config: request
            .driver_config
            .map(convert::struct_from_wire)
            .unwrap_or_default(),
        root_writable: request.root_writable,
        workspace: request.workspace,
        environment: Environment(request.environment.into_iter().collect()),
    }
}

fn isolation(request: &wire::SandboxRequest, problems: &mut Problems) -> Option<Isolation> {
    use compute::Isolation as W;
    match W::try_from(request.isolation_min) {
        Ok(W::Unspecified) => None,
        Ok(W::NoIsolation) => Some(Isolation::NoIsolation),
        Ok(W::Namespaces) => Some(Isolation::Namespaces),
        Ok(W::Container) => Some(Isolation::Container),
        Ok(W::UserspaceKernel) => Some(Isolation::UserspaceKernel),
        Ok(W::VirtualMachine) => Some(Isolation::VirtualMachine),
        Ok(W::RemoteMachine) => Some(Isolation::RemoteMachine),
        Err(_) => {
            // Never a silent downgrade.
            problems.add("isolation_min", "is not a class that this gateway knows");
            None
        }
    }
}

fn mount(index: usize, mount: compute::Mount, problems: &mut Problems) -> Option<Mount> {
    use compute::mount::Source;
    let source = match mount.source {
        Some(Source::HostPath(path)) => MountSource::HostPath(path),
        Some(Source::Volume(name)) => MountSource::Volume(name),
        Some(Source::Tmpfs(tmpfs)) => MountSource::Tmpfs {
            size_bytes: tmpfs.size_bytes,
        },
        None => {
            let field = format!("mounts[{index}].source");
            problems.add(field, "say what is mounted: host_path, volume or tmpfs");
            return None;
        }
    };
    Some(Mount {
        target: mount.target,
        read_only: mount.read_only,
        source,
    })
}

pub(super) fn pty(pty: wire::Pty) -> PtySize {
    PtySize {
        rows: pty.rows,
        columns: pty.columns,
        term: pty.term,
    }
}

pub(super) fn sandbox(sandbox: &Sandbox) -> wire::Sandbox {
    let view = sandbox.view();
    let facts = &view.facts;
    let mut weaknesses = facts.weaknesses.clone();
    if let Some(observed) = &facts.observed {
        weaknesses.extend(observed.weaknesses.iter().cloned());
    }
    wire::Sandbox {
        sandbox_id: facts.id.to_string(),
        name: facts
            .name
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        driver: facts.driver.to_string(),
        state: sandbox_state(facts.state).into(),
        reason: facts.reason.clone(),
        message: facts.message.clone(),
        spec: Some(convert::spec_to_wire(&facts.spec)),
        create_time_unix_ms: facts.create_time.0,
        ready_time_unix_ms: facts.ready_time.0,
        state_time_unix_ms: facts.state_time.0,
        expire_time_unix_ms: facts.spec.expire_time.0,
        observed: facts.observed.as_ref().map(convert::observation_to_wire),
        session: view.session.is_some(),
        running_executions: sandbox.in_use().executions,
        running_transfers: sandbox.in_use().transfers,
        owner_uid: facts.owner_uid,
        execution_id: facts
            .execution_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        weaknesses,
        idle_timeout_ms: facts.idle_timeout_ms,
    }
}

fn sandbox_state(state: SandboxState) -> wire::SandboxState {
    match state {
        SandboxState::Queued => wire::SandboxState::Queued,
        SandboxState::Provisioning => wire::SandboxState::Provisioning,
        SandboxState::Ready => wire::SandboxState::Ready,
        SandboxState::Stopping => wire::SandboxState::Stopping,
        SandboxState::Stopped => wire::SandboxState::Stopped,
        SandboxState::Failed => wire::SandboxState::Failed,
        SandboxState::Deleting => wire::SandboxState::Deleting,
        SandboxState::Deleted => wire::SandboxState::Deleted,
    }
}

pub(super) fn execution(facts: &ExecutionFacts) -> wire::Execution {
    let ending = facts.ending.as_ref();
    let labels: BTreeMap<_, _> = facts.labels.clone();
    wire::Execution {
        execution_id: facts.id.to_string(),
        sandbox_id: facts.sandbox_id.to_string(),
        one_shot: facts.one_shot,
        state: execution_state(facts.state).into(),
        reason: ending.map_or(0, |ending| reason(ending.reason).into()),
        message: ending.map(|e| e.message.clone()).unwrap_or_default(),
        exit_code: ending.and_then(|ending| ending.exit_code),
        signal: ending.and_then(|ending| ending.signal),
        argv: facts
            .argv
            .iter()
            .map(|a| Bytes::copy_from_slice(a))
            .collect(),
        cwd: facts.cwd.clone(),
        pty: facts.pty.is_some(),
        timeout_ms: facts.timeout_ms,
        labels: labels.into_iter().collect(),
        owner_uid: facts.owner_uid,
        create_time_unix_ms: facts.create_time.0,
        start_time_unix_ms: facts.start_time.0,
        end_time_unix_ms: facts.end_time.0,
        queued_us: facts.stages.queued_us,
        claiming_us: facts.stages.claiming_us,
        running_us: facts.stages.running_us,
        output_bytes: facts.output.bytes,
        output_dropped_bytes: facts.output.dropped_bytes,
        cpu_user_us: facts.cpu_user_us,
        cpu_system_us: facts.cpu_system_us,
        max_rss_bytes: facts.max_rss_bytes,
        driver: facts.driver.to_string(),
        environment_names: facts.environment_names.clone(),
    }
}

fn execution_state(state: ExecutionState) -> wire::ExecutionState {
    match state {
        ExecutionState::Queued => wire::ExecutionState::ExecutionQueued,
        ExecutionState::Claiming => wire::ExecutionState::ExecutionClaiming,
        ExecutionState::Running => wire::ExecutionState::ExecutionRunning,
        ExecutionState::Succeeded => wire::ExecutionState::ExecutionSucceeded,
        ExecutionState::Failed => wire::ExecutionState::ExecutionFailed,
        ExecutionState::Canceled => wire::ExecutionState::ExecutionCanceled,
        ExecutionState::TimedOut => wire::ExecutionState::ExecutionTimedOut,
        ExecutionState::Lost => wire::ExecutionState::ExecutionLost,
    }
}

fn reason(reason: ExecutionReason) -> wire::ExecutionReason {
    use wire::ExecutionReason as W;
    match reason {
        ExecutionReason::Exited => W::ReasonExited,
        ExecutionReason::Signaled => W::ReasonSignaled,
        ExecutionReason::OomKilled => W::ReasonOomKilled,
        ExecutionReason::Timeout => W::ReasonTimeout,
        ExecutionReason::CanceledByCaller => W::ReasonCanceledByCaller,
        ExecutionReason::CallerLeft => W::ReasonCallerLeft,
        ExecutionReason::SandboxDeleted => W::ReasonSandboxDeleted,
        ExecutionReason::SandboxExpired => W::ReasonSandboxExpired,
        ExecutionReason::SandboxStopped => W::ReasonSandboxStopped,
        ExecutionReason::SandboxFailed => W::ReasonSandboxFailed,
        ExecutionReason::ProgramNotFound => W::ReasonProgramNotFound,
        ExecutionReason::ProgramNotExecutable => W::ReasonProgramNotExecutable,
        ExecutionReason::StartFailed => W::ReasonStartFailed,
        ExecutionReason::SupervisorLost => W::ReasonSupervisorLost,
        ExecutionReason::GatewayFault => W::ReasonGatewayFault,
        ExecutionReason::OutputNotStored => W::ReasonOutputNotStored,
        ExecutionReason::StdinLost => W::ReasonStdinLost,
    }
}

/// `None`: nothing to say, and the stream goes on (or ends, for `CaughtUp`).
pub(super) fn event(item: Item) -> Option<wire::ExecuteEvent> {
    use wire::execute_event::Event;
    let event = match item {
        Item::Output(chunk) => Event::Output(output(chunk)),
        Item::Gap { offset, length } => Event::Gap(wire::Gap { offset, length }),
        Item::State(facts) => Event::State(execution(&facts)),
        Item::Waiting(trouble) => Event::Notice(wire::Notice {
            kind: wire::notice::Kind::StorageWaiting.into(),
            message: format!(
                "its output cannot be stored now, and so it may have to wait: {trouble}"
            ),
            hint: trouble.hint().to_owned(),
        }),
        Item::Resumed => Event::Notice(wire::Notice {
            kind: wire::notice::Kind::StorageResumed.into(),
            message: "its output is stored again, and it goes on".to_owned(),
            hint: String::new(),
        }),
        Item::Finished(facts) => Event::Finished(execution(&facts)),
        Item::CaughtUp(_) => return None,
    };
    Some(wire::ExecuteEvent { event: Some(event) })
}

fn output(chunk: Chunk) -> wire::Output {
    let stream = match chunk.stream {
        OutputStream::Stdout => wire::OutputStream::Stdout,
        OutputStream::Stderr => wire::OutputStream::Stderr,
    };
    wire::Output {
        offset: chunk.offset,
        stream: stream.into(),
        data: chunk.data,
    }
}

fn notice(notice: Notice) -> compute::Check {
    let result = match notice.is_failure {
        true => compute::CheckResult::Failed,
        false => compute::CheckResult::Warning,
    };
    compute::Check {
        id: notice.id.to_owned(),
        result: result.into(),
        detail: notice.detail,
        fix: notice.fix,
    }
}

pub(super) fn driver(driver: &Driver, sandboxes: usize) -> wire::Driver {
    let view = driver.view();
    let (error, fix) = view.trouble().unwrap_or_default();
    let state = match view.state {
        DriverState::Connecting => wire::DriverState::Connecting,
        DriverState::Connected => wire::DriverState::Connected,
        DriverState::Refused => wire::DriverState::Refused,
    };
    wire::Driver {
        name: view.name.to_string(),
        state: state.into(),
        built_in: view.built_in,
        socket: view.socket.display().to_string(),
        path: view
            .path
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        error,
        fix,
        driver_name: view.driver_name.clone(),
        version: view.version.clone(),
        incarnation: view.incarnation.clone(),
        contract: view.contract,
        description: view.description.clone(),
        capabilities: view
            .capabilities
            .as_ref()
            .map(convert::capabilities_to_wire),
        fingerprint: view.fingerprint.as_ref().map(convert::fingerprint_to_wire),
        settings_schema: view.settings_schema.clone(),
        driver_config_schema: view.driver_config_schema.clone(),
        sandboxes: u32::try_from(sandboxes).unwrap_or(u32::MAX),
        connects: view.connects,
        pid: view.pid.unwrap_or_default(),
        notices: view.notices.list().into_iter().map(notice).collect(),
    }
}
