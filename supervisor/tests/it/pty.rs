//! Terminals.

use cofferdam_proto::supervisor::v1::process_exited::Result as ExitResult;
use cofferdam_proto::supervisor::v1::process_request::Request;
use cofferdam_proto::supervisor::v1::{ProcessSpec, PtySpec, WindowSize};

use crate::gateway::{Attached, Client, Outcome, shell, spec, start};
use crate::sandbox::Sandbox;

async fn terminal(client: &Client, id: &str, spec: ProcessSpec) -> Attached {
    let pty = PtySpec {
        rows: 24,
        columns: 80,
        term: String::new(),
    };
    start(
        client,
        id,
        ProcessSpec {
            pty: Some(pty),
            ..spec
        },
    )
    .await
}

#[tokio::test]
async fn a_terminal_has_a_size_and_hears_of_a_new_one() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let script = "trap 'stty size; exit 0' WINCH; tty; stty size; echo $TERM; \
                  echo ready; while :; do sleep 0.1; done";
    let mut attached = terminal(&client, "p", shell(script)).await;
    let mut outcome = Outcome::default();
    attached.read_until(&mut outcome, "ready").await;
    let lines: Vec<String> = outcome.text().lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{lines:?}");
    assert_eq!(lines[1..3], ["24 80", "xterm-256color"]);
    attached
        .send(Request::Resize(WindowSize {
            rows: 50,
            columns: 132,
        }))
        .await;
    let outcome = attached.finish_with(outcome).await;
    assert!(outcome.text().ends_with("50 132\r\n"), "{}", outcome.text());
    assert_eq!(outcome.stderr, b"");
}

#[tokio::test]
async fn ctrl_c_reaches_the_foreground() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let mut attached = terminal(&client, "p", shell("echo ready; exec cat")).await;
    let mut outcome = Outcome::default();
    attached.read_until(&mut outcome, "ready").await;
    attached.stdin(0, b"\x03").await;
    let outcome = attached.finish_with(outcome).await;
    assert_eq!(outcome.exited.result, Some(ExitResult::Signal(2)));
}

#[tokio::test]
async fn ctrl_d_and_the_end_of_stdin_end_the_input() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let attached = terminal(&client, "p", shell("stty -echo; echo ready; cat; echo end")).await;
    let mut outcome = Outcome::default();
    let mut attached = attached;
    attached.read_until(&mut outcome, "ready").await;
    attached.stdin(0, b"typed\n\x04").await;
    let outcome = attached.finish_with(outcome).await;
    assert!(
        outcome.text().ends_with("typed\r\nend\r\n"),
        "{:?}",
        outcome.text()
    );

    // Also behind an unfinished line.
    for (id, input) in [("q", b"typed\n".as_slice()), ("r", b"typed")] {
        let mut attached =
            terminal(&client, id, shell("stty -echo; echo ready; cat; echo end")).await;
        let mut outcome = Outcome::default();
        attached.read_until(&mut outcome, "ready").await;
        attached.stdin(0, input).await;
        attached.stdin_eof(input.len() as u64).await;
        let outcome = attached.finish_with(outcome).await;
        assert!(outcome.text().contains("typed"), "{:?}", outcome.text());
        assert!(outcome.text().ends_with("end\r\n"), "{:?}", outcome.text());
    }
}

#[tokio::test]
async fn a_signal_goes_to_the_foreground_group() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    // With job control, the child is in a group of its own, in the foreground.
    let script = "set -m; sh -c 'trap \"echo heard; exit 3\" USR1; echo ready; \
                  while :; do sleep 0.1; done'; echo code $?";
    let mut attached = terminal(&client, "p", shell(script)).await;
    let mut outcome = Outcome::default();
    attached.read_until(&mut outcome, "ready").await;
    attached.send(Request::Signal(10)).await;
    let outcome = attached.finish_with(outcome).await;
    assert!(
        outcome.text().ends_with("heard\r\ncode 3\r\n"),
        "{:?}",
        outcome.text()
    );
}

#[tokio::test]
async fn a_terminal_can_be_opened_by_name() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let script = "echo one > /dev/tty; echo two > $(tty); echo three > /dev/stdout";
    let outcome = terminal(&client, "p", shell(script)).await.finish().await;
    assert_eq!(outcome.text(), "one\r\ntwo\r\nthree\r\n");
}

#[tokio::test]
async fn pipes_can_be_opened_by_name() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let script = "echo one > /dev/stdout; echo two > /dev/stderr; cat /dev/stdin";
    let attached = start(
        &client,
        "p",
        ProcessSpec {
            stdin: true,
            ..shell(script)
        },
    )
    .await;
    attached.stdin(0, b"three\n").await;
    attached.stdin_eof(6).await;
    let outcome = attached.finish().await;
    assert_eq!(
        (&outcome.stdout[..], &outcome.stderr[..]),
        (&b"one\nthree\n"[..], &b"two\n"[..])
    );
}

#[tokio::test]
async fn much_terminal_output_is_whole() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let outcome = terminal(&client, "p", spec(&["seq", "1", "200000"]))
        .await
        .finish()
        .await;
    let expected: String = (1..=200_000).map(|n| format!("{n}\r\n")).collect();
    assert_eq!(outcome.all.len(), expected.len());
    assert!(outcome.all == expected.as_bytes());
}

#[tokio::test]
async fn a_background_child_does_not_hold_a_terminal_open() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let script = "trap '' HUP; sleep 1000 & echo done";
    let outcome = terminal(&client, "p", shell(script)).await.finish().await;
    assert_eq!(outcome.text(), "done\r\n");
    assert!(outcome.exited.output_abandoned);
}
