//! Settings, validation, and the fingerprint.

use cofferdam_driver_sdk::proto::*;
use cofferdam_driver_sdk::settings::from_json;
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::harness::{GATEWAY, Rig, create_with, delete, handshake, is_root, spec};

#[tokio::test]
async fn the_handshake_describes_the_driver() {
    let mut rig = Rig::new();
    rig.start_driver();
    let mut client = rig.shake_hands(GATEWAY).await;
    let answer = client
        .handshake(handshake(GATEWAY))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.name, "process");
    let capabilities = answer.capabilities.unwrap();
    assert_eq!(capabilities.isolation(), Isolation::Namespaces);
    assert_eq!(
        capabilities.networks().collect::<Vec<_>>(),
        [NetworkClass::None]
    );
    assert!(!capabilities.host_mounts);
    let more = json!({"allow_host_network": true, "read_only_paths": ["/opt"]});
    let answer = client
        .configure(rig.settings(more))
        .await
        .unwrap()
        .into_inner();
    let capabilities = answer.capabilities.unwrap();
    assert!(capabilities.networks.contains(&NetworkClass::Open.into()));
    assert!(capabilities.host_mounts);
}

#[tokio::test]
async fn wrong_settings_are_refused_all_at_once() {
    let mut rig = Rig::new();
    rig.start_driver();
    let mut client = rig.shake_hands(GATEWAY).await;
    let wrong = json!({"state_dir": "relative", "launch_timeout_ms": 1, "seccomp": "none"});
    let request = ConfigureRequest {
        settings: Some(from_json(&wrong)),
    };
    let error = client.configure(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(
        error
            .get_error_details()
            .bad_request()
            .unwrap()
            .field_violations
            .len(),
        3
    );
}

#[tokio::test]
async fn the_host_is_healthy_and_says_what_it_can_do() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let mut stream = client
        .fingerprint(FingerprintRequest {})
        .await
        .unwrap()
        .into_inner();
    let print = stream.message().await.unwrap().unwrap();
    assert_eq!(print.health(), Health::Healthy, "{print:#?}");
    assert!(print.checks.iter().any(|check| check.id == "sandbox"));
    assert!(print.attributes.contains_key("kernel"));
    assert!(print.capacity.unwrap().memory_bytes.unwrap() > 0);
    assert_eq!(print.used.unwrap().sandboxes, Some(0));
    let probes = std::fs::read_dir(rig.dir.path().join("state/probe")).unwrap();
    assert_eq!(probes.count(), 0, "the trial sandbox is gone");
}

#[tokio::test]
async fn a_missing_shim_is_unhealthy_with_a_fix() {
    let mut rig = Rig::new();
    rig.start_driver();
    let mut client = rig
        .connect(GATEWAY, json!({"shim_path": "/nowhere/shim"}))
        .await;
    let mut stream = client
        .fingerprint(FingerprintRequest {})
        .await
        .unwrap()
        .into_inner();
    let print = stream.message().await.unwrap().unwrap();
    assert_eq!(print.health(), Health::Unhealthy);
    assert!(print.fix.contains("/nowhere/shim"), "{print:#?}");
    let callback = rig.callback("sbx-1");
    let error = client
        .create_sandbox(create_with("sbx-1", &callback, spec()))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.get_error_details().help().is_some());
}

#[tokio::test]
async fn a_spec_is_checked_against_this_platform() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let spec = SandboxSpec {
        root_writable: true,
        workspace: "/elsewhere".to_owned(),
        driver_config: Some(from_json(&json!({"read_only_paths": ["/etc"]}))),
        ..spec()
    };
    let request = ValidateSandboxRequest { spec: Some(spec) };
    let answer = client.validate_sandbox(request).await.unwrap().into_inner();
    let fields: Vec<_> = answer
        .violations
        .iter()
        .map(|one| one.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "driver_config.read_only_paths[0]",
            "root_writable",
            "workspace"
        ]
    );
}

#[tokio::test]
async fn allowed_paths_are_seen_inside_and_others_are_refused() {
    let mut rig = Rig::new();
    let tools = rig.dir.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    std::fs::write(tools.join("note"), "from outside").unwrap();
    std::os::unix::fs::symlink("/etc/shadow", tools.join("trap")).unwrap();
    rig.start_driver();
    let mut client = rig
        .connect(GATEWAY, json!({"read_only_paths": [tools]}))
        .await;
    let mount = |source: &str| Mount {
        target: "/srv/tools".to_owned(),
        read_only: true,
        source: Some(mount::Source::HostPath(source.to_owned())),
    };
    let spec = SandboxSpec {
        mounts: vec![mount(tools.to_str().unwrap())],
        ..spec()
    };
    let mut callback = rig.callback("sbx-1");
    let request = create_with("sbx-1", &callback, spec.clone());
    client.create_sandbox(request).await.unwrap();
    assert_eq!(callback.run("cat /srv/tools/note").await, "from outside");
    assert!(
        callback
            .run("echo x > /srv/tools/note")
            .await
            .contains("Read-only")
    );
    client.delete_sandbox(delete("sbx-1")).await.unwrap();

    let trap = tools.join("trap");
    let spec = SandboxSpec {
        mounts: vec![mount(trap.to_str().unwrap())],
        ..spec
    };
    let request = create_with("sbx-2", &callback, spec);
    assert_eq!(
        client.create_sandbox(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_limit_that_is_insisted_on_is_enforced_or_refused() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let mut stream = client
        .fingerprint(FingerprintRequest {})
        .await
        .unwrap()
        .into_inner();
    let enforced = stream
        .message()
        .await
        .unwrap()
        .unwrap()
        .limits
        .unwrap()
        .memory;
    assert!(enforced || !is_root());
    let mut spec = spec();
    let limits = spec.limits.as_mut().unwrap();
    limits.required = Some(Limits {
        memory: true,
        ..Limits::default()
    });
    let callback = rig.callback("sbx-1");
    let created = client
        .create_sandbox(create_with("sbx-1", &callback, spec))
        .await;
    if enforced {
        created.unwrap();
    } else {
        let error = created.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.get_error_details().help().is_some(), "{error}");
    }
    client.delete_sandbox(delete("sbx-1")).await.unwrap();
}
