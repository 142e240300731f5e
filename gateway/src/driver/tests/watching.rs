//! Watches: order, cursors, resyncs, silence.

use cofferdam_proto::compute::v1 as wire;
use tonic::Status;
use wire::watch_sandboxes_response::Event;

use super::fake::{FakeDriver, Script, sandbox, socket_path};
use super::*;

const FIRST: &str = "incarnation-1";

#[tokio::test]
async fn a_snapshot_then_changes_arrive_in_order() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let mut watches = script.take_watches();
    let _driver = FakeDriver::serve(&script, &socket);
    let mut gateway = Gateway::with_socket(eager(), &socket);
    let watch = within(watches.recv()).await.unwrap();
    assert_eq!(watch.cursor, "");
    watch.tell("", Event::Snapshot(sandbox("sbx-1"))).await;
    watch.synced("c1", FIRST).await;
    watch.tell("c2", Event::Changed(sandbox("sbx-2"))).await;
    let deleted = wire::SandboxDeleted {
        sandbox_id: "sbx-1".to_owned(),
        revision: 9,
    };
    watch.tell("c3", Event::Deleted(deleted)).await;
    assert!(matches!(
        gateway.event().await,
        DriverEvent::Connected { .. }
    ));
    assert_eq!(observed(gateway.event().await), "sbx-1");
    assert!(matches!(gateway.event().await, DriverEvent::Synced { .. }));
    assert_eq!(observed(gateway.event().await), "sbx-2");
    let last = gateway.event().await;
    assert!(
        matches!(&last, DriverEvent::Deleted { sandbox_id, .. } if sandbox_id.as_str() == "sbx-1"),
        "{last:?}"
    );
}

fn observed(event: DriverEvent) -> String {
    match event {
        DriverEvent::Observed { observation, .. } => observation.sandbox_id.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_cut_stream_goes_on_from_its_cursor() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let mut watches = script.take_watches();
    let _driver = FakeDriver::serve(&script, &socket);
    let mut gateway = Gateway::with_socket(eager(), &socket);
    let watch = within(watches.recv()).await.unwrap();
    watch.synced("c1", FIRST).await;
    watch.tell("c2", Event::Changed(sandbox("sbx-2"))).await;
    watch
        .events
        .send(Err(Status::unavailable("hiccup")))
        .await
        .unwrap();
    let watch = within(watches.recv()).await.unwrap();
    assert_eq!(watch.cursor, "c2");
    watch.tell("c3", Event::Changed(sandbox("sbx-3"))).await;
    gateway.synced().await;
    assert_eq!(observed(gateway.event().await), "sbx-2");
    assert_eq!(observed(gateway.event().await), "sbx-3");
    assert_eq!(gateway.driver().view().connects, 1);
}

#[tokio::test]
async fn a_cursor_that_is_too_old_begins_anew_and_syncs_again() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let mut watches = script.take_watches();
    let _driver = FakeDriver::serve(&script, &socket);
    let mut gateway = Gateway::with_socket(eager(), &socket);
    let watch = within(watches.recv()).await.unwrap();
    watch.synced("c1", FIRST).await;
    gateway.synced().await;
    drop(watch);
    let watch = within(watches.recv()).await.unwrap();
    assert_eq!(watch.cursor, "c1");
    watch
        .events
        .send(Err(Status::out_of_range("too old")))
        .await
        .unwrap();
    let watch = within(watches.recv()).await.unwrap();
    assert_eq!(watch.cursor, "");
    watch.tell("", Event::Snapshot(sandbox("sbx-1"))).await;
    watch.synced("c9", FIRST).await;
    assert_eq!(observed(gateway.event().await), "sbx-1");
    gateway.synced().await;
}

#[tokio::test]
async fn a_snapshot_that_was_cut_is_taken_anew() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let mut watches = script.take_watches();
    let _driver = FakeDriver::serve(&script, &socket);
    let mut gateway = Gateway::with_socket(eager(), &socket);
    let watch = within(watches.recv()).await.unwrap();
    watch.tell("c1", Event::Snapshot(sandbox("sbx-1"))).await;
    drop(watch);
    let watch = within(watches.recv()).await.unwrap();
    assert_eq!(watch.cursor, "");
    watch.synced("c1", FIRST).await;
    gateway.synced().await;
}

#[tokio::test]
async fn a_bookmark_of_another_incarnation_means_shaking_hands_again() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let mut watches = script.take_watches();
    let _driver = FakeDriver::serve(&script, &socket);
    let mut gateway = Gateway::with_socket(eager(), &socket);
    let watch = within(watches.recv()).await.unwrap();
    watch.synced("c1", "incarnation-2").await;
    script.handshake().incarnation = "incarnation-2".to_owned();
    let watch = within(watches.recv()).await.unwrap();
    watch.synced("c1", "incarnation-2").await;
    assert_eq!(gateway.synced().await, "incarnation-2");
    assert_eq!(script.count("Handshake"), 2);
}

#[tokio::test]
async fn a_watch_that_says_nothing_is_taken_up_again_and_the_view_says_so() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    script.hang("WatchSandboxes");
    let _driver = FakeDriver::serve(&script, &socket);
    let mut gateway = Gateway::with_socket(impatient(), &socket);
    let driver = gateway.driver();
    let says = |view: &DriverView| {
        let notices = view.notices.list();
        notices.first().map(|notice| notice.detail.clone())
    };
    let stuck = view(&driver, |view| {
        says(view).is_some_and(|says| says.contains("WatchSandboxes"))
    })
    .await;
    assert_eq!(stuck.state, DriverState::Connected);
    script.answer_again("WatchSandboxes");
    gateway.synced().await;
    view(&driver, |view| says(view).is_none()).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_passed_over() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let mut watches = script.take_watches();
    let _driver = FakeDriver::serve(&script, &socket);
    let mut gateway = Gateway::with_socket(eager(), &socket);
    let watch = within(watches.recv()).await.unwrap();
    watch.tell("", Event::Snapshot(sandbox("Not An Id"))).await;
    watch.tell("", Event::Snapshot(sandbox("sbx-1"))).await;
    watch.synced("c1", FIRST).await;
    assert!(matches!(
        gateway.event().await,
        DriverEvent::Connected { .. }
    ));
    assert_eq!(observed(gateway.event().await), "sbx-1");
}
