//! Each variant breaks its rule.

use std::time::{SystemTime, UNIX_EPOCH};

use cofferdam_driver_sdk::faults::{Script, Variant};
use cofferdam_driver_sdk::proto::recover_sandboxes_response::Outcome;
use cofferdam_driver_sdk::proto::*;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Request};

use crate::support::*;

async fn broken(variant: Variant) -> (Fixture, Client) {
    let fixture = Fixture::start(Script::variant(variant));
    let client = fixture.client().await;
    (fixture, client)
}

async fn made(client: &mut Client, id: &str) -> Sandbox {
    let created = client.create_sandbox(create(id)).await.unwrap();
    created.into_inner().sandbox.unwrap()
}

#[test]
fn variants_have_names_and_say_what_they_break() {
    for variant in Variant::ALL {
        assert_eq!(variant.name().parse(), Ok(*variant));
        let json = serde_json::to_value(variant).unwrap();
        assert_eq!(json, variant.name(), "in scripts as in flags");
        assert!(variant.rule().ends_with('.'));
    }
    let error = "nonsense".parse::<Variant>().unwrap_err().to_string();
    assert!(error.contains("wrong_order"), "{error}");
}

#[tokio::test]
async fn creates_are_not_idempotent() {
    let (_fixture, mut client) = broken(Variant::NonIdempotentCreate).await;
    made(&mut client, "a").await;
    let again = client.create_sandbox(create("a")).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);

    let (_fixture, mut client) = broken(Variant::DuplicateCreate).await;
    let first = made(&mut client, "a").await;
    let again = made(&mut client, "a").await;
    assert_ne!(first.platform_id, again.platform_id);

    let (_fixture, mut client) = broken(Variant::SpecIgnored).await;
    let first = made(&mut client, "a").await;
    let mut other = create("a");
    other.spec.as_mut().unwrap().gid = 7;
    let answer = client.create_sandbox(other).await.unwrap().into_inner();
    assert_eq!(answer.sandbox.unwrap().platform_id, first.platform_id);
    assert!(answer.handle.is_some());
}

#[tokio::test]
async fn success_is_invented() {
    let (_fixture, mut client) = broken(Variant::InventedSuccess).await;
    made(&mut client, "a").await;
    let stopped = client.stop_sandbox(stop("a")).await.unwrap().into_inner();
    assert_eq!(stopped.sandbox.unwrap().state(), SandboxState::Stopped);
    client.delete_sandbox(delete("a")).await.unwrap();
    assert_eq!(state(&mut client, "a").await, Ok(SandboxState::Running));
    assert_eq!(list(&mut client).await.0, ["a"]);
}

#[tokio::test]
async fn watches_lose_and_reorder() {
    let (_fixture, mut client) = broken(Variant::LostWatchEvent).await;
    let mut stream = watch(&mut client, "").await;
    made(&mut client, "a").await;
    client.stop_sandbox(stop("a")).await.unwrap();
    client.delete_sandbox(delete("a")).await.unwrap();
    let seen = events(&mut stream, 4).await;
    let running = "changed a Running 2";
    assert_eq!(
        seen,
        ["synced", "changed a Creating 1", running, "deleted a"]
    );

    let (_fixture, mut client) = broken(Variant::WrongOrder).await;
    let mut stream = watch(&mut client, "").await;
    events(&mut stream, 1).await;
    made(&mut client, "a").await;
    assert_eq!(
        events(&mut stream, 2).await,
        [running, "changed a Creating 1"]
    );

    let (_fixture, mut client) = broken(Variant::NeverSynced).await;
    made(&mut client, "a").await;
    let mut stream = watch(&mut client, "").await;
    client.stop_sandbox(stop("a")).await.unwrap();
    let seen = events(&mut stream, 2).await;
    assert_eq!(seen, ["snapshot a Running 2", "changed a Stopped 3"]);
}

