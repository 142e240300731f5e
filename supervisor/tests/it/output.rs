//! Output over cuts, full spools, and whoever holds a pipe open.

use std::time::{Duration, Instant};

use cofferdam_proto::supervisor::v1::process_event::Event;
use cofferdam_proto::supervisor::v1::{
    KillProcessRequest, ListProcessesRequest, PingRequest, ProcessSpec,
};

use crate::gateway::{Outcome, attach, run, shell, soon, spec, start};
use crate::sandbox::Sandbox;

#[tokio::test]
async fn not_one_byte_is_lost_or_doubled_over_cut_sessions() {
    const LAST: u32 = 1_500_000;
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let mut attached = start(&client, "p", spec(&["seq", "1", &LAST.to_string()])).await;
    let mut client = client;
    let mut outcome = Outcome::default();
    let mut cuts = 0;
    let mut next_cut = 100_000;
    loop {
        match attached.event().await.expect("goes on") {
            Some(event) => {
                if outcome.add(event) {
                    break;
                }
                // What was stored is acknowledged, but not always at once.
                if outcome.all.len() % 3 != 0 {
                    attached.ack(outcome.all.len() as u64).await;
                }
            }
            None => panic!("ended without `exited`"),
        }
        if outcome.all.len() > next_cut {
            drop((attached, client));
            client = sandbox.session().await;
            let from = outcome.all.len() as u64;
            attached = attach(&client, "p", from).await.expect("attached");
            next_cut += 1_000_000;
            cuts += 1;
        }
    }
    assert!(cuts >= 5, "{cuts}");
    let expected: String = (1..=LAST).map(|n| format!("{n}\n")).collect();
    assert!(outcome.all == expected.as_bytes(), "the same bytes");
    assert_eq!(outcome.code(), 0);
}

#[tokio::test]
async fn output_written_without_any_gateway_is_there_afterwards() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let script = "while [ ! -e go ]; do sleep 0.05; done; seq 1 1000; echo end >&2; exit 9";
    drop(start(&client, "p", shell(script)).await);
    sandbox.stop_listening();
    drop(client);
    std::fs::write(sandbox.workspace().join("go"), "").expect("written");
    sandbox.listen_again();
    let client = sandbox.session().await;
    let outcome = attach(&client, "p", 0)
        .await
        .expect("attached")
        .finish()
        .await;
    let expected: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    assert_eq!(outcome.stdout, expected.as_bytes());
    assert_eq!(
        (outcome.stderr.as_slice(), outcome.code()),
        (&b"end\n"[..], 9)
    );
}

#[tokio::test]
async fn a_full_spool_blocks_the_process_until_something_is_acknowledged() {
    const SPOOL: u64 = 64 * 1024;
    const TOTAL: u64 = 3_000_000;
    let mut sandbox = Sandbox::start();
    let mut client = sandbox.session().await;
    let script = format!("head -c {TOTAL} /dev/zero; echo written > done");
    let spec = ProcessSpec {
        spool_bytes: SPOOL,
        ..shell(&script)
    };
    let mut attached = start(&client, "p", spec).await;
    let mut outcome = Outcome::default();
    while (outcome.all.len() as u64) < SPOOL {
        let event = attached.event().await.expect("goes on").expect("an event");
        assert!(!outcome.add(event));
    }
    let ping = soon(client.ping(PingRequest {}))
        .await
        .expect("answered")
        .into_inner();
    assert_eq!(ping.spool_bytes, SPOOL);
    assert_eq!(
        outcome.all.len() as u64,
        SPOOL,
        "no more than the spool holds"
    );
    assert!(
        !sandbox.workspace().join("done").exists(),
        "the process waits"
    );

    attached.ack(SPOOL).await;
    let outcome = attached.finish_with(outcome).await;
    assert_eq!(outcome.all.len() as u64, TOTAL);
    assert!(sandbox.workspace().join("done").exists());
    let ping = soon(client.ping(PingRequest {}))
        .await
        .expect("answered")
        .into_inner();
    assert!(ping.spool_bytes <= SPOOL);
}

