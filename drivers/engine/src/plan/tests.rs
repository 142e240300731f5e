//! What the engine is asked for, as a whole: a change of a default shows here.

use std::collections::BTreeMap;

use cofferdam_driver_sdk::proto::{
    ImageSpec, Mount, NetworkSpec, ResourceLimits, TmpfsMount, image_spec,
};
use cofferdam_driver_sdk::settings::from_json;
use serde_json::{Value, json};

use super::*;
use crate::discover::Discovered;
use crate::settings::Settings;

fn spec() -> SandboxSpec {
    SandboxSpec {
        image: Some(ImageSpec {
            source: Some(image_spec::Source::Reference("debian:12".to_owned())),
            ..ImageSpec::default()
        }),
        uid: 1000,
        gid: 1000,
        limits: Some(ResourceLimits {
            memory_bytes: 512 << 20,
            cpu_millis: 1500,
            pids: 256,
            disk_bytes: 512 << 20,
            tmp_bytes: 100 << 20,
            required: None,
        }),
        labels: [("team".to_owned(), "a".to_owned())].into(),
        expire_time_unix_ms: 9_000,
        ..SandboxSpec::default()
    }
}

fn image() -> ImageFacts {
    ImageFacts {
        id: "sha256:1111".to_owned(),
        name: "debian:12".to_owned(),
        digest: "sha256:2222".to_owned(),
        environment: [("PATH".to_owned(), "/usr/bin".to_owned())].into(),
        user: Some((65532, 65532)),
        volumes: Vec::new(),
    }
}

fn config(value: &Value) -> Config {
    let settings: Settings = serde_json::from_value(value.clone()).unwrap();
    settings.resolve(Discovered::default(), "bridge").unwrap()
}

fn facts() -> EngineFacts {
    EngineFacts {
        seccomp: true,
        cgroup_version: "2".to_owned(),
        runtimes: vec!["runc".to_owned(), "runsc".to_owned()],
        ..EngineFacts::default()
    }
}

fn planned(spec: &SandboxSpec, config: &Config, stream: Stream) -> Plan {
    let own = driver_config(spec).unwrap();
    let volume = if wants_volume(&own) { "ws-1" } else { "" };
    let place = Place {
        config,
        facts: &facts(),
        log_driver: "json-file",
    };
    let prepared = Prepared {
        gateway_id: "gw-1",
        sandbox_id: "sbx-1",
        spec_digest: "abcd",
        create_time_unix_ms: 1_000,
        stream,
        callback: "/run/cofferdam/callback/sbx-1",
        supervisor_volume: "supervisor-1",
        workspace_volume: volume,
    };
    plan(spec, &own, &image(), place, &prepared)
}

fn request(plan: &Plan) -> Value {
    serde_json::to_value(&plan.body).unwrap()
}

#[test]
fn defaults_are_closed() {
    let plan = planned(&spec(), &config(&json!({})), Stream::Mount);
    insta::assert_snapshot!(serde_json::to_string_pretty(&request(&plan)).unwrap());
}

#[test]
fn what_the_caller_cannot_have_is_refused_with_the_setting_that_gives_it() {
    let mut spec = spec();
    spec.labels = [("cofferdam.driver.gateway".to_owned(), "x".to_owned())].into();
    spec.mounts = vec![Mount {
        target: "/data".to_owned(),
        source: Some(mount_source("volume")),
        ..Mount::default()
    }];
    spec.driver_config = Some(from_json(&json!({
        "volumes": [{"name": "v", "target": "/proc/x"}],
        "binds": [{"source": "/etc", "target": "/data"}],
        "devices": ["/dev/kvm"],
        "runtime": "kata",
        "security_options": ["seccomp=unconfined"],
    })));
    let found = check(&spec, &config(&json!({})), Some(&facts()));
    let lines: Vec<_> = found
        .into_iter()
        .map(|one| format!("{}: {}", one.field, one.message))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

fn mount_source(kind: &str) -> cofferdam_driver_sdk::proto::mount::Source {
    use cofferdam_driver_sdk::proto::mount::Source;
    match kind {
        "volume" => Source::Volume("v".to_owned()),
        "host" => Source::HostPath("/srv/data/x".to_owned()),
        _ => Source::Tmpfs(TmpfsMount { size_bytes: 4096 }),
    }
}

#[test]
fn what_is_opened_is_recorded() {
    let mut spec = spec();
    spec.network = Some(NetworkSpec {
        class: NetworkClass::Open.into(),
        allow: Vec::new(),
    });
    spec.root_writable = true;
    spec.gpus = 1;
    spec.mounts = vec![
        Mount {
            target: "/host".to_owned(),
            read_only: true,
            source: Some(mount_source("host")),
        },
        Mount {
            target: "/scratch".to_owned(),
            read_only: false,
            source: Some(mount_source("tmpfs")),
        },
    ];
    spec.driver_config = Some(from_json(&json!({
        "workspace": "memory",
        "volumes": [{"name": "cache-1", "target": "/cache"}],
        "devices": ["/dev/fuse", "vendor.example/net=eth0"],
        "runtime": "runsc",
        "extra_hosts": {"db": "10.0.0.2"},
        "ulimits": {"nofile": 2048},
        "security_options": ["apparmor=mine"],
        "image_user": true,
    })));
    let config = config(&json!({
        "bind_paths": ["/srv/data"],
        "allowed_volumes": ["cache-*"],
        "allowed_devices": ["/dev/fuse", "vendor.example/net=eth0"],
        "allowed_runtimes": ["runsc"],
        "allowed_security_options": ["apparmor=mine"],
        "allow_gpus": true,
        "ulimits": {"nofile": 1024, "nproc": 512},
    }));
    assert_eq!(check(&spec, &config, Some(&facts())), []);
    let plan = planned(&spec, &config, Stream::Relay);
    insta::assert_snapshot!(serde_json::to_string_pretty(&request(&plan)).unwrap());
    insta::assert_snapshot!(plan.record.weaknesses.join("\n"));
}

#[test]
fn a_relayed_stream_is_in_no_log() {
    let plan = planned(&spec(), &config(&json!({})), Stream::Relay);
    let request = request(&plan);
    assert_eq!(request["HostConfig"]["LogConfig"]["Type"], "none");
    assert_eq!(request["StdinOnce"], false);
    let text = request.to_string();
    assert!(!text.contains("/run/cofferdam/callback\""), "{text}");
}

#[test]
fn limits_that_the_engine_lacks_are_recorded() {
    let place_facts = EngineFacts {
        limits: crate::facts::EngineLimits {
            swap: false,
            pids: false,
            ..Default::default()
        },
        ..facts()
    };
    let (config, own) = (config(&json!({})), DriverConfig::default());
    let place = Place {
        config: &config,
        facts: &place_facts,
        log_driver: "x",
    };
    let found = weaknesses::of(&spec(), &own, &image(), place).join("\n");
    assert!(
        found.contains("swap") && found.contains("processes"),
        "{found}"
    );
}

#[test]
fn an_images_volumes_become_bounded_memory() {
    let image = ImageFacts {
        volumes: vec!["/var/lib/db".to_owned(), "/workspace".to_owned()],
        ..image()
    };
    let own = DriverConfig::default();
    let tmpfs: BTreeMap<_, _> = mounts::tmpfs(&spec(), &own, &image, (1, 1))
        .into_iter()
        .collect();
    let paths: Vec<_> = tmpfs.keys().collect();
    assert_eq!(paths, ["/tmp", "/var/lib/db"]);
}
