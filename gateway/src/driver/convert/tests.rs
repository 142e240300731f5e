//! Nothing is lost between the contract's types and ours.

use std::collections::BTreeMap;

use cofferdam_proto::compute::v1 as wire;
use serde_json::json;

use super::*;
use crate::model::{
    Credentials, ImageSource, ImageSpec, Isolation, LimitSet, Mount, MountSource, NetworkClass,
    NetworkSpec, ObservedState, PullPolicy, ResourceLimits, SandboxSpec, UnixMillis,
};

fn full_spec() -> SandboxSpec {
    let config = json!({"a": 1, "b": [true, null, "x", 1.5], "c": {"d": -7}});
    let mount = |target: &str, source| Mount {
        target: target.into(),
        read_only: true,
        source,
    };
    SandboxSpec {
        image: ImageSpec {
            source: ImageSource::Reference("debian:12".into()),
            pull: PullPolicy::Always,
            credentials: Some(Credentials {
                username: "u".into(),
                password: "p".into(),
                identity_token: String::new(),
            }),
            platform: "linux/amd64".into(),
        },
        uid: 1000,
        gid: 1001,
        limits: ResourceLimits {
            memory_bytes: 1,
            cpu_millis: 2,
            pids: 3,
            disk_bytes: 4,
            tmp_bytes: 5,
            required: LimitSet {
                memory: true,
                cpu: false,
                pids: true,
                disk: false,
            },
        },
        network: NetworkSpec {
            class: NetworkClass::Egress,
            allow: vec!["example.com:443".into()],
        },
        mounts: vec![
            mount("/a", MountSource::HostPath("/srv/a".into())),
            mount("/b", MountSource::Volume("b".into())),
            mount("/c", MountSource::Tmpfs { size_bytes: 9 }),
        ],
        labels: BTreeMap::from([("k".into(), "v".into())]),
        expire_time: UnixMillis(77),
        gpus: 1,
        driver_config: config.as_object().unwrap().clone(),
        isolation_min: Some(Isolation::Container),
        root_writable: true,
        workspace: "/w".into(),
        hostname: "h".into(),
    }
}

#[test]
fn a_spec_survives_the_wire() {
    let spec = full_spec();
    assert_eq!(spec_from_wire(spec_to_wire(&spec)).unwrap(), spec);
}

#[test]
fn a_spec_without_image_or_network_is_refused() {
    let mut spec = spec_to_wire(&full_spec());
    spec.network = None;
    assert_eq!(spec_from_wire(spec).unwrap_err().what, "network.class");
    let mut spec = spec_to_wire(&full_spec());
    spec.image = None;
    assert_eq!(spec_from_wire(spec).unwrap_err().what, "image");
}

#[test]
fn an_observation_survives_the_wire() {
    let sandbox = wire::Sandbox {
        sandbox_id: "sbx-1".into(),
        state: wire::SandboxState::FailedState as i32,
        revision: 3,
        conditions: vec![wire::Condition {
            r#type: wire::ConditionType::ImageReady as i32,
            status: wire::ConditionStatus::InProgress as i32,
            message: "pulling".into(),
            change_time_unix_ms: 4,
            progress_done_bytes: 5,
            progress_total_bytes: 6,
        }],
        termination: Some(wire::Termination {
            reason: wire::TerminationReason::OomKilled as i32,
            exit_code: 1,
            signal: 9,
            message: "m".into(),
            time_unix_ms: 7,
        }),
        oom_kill_count: Some(1),
        boots: 2,
        create_time_unix_ms: 8,
        start_time_unix_ms: 9,
        platform_id: "p".into(),
        image_digest: "sha256:00".into(),
        stream: "mount".into(),
        weaknesses: vec!["w".into()],
    };
    let observation = observation_from_wire(sandbox.clone()).unwrap();
    assert_eq!(observation_to_wire(&observation), sandbox);
}

#[test]
fn what_a_newer_driver_invents_is_unknown_and_no_error() {
    let sandbox = wire::Sandbox {
        sandbox_id: "sbx-1".into(),
        state: 99,
        ..Default::default()
    };
    let observation = observation_from_wire(sandbox).unwrap();
    assert_eq!(observation.state, ObservedState::Unknown);
}

#[test]
fn an_observation_without_a_valid_id_is_refused() {
    assert!(observation_from_wire(wire::Sandbox::default()).is_err());
}

#[test]
fn capabilities_that_do_not_say_who_executes_are_refused() {
    assert_eq!(capabilities_from_wire(wire::Capabilities::default()), None);
}

#[test]
fn capabilities_and_fingerprints_survive_the_wire() {
    let capabilities = wire::Capabilities {
        execution: wire::Execution::Supervised as i32,
        isolation: wire::Isolation::VirtualMachine as i32,
        images: Some(wire::ImageSources {
            host: true,
            registry: false,
            archive: true,
        }),
        networks: vec![
            wire::NetworkClass::None as i32,
            wire::NetworkClass::Open as i32,
        ],
        limits: Some(wire::Limits::default()),
        stop_start: true,
        ..Default::default()
    };
    let here = capabilities_from_wire(capabilities.clone()).unwrap();
    assert_eq!(capabilities_to_wire(&here), capabilities);

    let fingerprint = wire::FingerprintResponse {
        health: wire::Health::Unhealthy as i32,
        reason: "r".into(),
        fix: "f".into(),
        attributes: [("kernel".to_owned(), "6.1".to_owned())].into(),
        capacity: Some(wire::Resources {
            memory_bytes: Some(1),
            ..Default::default()
        }),
        used: Some(wire::Resources::default()),
        limits: Some(wire::Limits::default()),
        checks: vec![wire::Check {
            id: "kvm".into(),
            result: wire::CheckResult::Warning as i32,
            detail: "d".into(),
            fix: "f".into(),
        }],
    };
    let here = fingerprint_from_wire(fingerprint.clone());
    assert_eq!(fingerprint_to_wire(&here), fingerprint);
}
