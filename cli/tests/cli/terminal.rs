//! `-it` in a real terminal, and `-t` without one.

use std::sync::mpsc::sync_channel;

use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_proto::gateway::v1::execute_request::Request as Asked;
use cofferdam_proto::gateway::v1::*;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::fake::{ExecuteCall, ended, exited};
use crate::support::pty::Terminal;
use crate::support::{Fake, code, shown};

/// What is typed, up to so many bytes; resizes on the way are left out.
async fn typed(call: &mut ExecuteCall, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        match call.asked().await {
            Asked::Stdin(stdin) => all.extend_from_slice(&stdin.data),
            Asked::Resize(_) => {}
            other => panic!("not typed: {other:?}"),
        }
    }
    all
}

async fn resized(call: &mut ExecuteCall) -> (u32, u32) {
    match call.asked().await {
        Asked::Resize(size) => (size.rows, size.columns),
        other => panic!("not a resize: {other:?}"),
    }
}

async fn prompt(call: &mut ExecuteCall) -> Pty {
    let start = call.begin().await;
    call.output(0, OutputStream::Stdout, "ready$ ").await;
    start.execution.unwrap().pty.unwrap()
}

fn session(fake: &Fake) -> Terminal {
    let mut command = fake.cofferdam();
    command.args(["exec", "-it", "box", "sh"]);
    Terminal::start(&command)
}

#[test]
fn keys_go_through_raw_and_the_terminal_comes_back() {
    let fake = Fake::start();
    fake.on_execute(async |mut call| {
        let pty = prompt(&mut call).await;
        assert_eq!(
            (pty.rows, pty.columns, pty.term.as_str()),
            (30, 100, "xterm-256color")
        );
        // Ctrl-C, Ctrl-D, Ctrl-Z and Enter are bytes like others.
        assert_eq!(typed(&mut call, 5).await, b"a\x03\x04\x1a\r");
        call.send(Event::Finished(exited(3))).await;
    });
    let mut terminal = session(&fake);
    terminal.wait_for("ready$ ");
    assert!(terminal.is_raw());
    terminal.type_keys(b"a\x03\x04\x1a\r");
    assert_eq!(terminal.wait().code(), Some(3));
    assert!(terminal.is_restored());
}

#[test]
fn a_new_size_is_passed_on() {
    let fake = Fake::start();
    fake.on_execute(async |mut call| {
        prompt(&mut call).await;
        assert_eq!(resized(&mut call).await, (30, 100));
        call.output(7, OutputStream::Stdout, "sized").await;
        assert_eq!(resized(&mut call).await, (50, 200));
        call.send(Event::Finished(exited(0))).await;
    });
    let mut terminal = session(&fake);
    terminal.wait_for("sized");
    terminal.resize(50, 200);
    assert_eq!(terminal.wait().code(), Some(0));
}

#[test]
fn the_detach_keys_leave_the_command_alone() {
    let fake = Fake::start();
    let (sender, receiver) = sync_channel(1);
    fake.on_execute(async move |mut call| {
        let start = call.started().await;
        assert!(start.execution.unwrap().detachable);
        call.accept(crate::support::fake::running(), 0).await;
        call.output(0, OutputStream::Stdout, "ready$ ").await;
        let mut asked = Vec::new();
        while let Some(request) = call.try_asked().await {
            asked.push(request);
        }
        sender.send(asked).unwrap();
    });
    let mut terminal = session(&fake);
    terminal.wait_for("ready$ ");
    terminal.type_keys(b"\x1dd");
    assert_eq!(terminal.wait().code(), Some(0));
    terminal.wait_for("left exec-1, which goes on; `cofferdam attach exec-1` comes back to it");
    assert!(terminal.is_restored());
    let asked = receiver.recv().unwrap();
    assert!(
        asked
            .iter()
            .all(|request| matches!(request, Asked::Resize(_))),
        "{asked:?}"
    );
}

#[test]
fn the_terminal_comes_back_when_the_gateway_goes() {
    let fake = Fake::start();
    fake.on_execute(async |mut call| {
        prompt(&mut call).await;
        // The first key cuts the stream.
        typed(&mut call, 1).await;
    });
    let mut command = fake.cofferdam();
    command.args(["exec", "-it", "--reconnect-timeout", "0s", "box", "sh"]);
    let mut terminal = Terminal::start(&command);
    terminal.wait_for("ready$ ");
    terminal.type_keys(b"x");
    assert_eq!(terminal.wait().code(), Some(125));
    terminal.wait_for(" lost: the connection was cut");
    assert!(terminal.is_restored());
}

#[test]
fn the_terminal_comes_back_when_we_are_told_to_end() {
    let fake = Fake::start();
    fake.on_execute(async |mut call| {
        prompt(&mut call).await;
        assert_eq!(resized(&mut call).await, (30, 100));
        assert_eq!(call.asked().await, Asked::Signal(15));
        call.output(7, OutputStream::Stdout, "first").await;
        assert!(matches!(call.asked().await, Asked::Cancel(_)));
        call.send(Event::Finished(ended(
            ExecutionState::ExecutionCanceled,
            ExecutionReason::ReasonCanceledByCaller,
        )))
        .await;
    });
    let mut terminal = session(&fake);
    terminal.wait_for("ready$ ");
    let pid = Pid::from_raw(terminal.pid().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    terminal.wait_for("first");
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(terminal.wait().code(), Some(143));
    assert!(terminal.is_restored());
}

#[test]
fn until_the_command_runs_ctrl_c_is_ours() {
    let fake = Fake::start();
    fake.on_execute(async |mut call| {
        call.started().await;
        call.accept(
            Execution {
                state: ExecutionState::ExecutionQueued as i32,
                ..crate::support::fake::running()
            },
            0,
        )
        .await;
        assert_eq!(resized(&mut call).await, (30, 100));
        assert!(matches!(call.asked().await, Asked::Cancel(_)));
        call.send(Event::Finished(ended(
            ExecutionState::ExecutionCanceled,
            ExecutionReason::ReasonCanceledByCaller,
        )))
        .await;
    });
    let mut terminal = session(&fake);
    terminal.wait_for("waiting for a free place");
    assert!(!terminal.is_raw());
    terminal.type_keys(b"\x03");
    assert_eq!(terminal.wait().code(), Some(130));
}

#[test]
fn a_terminal_is_not_made_up() {
    let fake = Fake::start();
    let without = fake.run(&["exec", "-t", "box", "sh"]);
    assert_eq!(code(&without), 125);
    insta::assert_snapshot!("tty_without_terminal", shown(&without));
    let piped = fake.run(&["exec", "-it", "box", "sh"]);
    insta::assert_snapshot!("interactive_tty_without_terminal", shown(&piped));
}
