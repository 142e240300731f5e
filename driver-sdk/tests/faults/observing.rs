//! Faults of watches, inventories and fingerprints.

use cofferdam_driver_sdk::faults::Script;
use cofferdam_driver_sdk::faults::script::{
    EventKind, Health as Is, HealthFaults, InventoryFaults, WatchFaults,
};
use cofferdam_driver_sdk::proto::*;
use tonic::Code;

use crate::support::*;

fn watching(watch: WatchFaults) -> Script {
    Script {
        watch,
        ..Script::default()
    }
}

fn listing(inventory: InventoryFaults) -> Script {
    Script {
        inventory,
        ..Script::default()
    }
}

/// What a watcher hears of a create and a delete.
async fn heard(script: Script, count: usize) -> Vec<String> {
    let fixture = Fixture::start(Script::default());
    let mut client = fixture.client().await;
    let mut stream = watch(&mut client, "").await;
    assert_eq!(events(&mut stream, 1).await, ["synced"]);
    fixture.driver.set(script);
    client.create_sandbox(create("a")).await.unwrap();
    client.delete_sandbox(delete("a")).await.unwrap();
    events(&mut stream, count).await
}

#[tokio::test]
async fn events_are_lost_doubled_reordered_and_repeated() {
    let (creating, running, deleted) = ("changed a Creating 1", "changed a Running 2", "deleted a");
    let truth = heard(Script::default(), 3).await;
    assert_eq!(truth, [creating, running, deleted]);
    let lost = watching(WatchFaults {
        drop: vec![EventKind::Changed],
        ..WatchFaults::default()
    });
    assert_eq!(heard(lost, 1).await, [deleted]);
    let doubled = watching(WatchFaults {
        duplicate: true,
        ..WatchFaults::default()
    });
    let twice = [creating, creating, running, running, deleted, deleted];
    assert_eq!(heard(doubled, 6).await, twice);
    let reordered = watching(WatchFaults {
        reorder: true,
        ..WatchFaults::default()
    });
    assert_eq!(heard(reordered, 3).await, [running, creating, deleted]);
    let stale = watching(WatchFaults {
        stale: true,
        ..WatchFaults::default()
    });
    assert_eq!(
        heard(stale, 4).await,
        [creating, running, creating, deleted]
    );
}

#[tokio::test]
async fn a_frozen_watch_goes_on_where_it_was() {
    let fixture = Fixture::start(Script::default());
    let mut client = fixture.client().await;
    let mut stream = watch(&mut client, "").await;
    events(&mut stream, 1).await;
    fixture.driver.set(watching(WatchFaults {
        freeze: true,
        ..WatchFaults::default()
    }));
    client.create_sandbox(create("a")).await.unwrap();
    let mut second = watch(&mut client, "").await;
    // A whole call later nothing has been said on either.
    assert!(state(&mut client, "a").await.is_ok());
    fixture.driver.set(Script::default());
    let seen = events(&mut stream, 2).await;
    assert_eq!(seen, ["changed a Creating 1", "changed a Running 2"]);
    let seen = events(&mut second, 2).await;
    assert_eq!(seen, ["snapshot a Running 2", "synced"]);
}

#[tokio::test]
async fn a_flood_grows_and_a_watch_may_end() {
    let fixture = Fixture::start(Script::default());
    let mut client = fixture.client().await;
    client.create_sandbox(create("a")).await.unwrap();
    let mut stream = watch(&mut client, "").await;
    events(&mut stream, 2).await;
    client.stop_sandbox(stop("a")).await.unwrap();
    events(&mut stream, 1).await;
    fixture.driver.set(watching(WatchFaults {
        flood: true,
        ..WatchFaults::default()
    }));
    let mut revision = 3;
    for event in events(&mut stream, 2000).await {
        revision += 1;
        assert_eq!(event, format!("changed a Stopped {revision}"));
    }
    fixture.driver.set(watching(WatchFaults {
        end: true,
        ..WatchFaults::default()
    }));
    let mut stream = watch(&mut client, "").await;
    events(&mut stream, 2).await;
    assert_eq!(within("the end", stream.message()).await.unwrap(), None);
}

#[tokio::test]
async fn an_inventory_omits_invents_and_has_no_end() {
    let fixture = Fixture::start(Script::default());
    let mut client = fixture.client().await;
    for id in ["a", "b"] {
        client.create_sandbox(create(id)).await.unwrap();
    }
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    fixture.driver.set(listing(InventoryFaults {
        omit: ids(&["a"]),
        invent: ids(&["aa", "c"]),
        ..InventoryFaults::default()
    }));
    assert_eq!(list(&mut client).await, (ids(&["aa", "b", "c"]), true));
    assert!(state(&mut client, "a").await.is_ok());
    fixture.driver.set(listing(InventoryFaults {
        omit: ids(&["*"]),
        deny: true,
        incomplete: true,
        ..InventoryFaults::default()
    }));
    assert_eq!(list(&mut client).await, (vec![], false));
    assert_eq!(state(&mut client, "a").await, Err(Code::NotFound));
    let answer = client.recover_sandboxes(recover(&["a"])).await.unwrap();
    let outcome = answer.into_inner().results[0].outcome();
    assert_eq!(outcome, recover_sandboxes_response::Outcome::Gone);
    fixture.driver.set(listing(InventoryFaults {
        endless: true,
        ..InventoryFaults::default()
    }));
    let mut request = ListSandboxesRequest::default();
    for _ in 0..50 {
        let page = client.list_sandboxes(request.clone()).await.unwrap();
        let page = page.into_inner();
        assert!(!page.complete && !page.next_page_token.is_empty());
        request.page_token = page.next_page_token;
    }
    fixture.driver.set(Script::default());
    assert_eq!(list(&mut client).await, (ids(&["a", "b"]), true));
}

#[tokio::test]
async fn health_is_what_the_script_says_and_flaps() {
    let fixture = Fixture::start(Script::default());
    let mut client = fixture.client().await;
    let stream = client.fingerprint(FingerprintRequest {}).await.unwrap();
    let mut stream = stream.into_inner();
    let first = within("a fingerprint", stream.message()).await.unwrap();
    assert_eq!(first.unwrap().health(), Health::Healthy);
    let ill = |flap_ms| Script {
        health: Some(HealthFaults {
            is: Is::Unhealthy,
            reason: "on fire".to_owned(),
            fix: "water".to_owned(),
            flap_ms,
        }),
        ..Script::default()
    };
    fixture.driver.set(ill(None));
    let second = within("a fingerprint", stream.message()).await.unwrap();
    let second = second.unwrap();
    assert_eq!(second.health(), Health::Unhealthy);
    assert_eq!((&*second.reason, &*second.fix), ("on fire", "water"));
    fixture.driver.set(ill(Some(1)));
    let mut seen = Vec::new();
    for _ in 0..20 {
        let print = within("a fingerprint", stream.message()).await.unwrap();
        seen.push(print.unwrap().health());
    }
    let turns = seen.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(turns >= 15, "{seen:?}");
    fixture.driver.set(Script::default());
    within("it is healthy again", async {
        while stream.message().await.unwrap().unwrap().health() != Health::Healthy {}
    })
    .await;
}
