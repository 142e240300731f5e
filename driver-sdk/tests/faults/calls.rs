//! Faults of single calls.

use std::time::Duration;

use cofferdam_driver_sdk::faults::script::{Code as Name, Fault, Rule};
use cofferdam_driver_sdk::faults::{Outcome, Script};
use cofferdam_driver_sdk::proto::{ListSandboxesRequest, SandboxState, WatchSandboxesRequest};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::support::*;

fn outcomes(fixture: &Fixture, rpc: &str) -> Vec<Option<Outcome>> {
    let journal = fixture.driver.journal();
    let calls = journal.calls.into_iter();
    calls
        .filter(|seen| seen.rpc == rpc)
        .map(|seen| seen.outcome)
        .collect()
}

#[tokio::test]
async fn an_empty_script_breaks_nothing() {
    let fixture = Fixture::start(Script::default());
    let mut client = fixture.client().await;
    client.create_sandbox(create("a")).await.unwrap();
    client.create_sandbox(create("a")).await.unwrap();
    assert_eq!(state(&mut client, "a").await, Ok(SandboxState::Running));
    assert_eq!(list(&mut client).await, (vec!["a".to_owned()], true));
    client.stop_sandbox(stop("a")).await.unwrap();
    assert_eq!(state(&mut client, "a").await, Ok(SandboxState::Stopped));
    client.delete_sandbox(delete("a")).await.unwrap();
    assert_eq!(state(&mut client, "a").await, Err(Code::NotFound));
    assert_eq!(fixture.driver.journal().count("CreateSandbox", "a"), 2);
    assert_eq!(fixture.driver.journal().connections, 1);
    fixture.driver.stop().await;
}

#[tokio::test]
async fn a_hanging_call_is_let_go_with_its_rule_and_others_are_answered_meanwhile() {
    let hang = Fault::Hang {
        after: false,
        for_good: false,
    };
    let fixture = Fixture::start(Script::always("CreateSandbox", hang));
    let mut client = fixture.client().await;
    let mut other = client.clone();
    let hanging = tokio::spawn(async move { client.create_sandbox(create("a")).await });
    within("the create has come", async {
        while fixture.driver.journal().count("CreateSandbox", "a") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(state(&mut other, "a").await, Err(Code::NotFound));
    assert!(!hanging.is_finished());
    fixture.driver.set(Script::default());
    within("the answer", hanging).await.unwrap().unwrap();
    assert_eq!(state(&mut other, "a").await, Ok(SandboxState::Running));
}

#[tokio::test]
async fn a_caller_that_gives_up_is_seen_and_the_work_may_be_done_all_the_same() {
    let hang = Fault::Hang {
        after: true,
        for_good: true,
    };
    let fixture = Fixture::start(Script::always("CreateSandbox", hang));
    let mut client = fixture.client().await;
    let mut request = Request::new(create("a"));
    request.set_timeout(Duration::from_millis(200));
    client.create_sandbox(request).await.unwrap_err();
    assert_eq!(state(&mut client, "a").await, Ok(SandboxState::Running));
    within("the end of the call", async {
        while outcomes(&fixture, "CreateSandbox") != [Some(Outcome::Dropped)] {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_cut_loses_the_answer_and_the_connection() {
    for after in [false, true] {
        let fixture = Fixture::start(once("CreateSandbox", Fault::Cut { after }));
        let mut client = fixture.client().await;
        let lost = client.create_sandbox(create("a")).await.unwrap_err();
        assert!(std::error::Error::source(&lost).is_some(), "{lost:?}");
        let mut client = fixture.client().await;
        let is_there = state(&mut client, "a").await.is_ok();
        assert_eq!(is_there, after);
        client.create_sandbox(create("a")).await.unwrap();
        assert_eq!(fixture.driver.journal().connections, 2);
    }
}

#[tokio::test]
async fn only_the_asked_calls_fail() {
    let fixture = Fixture::start(Script {
        rules: vec![Rule {
            sandbox: Some("b".to_owned()),
            nth: 2,
            times: Some(1),
            ..Rule::always(
                "GetSandbox",
                Fault::Fail {
                    code: Name::ResourceExhausted,
                    message: "no more".to_owned(),
                    fix: "buy some".to_owned(),
                    after: false,
                },
            )
        }],
        ..Script::default()
    });
    let mut client = fixture.client().await;
    for id in ["a", "b"] {
        client.create_sandbox(create(id)).await.unwrap();
    }
    let mut codes = Vec::new();
    for id in ["a", "b", "a", "b", "b"] {
        match client.get_sandbox(get(id)).await {
            Ok(_) => codes.push(Code::Ok),
            Err(status) => {
                assert_eq!(status.message(), "no more");
                let details = status.get_error_details();
                assert_eq!(details.help().unwrap().links[0].description, "buy some");
                codes.push(status.code());
            }
        }
    }
    use Code::{Ok as Fine, ResourceExhausted};
    assert_eq!(codes, [Fine, Fine, Fine, ResourceExhausted, Fine]);
}

#[tokio::test]
async fn answers_that_are_none_break_one_call_and_not_the_connection() {
    for (fault, code) in [
        (Fault::Reset {}, Code::Internal),
        (Fault::Garbage {}, Code::Internal),
        (Fault::Huge { bytes: 5_000_000 }, Code::OutOfRange),
        (Fault::Http { status: 503 }, Code::Internal),
    ] {
        for rpc in ["GetSandbox", "WatchSandboxes"] {
            let fixture = Fixture::start(once(rpc, fault.clone()));
            let mut client = fixture.client().await;
            client.create_sandbox(create("a")).await.unwrap();
            let failed = match rpc {
                "GetSandbox" => client.get_sandbox(get("a")).await.unwrap_err(),
                _ => {
                    let request = WatchSandboxesRequest::default();
                    match client.watch_sandboxes(request).await {
                        Err(status) => status,
                        Ok(stream) => {
                            let first = within("an event", stream.into_inner().message()).await;
                            first.unwrap_err()
                        }
                    }
                }
            };
            assert_eq!(failed.code(), code, "{rpc} {fault:?}: {failed:?}");
            assert!(state(&mut client, "a").await.is_ok());
            let mut stream = watch(&mut client, "").await;
            assert_eq!(events(&mut stream, 1).await, ["snapshot a Running 2"]);
            assert_eq!(fixture.driver.journal().connections, 1);
        }
    }
}

#[tokio::test]
async fn an_empty_answer_has_no_field() {
    let fixture = Fixture::start(once("CreateSandbox", Fault::Empty {}));
    let mut client = fixture.client().await;
    let created = client
        .create_sandbox(create("a"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((created.handle, created.sandbox), (None, None));
    // It was made all the same.
    assert!(state(&mut client, "a").await.is_ok());
}

#[tokio::test]
async fn a_delay_is_only_a_delay() {
    let fixture = Fixture::start(once("ListSandboxes", Fault::Delay { ms: 50 }));
    let mut client = fixture.client().await;
    let slow = client.list_sandboxes(ListSandboxesRequest::default());
    let begun = std::time::Instant::now();
    slow.await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(50));
}