#[tokio::test]
async fn what_is_not_asked_for_is_deleted() {
    let (_fixture, mut client) = broken(Variant::DeletedBecauseUnseen).await;
    for id in ["a", "b"] {
        made(&mut client, id).await;
    }
    client.recover_sandboxes(recover(&["b"])).await.unwrap();
    assert_eq!(list(&mut client).await.0, ["b"]);
}

#[tokio::test]
async fn what_cannot_be_read_is_gone() {
    let unreadable = || {
        let mut request = recover(&["a"]);
        request.items[0].handle = Some(Handle {
            version: 99,
            data: vec![1].into(),
        });
        request
    };
    for (script, expected) in [
        (Script::default(), Outcome::Unknown),
        (
            Script::variant(Variant::GoneBecauseUnreadable),
            Outcome::Gone,
        ),
    ] {
        let fixture = Fixture::start(script);
        let mut client = fixture.client().await;
        made(&mut client, "a").await;
        let answer = client.recover_sandboxes(unreadable()).await.unwrap();
        assert_eq!(answer.into_inner().results[0].outcome(), expected);
    }
}

#[tokio::test]
async fn the_token_is_in_a_label() {
    let (_fixture, mut client) = broken(Variant::LeakedSecretInLabel).await;
    let created = made(&mut client, "a").await;
    assert!(
        created.platform_id.contains(&"07".repeat(32)),
        "{created:?}"
    );
    let mut stream = watch(&mut client, "").await;
    let event = format!("{:?}", next(&mut stream).await);
    assert!(event.contains(&"07".repeat(32)), "{event}");
}

/// With supervisors that are `cat`, which does not know the flags and ends with 1.
async fn with_cat(fixture: &Fixture) -> Client {
    let mut client = fixture.connect().await.unwrap();
    let path = "/bin/cat";
    let sha256 = Sha256::digest(std::fs::read(path).unwrap()).to_vec().into();
    let request = HandshakeRequest {
        supervisor: Some(Supervisor {
            path: path.to_owned(),
            sha256,
            ..Supervisor::default()
        }),
        ..hello()
    };
    client.handshake(request).await.unwrap();
    client.configure(ConfigureRequest::default()).await.unwrap();
    client
}

async fn end_of(client: &mut Client, id: &str) -> Option<Termination> {
    let mut stream = watch(client, "").await;
    client.create_sandbox(create(id)).await.unwrap();
    loop {
        let message = next(&mut stream).await;
        if let Some(watch_sandboxes_response::Event::Changed(sandbox)) = message.event
            && sandbox.state() == SandboxState::Stopped
        {
            return sandbox.termination;
        }
    }
}

#[tokio::test]
async fn exit_codes_and_terminations_are_lost() {
    for (script, expected) in [
        (Script::default(), Some(1)),
        (Script::variant(Variant::ExitCodeLost), Some(0)),
        (Script::variant(Variant::TerminationLost), None),
    ] {
        let fixture = Fixture::start(script);
        let mut client = with_cat(&fixture).await;
        let end = end_of(&mut client, "a").await;
        assert_eq!(end.map(|end| end.exit_code), expected);
        fixture.driver.stop().await;
    }
}

#[tokio::test]
async fn expire_times_are_ignored() {
    let fixture = Fixture::start(Script::variant(Variant::IgnoredDeadline));
    let mut client = fixture.client().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_ms = u64::try_from(now.as_millis()).unwrap();
    let expiring = |id: &str, in_ms: u64| {
        let mut request = create(id);
        request.spec.as_mut().unwrap().expire_time_unix_ms = now_ms + in_ms;
        request
    };
    client
        .create_sandbox(expiring("ignored", 300))
        .await
        .unwrap();
    // Another deadline is another spec, also here.
    let other = client.create_sandbox(expiring("ignored", 301)).await;
    assert_eq!(other.unwrap_err().code(), Code::AlreadyExists);
    fixture.driver.set(Script::default());
    let mut stream = watch(&mut client, "").await;
    client.create_sandbox(expiring("kept", 400)).await.unwrap();
    let seen = events(&mut stream, 5).await;
    assert_eq!(seen[4], "changed kept FailedState 3");
    // Its deadline was earlier.
    assert_eq!(
        state(&mut client, "ignored").await,
        Ok(SandboxState::Running)
    );
}

