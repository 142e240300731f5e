//! What a gateway sees: lists, changes, recovery, measurements.

use cofferdam_driver_sdk::proto::recover_sandboxes_response::Outcome;
use cofferdam_driver_sdk::proto::watch_sandboxes_response::Event;
use cofferdam_driver_sdk::proto::*;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::support::*;

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
