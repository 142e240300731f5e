//! What the server promises for every driver, asked over a real socket.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use cofferdam_driver_sdk::proto::recover_sandboxes_response::Outcome;
use cofferdam_driver_sdk::proto::watch_sandboxes_response::Event;
use cofferdam_driver_sdk::proto::*;
use cofferdam_driver_sdk::settings;
use serde_json::json;
use support::*;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

#[tokio::test]
async fn nothing_is_answered_before_the_handshake() {
    let rig = Rig::new();
    let mut client = rig.stranger().await;
    let error = client
        .list_sandboxes(ListSandboxesRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(
        error
            .get_error_details()
            .precondition_failure()
            .unwrap()
            .violations[0]
            .r#type,
        "HANDSHAKE"
    );
    let error = client
        .configure(ConfigureRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    // Another connection's handshake does not count for this one.
    let _gateway = rig.gateway().await;
    assert!(
        client
            .list_sandboxes(ListSandboxesRequest::default())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn the_handshake_says_who_is_who_and_may_be_repeated() {
    let rig = Rig::new();
    let mut client = rig.stranger().await;
    for _ in 0..2 {
        let answer = client
            .handshake(handshake(GATEWAY, 1, 7))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (answer.name.as_str(), answer.version.as_str()),
            ("scripted", "1.2.3")
        );
        assert_eq!(answer.chosen, 1);
        assert_eq!(answer.incarnation, rig.driver.context.incarnation.as_str());
        assert!(answer.settings_schema.contains("greeting"));
        assert!(answer.capabilities.unwrap().stop_start);
    }
}

#[tokio::test]
async fn versions_that_do_not_overlap_are_refused_with_both_ranges() {
    let rig = Rig::new();
    let mut client = rig.stranger().await;
    let error = client
        .handshake(handshake(GATEWAY, 5, 6))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(
        error.message().contains("5 to 6") && error.message().contains("1 to 1"),
        "{error}"
    );
    assert!(error.message().contains("install"), "{error}");
    let details = error.get_error_details();
    assert_eq!(
        details.precondition_failure().unwrap().violations[0].r#type,
        "CONTRACT_VERSION"
    );
    for (min, max) in [(0, 1), (2, 1)] {
        let error = client
            .handshake(handshake(GATEWAY, min, max))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn settings_come_before_sandboxes_and_all_their_problems_at_once() {
    let rig = Rig::new();
    let mut client = rig.stranger().await;
    client.handshake(handshake(GATEWAY, 1, 1)).await.unwrap();
    let error = client.create_sandbox(create("sbx-1")).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    let wrong = json!({"greeting": 1, "count": "x", "other": true});
    let request = ConfigureRequest {
        settings: Some(settings::from_json(&wrong)),
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
    let wrong = json!({"greeting": "wrong"});
    let request = ConfigureRequest {
        settings: Some(settings::from_json(&wrong)),
    };
    let error = client.configure(request).await.unwrap_err();
    assert_eq!(error.message(), "greeting: is wrong");
    client.configure(ConfigureRequest::default()).await.unwrap();
    client.create_sandbox(create("sbx-1")).await.unwrap();
}

#[tokio::test]
async fn health_and_reflection_answer_without_a_handshake() {
    let rig = Rig::new();
    let mut health = tonic_health::pb::health_client::HealthClient::new(rig.channel().await);
    let request = tonic_health::pb::HealthCheckRequest {
        service: "cofferdam.compute.v1.ComputeDriver".to_owned(),
    };
    let answer = health.check(request).await.unwrap().into_inner();
    assert_eq!(
        answer.status(),
        tonic_health::pb::health_check_response::ServingStatus::Serving
    );

    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(
            "cofferdam.compute.v1.ComputeDriver".to_owned(),
        )),
    };
    let mut reflection = ServerReflectionClient::new(rig.channel().await);
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut answers = reflection
        .server_reflection_info(requests)
        .await
        .unwrap()
        .into_inner();
    assert!(
        answers
            .next()
            .await
            .unwrap()
            .unwrap()
            .message_response
            .is_some()
    );
}

#[tokio::test]
async fn the_fingerprint_comes_at_once_and_then_on_change() {
    let rig = Rig::new();
    let mut client = rig.gateway().await;
    let stream = client.fingerprint(FingerprintRequest {}).await.unwrap();
    let mut stream = stream.into_inner();
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(first.health(), Health::Healthy);
    assert_eq!(first.used.unwrap().sandboxes, Some(0));
    client.create_sandbox(create("sbx-1")).await.unwrap();
    rig.driver.context.fingerprint_changed.notify_one();
    let next = stream.next().await.unwrap().unwrap();
    assert_eq!(next.used.unwrap().sandboxes, Some(1));
}

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
async fn a_deadline_drops_the_operation() {
    let rig = Rig::new();
    let mut client = rig.patient_gateway().await;
    let mut request = Request::new(create_with("sbx-1", "create", "hang"));
    request
        .metadata_mut()
        .insert("grpc-timeout", "50m".parse().unwrap());
    let error = client.create_sandbox(request).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(rig.driver.dropped.load(Ordering::SeqCst), 1);
    // The sandbox is free again.
    client.create_sandbox(create("sbx-1")).await.unwrap();

    let mut request = Request::new(console("sbx-1", true, 0));
    request
        .metadata_mut()
        .insert("grpc-timeout", "50m".parse().unwrap());
    let mut stream = client.read_console(request).await.unwrap().into_inner();
    assert_eq!(
        stream.next().await.unwrap().unwrap_err().code(),
        Code::DeadlineExceeded
    );
}

#[tokio::test]
async fn a_gateway_that_hangs_up_drops_its_operation() {
    let rig = Rig::new();
    let mut client = rig.gateway().await;
    let hanging = tokio::spawn({
        let mut client = rig.gateway().await;
        async move {
            client
                .create_sandbox(create_with("sbx-1", "create", "hang"))
                .await
        }
    });
    rig.driver.hangs.notified().await;
    hanging.abort();
    // Until the server has noticed, the sandbox is busy.
    while let Err(error) = client.create_sandbox(create("sbx-1")).await {
        assert_eq!(error.code(), Code::Aborted);
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.driver.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_panic_is_internal_and_the_driver_lives_on() {
    let rig = Rig::new();
    let mut client = rig.gateway().await;
    let request = create_with("sbx-1", "create", "panic");
    let error = client.create_sandbox(request).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    client.create_sandbox(create("sbx-1")).await.unwrap();
    let stream = client
        .read_console(console("sbx-1", false, 13))
        .await
        .unwrap();
    let mut stream = stream.into_inner();
    assert_eq!(&stream.next().await.unwrap().unwrap().data[..], b"first");
    assert_eq!(
        stream.next().await.unwrap().unwrap_err().code(),
        Code::Internal
    );
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
async fn a_gateway_sees_only_its_own_sandboxes() {
    let rig = Rig::new();
    let mut ours = rig.gateway().await;
    let mut theirs = rig.gateway_named("gw-other").await;
    ours.create_sandbox(create("sbx-1")).await.unwrap();
    assert_eq!(
        theirs.get_sandbox(get("sbx-1")).await.unwrap_err().code(),
        Code::NotFound
    );
    let list = theirs
        .list_sandboxes(ListSandboxesRequest::default())
        .await
        .unwrap();
    assert!(list.into_inner().sandboxes.is_empty());
    theirs.delete_sandbox(delete("sbx-1")).await.unwrap();
    ours.get_sandbox(get("sbx-1")).await.unwrap();
}

#[tokio::test]
async fn a_list_comes_in_pages_and_ends_complete() {
    let rig = Rig::new();
    let mut client = rig.gateway().await;
    for id in ["sbx-3", "sbx-1", "sbx-2"] {
        client.create_sandbox(create(id)).await.unwrap();
    }
    let mut request = ListSandboxesRequest {
        page_size: 2,
        page_token: String::new(),
    };
    let first = client
        .list_sandboxes(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(!first.complete);
    request.page_token = first.next_page_token;
    let last = client.list_sandboxes(request).await.unwrap().into_inner();
    assert!(last.complete);
    let ids = first
        .sandboxes
        .iter()
        .chain(&last.sandboxes)
        .map(|s| s.sandbox_id.as_str());
    assert_eq!(ids.collect::<Vec<_>>(), ["sbx-1", "sbx-2", "sbx-3"]);
    let request = ListSandboxesRequest {
        page_size: 2,
        page_token: "foreign.c.x".to_owned(),
    };
    assert_eq!(
        client.list_sandboxes(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_watcher_sees_what_operations_do() {
    let rig = Rig::new();
    let mut client = rig.gateway().await;
    client.create_sandbox(create("sbx-1")).await.unwrap();
    let stream = client
        .watch_sandboxes(WatchSandboxesRequest::default())
        .await
        .unwrap();
    let mut stream = stream.into_inner();
    let snapshot = stream.next().await.unwrap().unwrap();
    assert!(matches!(snapshot.event, Some(Event::Snapshot(s)) if s.sandbox_id == "sbx-1"));
    assert!(snapshot.cursor.is_empty());
    let synced = stream.next().await.unwrap().unwrap();
    assert!(matches!(synced.event, Some(Event::Bookmark(ref b)) if b.synced));

    client.stop_sandbox(stop("sbx-1")).await.unwrap();
    // Observed before the stop, told after it: dropped.
    rig.driver.context.observations.record(
        GATEWAY,
        Sandbox {
            sandbox_id: "sbx-1".to_owned(),
            state: SandboxState::Running.into(),
            boots: 1,
            ..Sandbox::default()
        },
    );
    client.delete_sandbox(delete("sbx-1")).await.unwrap();
    let changed = stream.next().await.unwrap().unwrap();
    let Some(Event::Changed(changed)) = changed.event else {
        panic!("{changed:?}")
    };
    assert_eq!(
        (changed.state(), changed.revision),
        (SandboxState::Stopped, 2)
    );
    let deleted = stream.next().await.unwrap().unwrap();
    assert!(matches!(deleted.event, Some(Event::Deleted(d)) if d.revision == 3));

    // From the bookmark on, the same again.
    let request = WatchSandboxesRequest {
        cursor: synced.cursor,
    };
    let mut again = client.watch_sandboxes(request).await.unwrap().into_inner();
    assert!(matches!(
        again.next().await.unwrap().unwrap().event,
        Some(Event::Changed(_))
    ));
    let request = WatchSandboxesRequest {
        cursor: "another.7".to_owned(),
    };
    let mut foreign = client.watch_sandboxes(request).await.unwrap().into_inner();
    assert_eq!(
        foreign.next().await.unwrap().unwrap_err().code(),
        Code::OutOfRange
    );
}

#[tokio::test]
async fn recovery_answers_each_item_in_order() {
    let rig = Rig::new();
    let mut client = rig.gateway().await;
    client.create_sandbox(create("sbx-1")).await.unwrap();
    let item = |id: &str, version| recover_sandboxes_request::Item {
        sandbox_id: id.to_owned(),
        handle: Some(Handle {
            version,
            data: vec![].into(),
        }),
        callback_directory: "/run/new".to_owned(),
    };
    let items = vec![item("sbx-0", 1), item("sbx-1", 1), item("sbx-2", 9)];
    let answer = client
        .recover_sandboxes(RecoverSandboxesRequest { items })
        .await
        .unwrap();
    let results = answer.into_inner().results;
    let outcomes: Vec<_> = results.iter().map(|result| result.outcome()).collect();
    assert_eq!(
        outcomes,
        [Outcome::Gone, Outcome::Recovered, Outcome::Unknown]
    );
    assert_eq!(results[1].sandbox.as_ref().unwrap().revision, 1);
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

#[tokio::test]
async fn statistics_come_once_or_at_an_interval() {
    let rig = Rig::new();
    let mut client = rig.gateway().await;
    client.create_sandbox(create("sbx-1")).await.unwrap();
    let mut request = SandboxStatsRequest {
        sandbox_id: "sbx-1".to_owned(),
        interval_ms: 0,
    };
    let once = client
        .sandbox_stats(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(once.collect::<Vec<_>>().await.len(), 1);
    request.interval_ms = 100;
    let often = client.sandbox_stats(request).await.unwrap().into_inner();
    assert_eq!(often.take(3).collect::<Vec<_>>().await.len(), 3);
}

#[tokio::test]
async fn a_shutdown_ends_streams_waits_for_calls_and_accepts_nothing() {
    let rig = Rig::draining_for(Duration::from_secs(30));
    let mut client = rig.patient_gateway().await;
    client
        .create_sandbox(create_with("sbx-1", "stop", "hang"))
        .await
        .unwrap();
    let watch = client
        .watch_sandboxes(WatchSandboxesRequest::default())
        .await
        .unwrap();
    let watch = watch.into_inner();
    let hanging = tokio::spawn({
        let mut client = client.clone();
        async move {
            let mut request = Request::new(stop("sbx-1"));
            request
                .metadata_mut()
                .insert("grpc-timeout", "300m".parse().unwrap());
            client.stop_sandbox(request).await
        }
    });
    rig.driver.hangs.notified().await;
    rig.stop.cancel();
    let events: Vec<_> = watch.collect().await;
    assert_eq!(
        events.last().unwrap().as_ref().unwrap_err().code(),
        Code::Unavailable
    );
    assert_eq!(
        hanging.await.unwrap().unwrap_err().code(),
        Code::DeadlineExceeded
    );
    rig.serving.await.unwrap();
    assert!(!rig.directory.path().join("d.sock").exists());
}

#[tokio::test]
async fn a_drain_has_a_deadline_and_can_be_forced() {
    for forced in [false, true] {
        let drain_max = if forced {
            Duration::from_secs(600)
        } else {
            Duration::from_millis(50)
        };
        let rig = Rig::draining_for(drain_max);
        let mut client = rig.gateway().await;
        client
            .create_sandbox(create_with("sbx-1", "stop", "hang"))
            .await
            .unwrap();
        let hanging = tokio::spawn(async move { client.stop_sandbox(stop("sbx-1")).await });
        rig.driver.hangs.notified().await;
        rig.stop.cancel();
        if forced {
            rig.force.cancel();
        }
        rig.serving.await.unwrap();
        hanging.abort();
    }
}

fn console(id: &str, follow: bool, tail_bytes: u64) -> ReadConsoleRequest {
    ReadConsoleRequest {
        sandbox_id: id.to_owned(),
        follow,
        tail_bytes,
    }
}
