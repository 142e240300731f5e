//! Stored records come back as they were.

use super::*;
use crate::model::*;

fn full_spec() -> SandboxSpec {
    let json = serde_json::json!({"a": [1, 2.5, {"b": null}], "c": "d"});
    SandboxSpec {
        image: ImageSpec {
            source: ImageSource::Reference("debian:12".to_owned()),
            pull: PullPolicy::Always,
            credentials: Some(Credentials {
                username: "me".to_owned(),
                password: "hunter2".to_owned(),
                identity_token: "hunter3".to_owned(),
            }),
            platform: "linux/amd64".to_owned(),
        },
        uid: 5,
        gid: 6,
        limits: ResourceLimits {
            memory_bytes: 1,
            cpu_millis: 2,
            pids: 3,
            disk_bytes: u64::MAX,
            tmp_bytes: 5,
            required: LimitSet {
                memory: true,
                cpu: false,
                pids: true,
                disk: true,
            },
        },
        network: NetworkSpec {
            class: NetworkClass::Egress,
            allow: vec!["*.example:443".to_owned()],
        },
        mounts: vec![
            mount(MountSource::HostPath("/srv".to_owned())),
            mount(MountSource::Volume("cache".to_owned())),
            mount(MountSource::Tmpfs { size_bytes: 77 }),
        ],
        labels: [("team".to_owned(), "blau".to_owned())].into(),
        expire_time: UnixMillis(2_000_000_000_000),
        gpus: 2,
        driver_config: json.as_object().unwrap().clone(),
        isolation_min: Some(Isolation::VirtualMachine),
        root_writable: true,
        workspace: "/work space".to_owned(),
        hostname: "höst".to_owned(),
    }
}

fn mount(source: MountSource) -> Mount {
    Mount {
        target: "/mnt".to_owned(),
        read_only: true,
        source,
    }
}

fn full_sandbox() -> SandboxFacts {
    let id = SandboxId::parse("sbx-1").unwrap();
    SandboxFacts {
        id: id.clone(),
        name: Some(SandboxName::parse("name").unwrap()),
        driver: DriverName::parse("one").unwrap(),
        owner_uid: 7,
        execution_id: Some(ExecutionId::parse("exec-1").unwrap()),
        spec: full_spec(),
        state: SandboxState::Failed,
        reason: "OOM_KILLED".to_owned(),
        message: "It was too \"big\".".to_owned(),
        handle: Some(Handle {
            version: 9,
            data: vec![0, 159, 146, 150],
        }),
        observed: Some(Observation {
            sandbox_id: id,
            state: ObservedState::Failed,
            revision: 12,
            conditions: vec![Condition {
                kind: ConditionType::ImageReady,
                status: ConditionStatus::InProgress,
                message: "pulling".to_owned(),
                change_time: UnixMillis(4),
                progress_done_bytes: 34,
                progress_total_bytes: 118,
            }],
            termination: Some(Termination {
                reason: TerminationReason::OomKilled,
                exit_code: -1,
                signal: 9,
                message: "killed".to_owned(),
                time: UnixMillis(5),
            }),
            oom_kill_count: Some(0),
            boots: 1,
            create_time: UnixMillis(1),
            start_time: UnixMillis(2),
            platform_id: "pid 7".to_owned(),
            image_digest: "sha256:00".to_owned(),
            stream: "mount".to_owned(),
            weaknesses: vec!["No limit on pids.".to_owned()],
        }),
        create_time: UnixMillis(1),
        ready_time: UnixMillis(2),
        state_time: UnixMillis(3),
        idle_timeout_ms: 4,
        weaknesses: vec!["The root is writable.".to_owned()],
        environment_names: vec!["API_KEY".to_owned()],
    }
}

