//! What a sandbox may be asked, by whom, and how often at a time.

use std::sync::atomic::Ordering;

use cofferdam_driver_sdk::proto::*;
use cofferdam_driver_sdk::settings;
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::*;

#[tokio::test]
async fn a_create_is_idempotent_and_another_spec_is_refused() {
    let rig = Rig::new();
    let mut client = rig.gateway().await;
    let first = client
        .create_sandbox(create("sbx-1"))
        .await
        .unwrap()
        .into_inner();
    let mut again = create("sbx-1");
    again.bootstrap_token = vec![9; 32].into();
    let again = client.create_sandbox(again).await.unwrap().into_inner();
    assert_eq!(first, again);
    let other = create_with("sbx-1", "colour", "red");
    let error = client.create_sandbox(other).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert_eq!(
        error
            .get_error_details()
            .resource_info()
            .unwrap()
            .resource_name,
        "sbx-1"
    );
}

#[tokio::test]
async fn everything_wrong_with_a_create_is_said_at_once() {
    let rig = Rig::new();
    let mut client = rig.gateway().await;
    let request = CreateSandboxRequest {
        sandbox_id: "No Id".to_owned(),
        bootstrap_token: vec![0; 3].into(),
        callback_directory: "relative".to_owned(),
        ..create("x")
    };
    let error = client.create_sandbox(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let details = error.get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations.len(), 3);

    let mut request = create("sbx-1");
    let spec = request.spec.as_mut().unwrap();
    spec.expire_time_unix_ms = 1;
    spec.gpus = 1;
    spec.driver_config = Some(settings::from_json(&json!({"colour": "blue"})));
    let error = client.create_sandbox(request.clone()).await.unwrap_err();
    let details = error.get_error_details();
    let fields: Vec<_> = details
        .bad_request()
        .unwrap()
        .field_violations
        .iter()
        .collect();
    let fields: Vec<_> = fields
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "spec.gpus",
            "spec.driver_config.colour",
            "spec.expire_time_unix_ms"
        ]
    );

    // The same as data.
    let request = ValidateSandboxRequest { spec: request.spec };
    let answer = client.validate_sandbox(request).await.unwrap().into_inner();
    let fields: Vec<_> = answer
        .violations
        .iter()
        .map(|violation| &violation.field)
        .collect();
    assert_eq!(
        fields,
        ["gpus", "driver_config.colour", "expire_time_unix_ms"]
    );
}

#[tokio::test]
async fn bounds_are_enforced() {
    let rig = Rig::new();
    let mut client = rig.gateway().await;
    let error = client.get_sandbox(get(&"x".repeat(64))).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let request = ListSandboxesRequest {
        page_token: "x".repeat(2000),
        page_size: 0,
    };
    assert_eq!(
        client.list_sandboxes(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let request = SandboxStatsRequest {
        sandbox_id: "sbx-1".to_owned(),
        interval_ms: 99,
    };
    assert_eq!(
        client.sandbox_stats(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    // Beyond 4 MiB nothing is read at all.
    let request = WatchSandboxesRequest {
        cursor: "x".repeat(5 << 20),
    };
    assert!(client.watch_sandboxes(request).await.is_err());
    assert!(
        client
            .list_sandboxes(ListSandboxesRequest::default())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_second_operation_on_a_sandbox_is_aborted_with_a_retry_time() {
    let rig = Rig::new();
    let client = rig.gateway().await;
    let hanging = tokio::spawn({
        let mut client = client.clone();
        async move {
            client
                .create_sandbox(create_with("sbx-1", "create", "hang"))
                .await
        }
    });
    rig.driver.hangs.notified().await;
    let mut second = client.clone();
    let error = second
        .create_sandbox(create_with("sbx-1", "create", "hang"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    assert!(
        error
            .get_error_details()
            .retry_info()
            .unwrap()
            .retry_delay
            .is_some()
    );
    // Another sandbox does not wait.
    second.create_sandbox(create("sbx-2")).await.unwrap();
    hanging.abort();
}

#[tokio::test]
async fn delete_takes_over_from_a_create_that_hangs() {
    let rig = Rig::new();
    let client = rig.gateway().await;
    let hanging = tokio::spawn({
        let mut client = client.clone();
        async move {
            client
                .create_sandbox(create_with("sbx-1", "create", "hang"))
                .await
        }
    });
    rig.driver.hangs.notified().await;
    client
        .clone()
        .delete_sandbox(delete("sbx-1"))
        .await
        .unwrap();
    assert_eq!(hanging.await.unwrap().unwrap_err().code(), Code::Aborted);
    assert_eq!(rig.driver.dropped.load(Ordering::SeqCst), 1);
    assert_eq!(rig.driver.deletes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn delete_of_an_unknown_sandbox_succeeds() {
    let rig = Rig::new();
    let mut client = rig.gateway().await;
    client.delete_sandbox(delete("sbx-none")).await.unwrap();
    let error = client.get_sandbox(get("sbx-none")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn what_is_not_among_the_capabilities_is_unimplemented() {
    let rig = Rig::new();
    let mut client = rig.gateway().await;
    client.create_sandbox(create("sbx-1")).await.unwrap();
    let request = PauseSandboxRequest {
        sandbox_id: "sbx-1".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        client.pause_sandbox(request).await.unwrap_err().code(),
        Code::Unimplemented
    );
    let request = RunCommandRequest {
        sandbox_id: "sbx-1".to_owned(),
        command_id: "cmd-1".to_owned(),
        argv: vec!["true".into()],
        ..Default::default()
    };
    assert_eq!(
        client.run_command(request).await.unwrap_err().code(),
        Code::Unimplemented
    );
}
