//! Who is who, which settings, and what the platform is like.

use cofferdam_driver_sdk::proto::*;
use cofferdam_driver_sdk::settings;
use serde_json::json;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::*;

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
