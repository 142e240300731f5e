//! Many streams at once, of which most are never read.

use std::time::{Duration, Instant};

use cofferdam_proto::supervisor::v1::process_event::Event;
use cofferdam_proto::supervisor::v1::{PingRequest, ProcessSpec, ReadFileRequest};

use crate::gateway::{run, shell, soon, spec, start};
use crate::sandbox::Sandbox;

#[tokio::test]
async fn a_thousand_streams_that_nobody_reads_do_not_stop_the_rest() {
    let mut sandbox = Sandbox::start();
    let mut client = sandbox.session().await;
    let mut stalled = Vec::new();
    for number in 0..1_000 {
        // More than the window of a stream, and than the spool lets through.
        let spec = ProcessSpec {
            spool_bytes: 64 * 1024,
            ..spec(&["head", "-c", "200000", "/dev/zero"])
        };
        stalled.push(start(&client, &format!("stalled-{number}"), spec).await);
    }
    let ping = soon(client.ping(PingRequest {}))
        .await
        .expect("answered")
        .into_inner();
    assert_eq!(ping.running, 1_000);
    let mut slowest = Duration::ZERO;
    for number in 0..20 {
        let begin = Instant::now();
        soon(client.ping(PingRequest {})).await.expect("answered");
        slowest = slowest.max(begin.elapsed());
        let outcome = run(&client, &format!("quick-{number}"), shell("echo quick")).await;
        assert_eq!(outcome.text(), "quick\n");
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // And what stood still goes on.
    for attached in stalled {
        assert_eq!(attached.finish().await.all.len(), 200_000);
    }
}

#[tokio::test]
async fn streams_that_have_filled_their_windows_leave_room_for_calls() {
    let mut sandbox = Sandbox::start();
    let mut client = sandbox.session().await;
    let mut stalled = Vec::new();
    for number in 0..200 {
        let spec = spec(&["head", "-c", "600000", "/dev/zero"]);
        stalled.push(start(&client, &format!("stalled-{number}"), spec).await);
    }
    for _ in 0..50 {
        soon(client.ping(PingRequest {})).await.expect("answered");
    }
    let outcome = run(&client, "quick", shell("echo quick")).await;
    assert_eq!(outcome.text(), "quick\n");
    for attached in stalled {
        assert_eq!(attached.finish().await.all.len(), 600_000);
    }
}

#[tokio::test]
async fn stalled_file_readers_hold_no_thread() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    std::fs::write(sandbox.workspace().join("big"), vec![0; 4_000_000]).expect("written");
    let big = || ReadFileRequest {
        path: "big".into(),
        ..ReadFileRequest::default()
    };
    let mut stalled = Vec::new();
    for _ in 0..40 {
        stalled.push(
            soon(client.clone().read_file(big()))
                .await
                .expect("begun")
                .into_inner(),
        );
    }
    std::fs::write(sandbox.workspace().join("small"), "small").expect("written");
    let small = ReadFileRequest {
        path: "small".into(),
        ..ReadFileRequest::default()
    };
    let mut parts = soon(client.clone().read_file(small))
        .await
        .expect("begun")
        .into_inner();
    let mut count = 0;
    while soon(parts.message()).await.expect("goes on").is_some() {
        count += 1;
    }
    assert_eq!(count, 3);
}

#[tokio::test]
async fn many_processes_at_once_are_all_answered() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let runs = (0..200).map(|number| {
        let client = client.clone();
        tokio::spawn(async move {
            let script = format!("echo {number}; exit {}", number % 256);
            let mut attached = start(&client, &format!("p{number}"), shell(&script)).await;
            let mut outcome = crate::gateway::Outcome::default();
            while let Some(event) = attached.event().await.expect("goes on") {
                let is_last = matches!(event, Event::Exited(_));
                outcome.add(event);
                if is_last {
                    break;
                }
            }
            assert_eq!(outcome.text(), format!("{number}\n"));
            assert_eq!(outcome.code(), number % 256);
        })
    });
    for run in runs.collect::<Vec<_>>() {
        soon(run).await.expect("as it should be");
    }
}
