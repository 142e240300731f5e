//! How calls end: deadlines, gateways that hang up, panics, the end of the process.

use std::sync::atomic::Ordering;
use std::time::Duration;

use cofferdam_driver_sdk::proto::*;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};

use crate::support::*;

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