#[tokio::test]
async fn a_process_may_end_with_a_full_spool_and_its_last_bytes_still_come() {
    let mut sandbox = Sandbox::start();
    let mut client = sandbox.session().await;
    // Spool and pipe hold all of it, so the process ends before anybody reads.
    let script = "head -c 66000 /dev/zero; echo end; echo over > done";
    let spec = ProcessSpec {
        spool_bytes: 65_536,
        ..shell(script)
    };
    drop(start(&client, "p", spec).await);
    while !sandbox.workspace().join("done").exists() {
        soon(client.ping(PingRequest {})).await.expect("answered");
    }
    let attached = attach(&client, "p", 0).await.expect("attached");
    let outcome = attached.finish().await;
    assert_eq!(outcome.all.len(), 66_004);
    assert!(outcome.all.ends_with(b"end\n"));
    assert!(!outcome.exited.output_abandoned);
}

#[tokio::test]
async fn a_grandchild_that_holds_stdout_does_not_keep_the_caller_waiting() {
    let mut sandbox = Sandbox::start();
    let mut client = sandbox.session().await;
    let begin = Instant::now();
    let outcome = run(&client, "p", shell("sleep 1000 & echo $!; exit 4")).await;
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!(outcome.code(), 4);
    assert!(outcome.exited.output_abandoned);
    // It is left alive, and goes with the tree.
    let child = outcome.text().trim().to_owned();
    assert_eq!(
        run(&client, "q", shell(&format!("kill -0 {child}")))
            .await
            .code(),
        0
    );
    let kill = KillProcessRequest {
        process_id: "p".into(),
        grace_ms: 0,
    };
    let killed = soon(client.kill_process(kill))
        .await
        .expect("killed")
        .into_inner()
        .killed;
    assert_eq!(killed, 1);
    assert_eq!(
        run(&client, "r", shell(&format!("kill -0 {child}")))
            .await
            .code(),
        1
    );
}

#[tokio::test]
async fn a_grandchild_that_never_stops_writing_does_neither() {
    let mut sandbox = Sandbox::start();
    let mut client = sandbox.session().await;
    let outcome = run(&client, "p", shell("yes & echo main; exit 5")).await;
    assert_eq!(outcome.code(), 5);
    assert!(outcome.exited.output_abandoned);
    assert!(outcome.text().contains("main\n"));
    let kill = KillProcessRequest {
        process_id: "p".into(),
        grace_ms: 0,
    };
    soon(client.kill_process(kill)).await.expect("killed");
}

#[tokio::test]
async fn an_acknowledgement_of_what_never_was_is_refused() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let mut attached = start(&client, "p", shell("echo hello; exec sleep 1000")).await;
    attached.read_until(&mut Outcome::default(), "hello").await;
    attached.ack(7).await;
    assert!(attached.event().await.is_err());
}

#[tokio::test]
async fn a_reader_that_is_overtaken_is_told() {
    let mut sandbox = Sandbox::start();
    let mut client = sandbox.session().await;
    let spec = ProcessSpec {
        stdin: true,
        ..shell("echo one; read x; echo two; read x")
    };
    let mut fast = start(&client, "p", spec).await;
    fast.read_until(&mut Outcome::default(), "one").await;
    let mut slow = attach(&client, "p", 0).await.expect("attached");
    let Ok(Some(Event::Output(_))) = slow.event().await else {
        panic!("the first line")
    };
    fast.stdin(0, b"\n").await;
    // Acknowledged before the slow one came to read it.
    fast.read_until(
        &mut Outcome {
            all: b"one\n".into(),
            ..Outcome::default()
        },
        "two",
    )
    .await;
    fast.ack(8).await;
    let held = async |client: &mut crate::gateway::Client| {
        let list = soon(client.list_processes(ListProcessesRequest {}))
            .await
            .expect("listed");
        list.into_inner().processes[0].output_offset
    };
    while held(&mut client).await < 8 {}
    let late = attach(&client, "p", 4).await.err().expect("gone");
    assert_eq!(late.code(), tonic::Code::OutOfRange);
}
