//! Signals without a terminal, and readers that leave.

use std::io::Read as _;
use std::process::{Child, Stdio};
use std::sync::mpsc::sync_channel;

use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_proto::gateway::v1::execute_request::Request as Asked;
use cofferdam_proto::gateway::v1::*;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::fake::{ExecuteCall, ended, exited, output, running};
use crate::support::{Fake, text};

fn canceled() -> Execution {
    ended(
        ExecutionState::ExecutionCanceled,
        ExecutionReason::ReasonCanceledByCaller,
    )
}

fn start(fake: &Fake) -> Child {
    fake.cofferdam()
        .args(["run", "--", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Running, and the client knows it: it has passed on what came after.
async fn begin(call: &mut ExecuteCall) {
    call.begin().await;
    call.output(0, OutputStream::Stdout, "up\n").await;
}

fn wait_until_up(child: &mut Child) {
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
}

#[test]
fn signals_are_passed_on() {
    let fake = Fake::start();
    let (sender, receiver) = sync_channel(1);
    fake.on_execute(async move |mut call| {
        begin(&mut call).await;
        assert_eq!(call.asked().await, Asked::Signal(10));
        sender.send(()).unwrap();
        assert_eq!(call.asked().await, Asked::Signal(2));
        call.send(Event::Finished(exited(7))).await;
    });
    let mut child = start(&fake);
    wait_until_up(&mut child);
    signal(&child, Signal::USR1);
    receiver.recv().unwrap();
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn the_second_interrupt_cancels_and_exits_130() {
    let fake = Fake::start();
    let (sender, receiver) = sync_channel(1);
    fake.on_execute(async move |mut call| {
        begin(&mut call).await;
        assert_eq!(call.asked().await, Asked::Signal(2));
        sender.send(()).unwrap();
        assert!(matches!(call.asked().await, Asked::Cancel(_)));
        call.send(Event::Finished(canceled())).await;
    });
    let mut child = start(&fake);
    wait_until_up(&mut child);
    signal(&child, Signal::INT);
    receiver.recv().unwrap();
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(
        text(&output.stderr),
        "error: failed: ended by SIGINT, twice\n"
    );
}

#[test]
fn a_third_interrupt_does_not_wait_for_the_gateway() {
    let fake = Fake::start();
    let (sender, receiver) = sync_channel(1);
    fake.on_execute(async move |mut call| {
        begin(&mut call).await;
        for _ in 0..2 {
            call.asked().await;
            sender.send(()).unwrap();
        }
        // It says nothing more, and does not end either.
        std::future::pending::<()>().await;
    });
    let mut child = start(&fake);
    wait_until_up(&mut child);
    signal(&child, Signal::INT);
    receiver.recv().unwrap();
    signal(&child, Signal::INT);
    receiver.recv().unwrap();
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(
        text(&output.stderr),
        "error: failed: ended by SIGINT, twice\n\
         hint: it was told to end, but did not say so yet: `cofferdam inspect exec-1`\n"
    );
}

#[test]
fn what_still_waits_is_canceled_at_once() {
    let fake = Fake::start();
    let (sender, receiver) = sync_channel(1);
    fake.on_execute(async move |mut call| {
        call.started().await;
        let queued = Execution {
            state: ExecutionState::ExecutionClaiming as i32,
            ..running()
        };
        call.accept(queued, 0).await;
        sender.send(()).unwrap();
        assert!(matches!(call.asked().await, Asked::Cancel(_)));
        call.send(Event::Finished(canceled())).await;
    });
    let child = start(&fake);
    receiver.recv().unwrap();
    signal(&child, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
}

#[test]
fn when_nobody_reads_the_output_the_command_is_canceled_quietly() {
    let fake = Fake::start();
    let (sender, receiver) = sync_channel(1);
    fake.on_execute(async move |mut call| {
        call.begin().await;
        let mut offset = 0;
        // Endless, until the client says stop.
        let asked = loop {
            tokio::select! {
                asked = call.try_asked() => break asked,
                () = tokio::task::yield_now() => {}
            }
            let data = vec![b'y'; 100_000];
            let length = data.len() as u64;
            call.output(offset, OutputStream::Stdout, data).await;
            offset += length;
        };
        assert!(matches!(asked, Some(Asked::Cancel(_))), "{asked:?}");
        call.send(Event::Finished(canceled())).await;
        sender.send(()).unwrap();
    });
    let mut child = start(&fake);
    let mut out = child.stdout.take().unwrap();
    let mut first = [0; 10];
    out.read_exact(&mut first).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    receiver.recv().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_reader_that_leaves_the_logs_is_no_error() {
    let fake = Fake::start();
    fake.on_read_output(async |call| {
        // More than waits between the stream and the output.
        for index in 0..100_u64 {
            let data = vec![b'y'; 100_000];
            call.send(output(index * 100_000, OutputStream::Stdout, data))
                .await;
        }
        call.send(Event::Finished(exited(0))).await;
    });
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = fake
        .cofferdam()
        .args(["logs", "-f", "exec-1"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(text(&ran.stderr), "");
    assert_eq!(ran.status.code(), Some(141));
}

#[test]
fn a_reader_that_leaves_a_list_is_no_error() {
    let fake = Fake::start();
    fake.on_list_sandboxes(|_| Ok(ListSandboxesResponse::default()));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = fake.cofferdam().arg("ls").stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(text(&output.stderr), "");
}