fn full_execution() -> ExecutionFacts {
    ExecutionFacts {
        id: ExecutionId::parse("exec-1").unwrap(),
        sandbox_id: SandboxId::parse("sbx-1").unwrap(),
        driver: DriverName::parse("one").unwrap(),
        one_shot: true,
        detachable: true,
        owner_uid: 7,
        argv: vec![
            b"echo".to_vec(),
            "ä\n\"".into(),
            vec![0xff, 0x00],
            Vec::new(),
        ],
        cwd: "/tmp".to_owned(),
        user: Some((5, None)),
        pty: Some(PtySize {
            rows: 24,
            columns: 80,
            term: "xterm".to_owned(),
        }),
        stdin: true,
        timeout_ms: 1,
        output_cap_bytes: 2,
        labels: [("k".to_owned(), "v".to_owned())].into(),
        environment_names: vec!["HOME".to_owned()],
        state: ExecutionState::TimedOut,
        ending: Some(Ending {
            reason: ExecutionReason::Timeout,
            message: "It took too long.".to_owned(),
            exit_code: None,
            signal: Some(9),
        }),
        create_time: UnixMillis(1),
        start_time: UnixMillis(2),
        end_time: UnixMillis(3),
        stages: StageTimes {
            queued_us: 4,
            claiming_us: 5,
            running_us: 6,
        },
        output: OutputTotals {
            bytes: 7,
            dropped_bytes: 8,
        },
        cpu_user_us: Some(9),
        cpu_system_us: Some(0),
        max_rss_bytes: None,
    }
}

#[test]
fn a_sandbox_comes_back_whole_but_for_its_credentials() {
    let mut facts = full_sandbox();
    let record = write_sandbox(&facts).unwrap();
    assert!(!record.contains("hunter"), "{record}");
    facts.spec.image.credentials = None;
    assert_eq!(read_sandbox(&record).unwrap(), facts);
}

#[test]
fn an_execution_comes_back_whole() {
    let facts = full_execution();
    let record = write_execution(&facts).unwrap();
    assert_eq!(read_execution(&record).unwrap(), facts);
}

/// What has been released must stay readable: this text may only ever be added to.
#[test]
fn version_1_looks_like_this() {
    let pretty = |record: String| {
        let value: serde_json::Value = serde_json::from_str(&record).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    };
    insta::assert_snapshot!("sandbox", pretty(write_sandbox(&full_sandbox()).unwrap()));
    insta::assert_snapshot!(
        "execution",
        pretty(write_execution(&full_execution()).unwrap())
    );
}

#[test]
fn stored_names_are_those_that_callers_see() {
    for state in [
        SandboxState::Queued,
        SandboxState::Stopping,
        SandboxState::Deleted,
    ] {
        assert_eq!(names::sandbox_state::name(&state), state.name());
    }
    for state in [
        ExecutionState::Queued,
        ExecutionState::TimedOut,
        ExecutionState::Lost,
    ] {
        assert_eq!(names::execution_state::name(&state), state.name());
    }
    for reason in [ExecutionReason::OomKilled, ExecutionReason::CallerLeft] {
        assert_eq!(names::execution_reason::name(&reason), reason.name());
    }
    for reason in [
        TerminationReason::StoppedByRequest,
        TerminationReason::PlatformLost,
    ] {
        assert_eq!(names::termination_reason::name(&reason), reason.name());
    }
}

#[test]
fn records_that_are_not_known_say_what_they_are() {
    let newer = write_execution(&full_execution())
        .unwrap()
        .replacen("\"v\":1", "\"v\":2", 1);
    let error = read_execution(&newer).unwrap_err().to_string();
    assert!(error.contains("version 2"), "{error}");
    let odd = write_execution(&full_execution())
        .unwrap()
        .replace("TIMED_OUT", "ASLEEP");
    let error = read_execution(&odd).unwrap_err().to_string();
    assert!(error.contains("ASLEEP"), "{error}");
    let bad = write_execution(&full_execution())
        .unwrap()
        .replace("exec-1", "EXEC 1");
    let error = read_execution(&bad).unwrap_err().to_string();
    assert!(error.contains("execution id"), "{error}");
}