#[tokio::test]
async fn rpc_deadlines_are_ignored() {
    for (script, ends) in [
        (Script::default(), true),
        (Script::variant(Variant::IgnoredRpcDeadline), false),
    ] {
        let fixture = Fixture::start(script);
        let mut client = fixture.client().await;
        // tonic's own client would end the call by itself.
        let mut patient = fixture.patient().await;
        let mut request = Request::new(WatchSandboxesRequest::default());
        let deadline = "100m".parse().unwrap();
        request.metadata_mut().insert("grpc-timeout", deadline);
        let stream = patient.watch_sandboxes(request).await.unwrap();
        let mut stream = stream.into_inner();
        assert_eq!(events(&mut stream, 1).await, ["synced"]);
        if ends {
            let ended = within("the deadline", stream.message()).await;
            assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
        } else {
            // The next bookmark comes seconds after the deadline.
            assert_eq!(short(&next(&mut stream).await), "bookmark");
            made(&mut client, "a").await;
            assert_eq!(events(&mut stream, 1).await, ["changed a Creating 1"]);
        }
    }
}

#[tokio::test]
async fn pages_are_unbounded_or_endless() {
    let (_fixture, mut client) = broken(Variant::UnboundedListPage).await;
    for id in ["a", "b", "c"] {
        made(&mut client, id).await;
    }
    let request = ListSandboxesRequest {
        page_size: 1,
        ..ListSandboxesRequest::default()
    };
    let page = client.list_sandboxes(request).await.unwrap().into_inner();
    assert_eq!(page.sandboxes.len(), 3);

    let (_fixture, mut client) = broken(Variant::EndlessPages).await;
    let page = client.list_sandboxes(ListSandboxesRequest::default());
    assert!(!page.await.unwrap().into_inner().next_page_token.is_empty());
}

#[tokio::test]
async fn the_incarnation_never_changes() {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let fixture = Fixture::start(Script::variant(Variant::IncarnationUnreported));
        for _ in 0..2 {
            let mut client = fixture.connect().await.unwrap();
            seen.push(shake_hands(&mut client).await.unwrap().incarnation);
            let mut stream = watch(&mut client, "").await;
            let message = next(&mut stream).await;
            let Some(watch_sandboxes_response::Event::Bookmark(bookmark)) = message.event else {
                panic!("no bookmark: {message:?}");
            };
            seen.push(bookmark.incarnation);
            let page = client.list_sandboxes(ListSandboxesRequest::default());
            seen.push(page.await.unwrap().into_inner().incarnation);
            // It takes its own cursors and tokens for what they are.
            watch(&mut client, &message.cursor).await;
            fixture.driver.restart(Default::default()).await.unwrap();
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[tokio::test]
async fn unknown_deletes_fail() {
    let (_fixture, mut client) = broken(Variant::UnknownDeleteFails).await;
    let status = client.delete_sandbox(delete("a")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    made(&mut client, "a").await;
    client.delete_sandbox(delete("a")).await.unwrap();
}

#[tokio::test]
async fn no_handshake_is_needed() {
    let (fixture, _client) = broken(Variant::HandshakeNotNeeded).await;
    let mut client = fixture.connect().await.unwrap();
    assert_eq!(list(&mut client).await, (vec![], true));
}

#[tokio::test]
async fn old_cursors_are_accepted() {
    let (fixture, mut client) = broken(Variant::OldCursorAccepted).await;
    made(&mut client, "a").await;
    let mut stream = watch(&mut client, "").await;
    events(&mut stream, 1).await;
    let cursor = next(&mut stream).await.cursor;
    fixture.driver.restart(Default::default()).await.unwrap();
    let mut client = fixture.client().await;
    let mut stream = watch(&mut client, &cursor).await;
    client.stop_sandbox(stop("a")).await.unwrap();
    assert_eq!(events(&mut stream, 1).await, ["changed a Stopped 2"]);
}
