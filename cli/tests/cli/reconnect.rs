//! Cuts of the stream: every byte once, and never a made-up success.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;
use std::sync::mpsc::sync_channel;

use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_proto::gateway::v1::execute_request::Request as Asked;
use cofferdam_proto::gateway::v1::*;
use tonic::Status;

use crate::support::fake::{exited, running};
use crate::support::{Fake, shown, text};

const NOTE: &str = "cofferdam: the connection to the gateway was cut; reconnecting to exec-1\n";

#[test]
fn after_a_cut_every_byte_is_printed_once() {
    let fake = Fake::start();
    fake.on_execute(async |mut call| {
        call.begin().await;
        call.output(0, OutputStream::Stdout, "0123456789").await;
    });
    fake.on_execute(async |mut call| {
        assert_eq!(
            call.attached().await,
            AttachExecution {
                execution_id: "exec-1".into(),
                from_offset: 10,
                stdin: false
            }
        );
        call.accept(running(), 0).await;
        // A gateway may begin earlier than it was asked to.
        call.output(7, OutputStream::Stdout, "789abc").await;
    });
    fake.on_execute(async |mut call| {
        assert_eq!(call.attached().await.from_offset, 13);
        call.accept(running(), 0).await;
        call.output(13, OutputStream::Stdout, "d\n").await;
        call.send(Event::Finished(exited(5))).await;
    });
    let output = fake.run(&["run", "--", "true"]);
    assert_eq!(
        shown(&output),
        format!("exit: 5\n--- stdout\n0123456789abcd\n--- stderr\n{NOTE}{NOTE}")
    );
}

#[test]
fn a_gateway_that_restarts_is_found_again() {
    let mut fake = Fake::start();
    fake.on_execute(async |mut call| {
        call.begin().await;
        call.output(0, OutputStream::Stdout, "before ").await;
        std::future::pending::<()>().await;
    });
    let mut child = fake
        .cofferdam()
        .args(["run", "--", "true"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut before = [0; 7];
    out.read_exact(&mut before).unwrap();
    fake.kill();
    let mut note = String::new();
    BufReader::new(child.stderr.take().unwrap())
        .read_line(&mut note)
        .unwrap();
    assert_eq!(note, NOTE);
    fake.on_execute(async |mut call| {
        assert_eq!(call.attached().await.from_offset, 7);
        call.accept(running(), 0).await;
        call.output(7, OutputStream::Stdout, "after").await;
        call.send(Event::Finished(exited(0))).await;
    });
    fake.revive();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(
        (before.as_slice(), rest.as_str()),
        (b"before ".as_slice(), "after")
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn stdin_goes_on_from_where_the_command_is() {
    let fake = Fake::start();
    fake.on_execute(async |mut call| {
        call.begin().await;
        let Asked::Stdin(stdin) = call.asked().await else {
            panic!()
        };
        assert_eq!(&stdin.data[..], b"hello world");
        call.send(Event::StdinOffset(5)).await;
    });
    let (sender, receiver) = sync_channel(1);
    fake.on_execute(async move |mut call| {
        assert!(call.attached().await.stdin);
        call.accept(running(), 6).await;
        let first = call.asked().await;
        let second = call.asked().await;
        sender.send((first, second)).unwrap();
        call.send(Event::Finished(exited(0))).await;
    });
    let mut child = fake
        .cofferdam()
        .args(["-q", "run", "-i", "cat"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"hello world")
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let expected = (
        Asked::Stdin(Stdin {
            offset: 6,
            data: "world".into(),
        }),
        Asked::StdinEof(StdinEof { offset: 11 }),
    );
    assert_eq!(receiver.recv().unwrap(), expected);
}

#[test]
fn a_start_that_was_not_accepted_is_sent_again_with_its_key() {
    let fake = Fake::start();
    let (sender, receiver) = sync_channel(2);
    let again = sender.clone();
    fake.on_execute(async move |mut call| {
        sender.send(call.started().await).unwrap();
    });
    fake.on_execute(async move |mut call| {
        again.send(call.started().await).unwrap();
        call.accept(running(), 0).await;
        call.send(Event::Finished(exited(0))).await;
    });
    let output = fake.run(&["run", "true"]);
    assert_eq!(
        shown(&output),
        "exit: 0\n--- stdout\n--- stderr\n\
         cofferdam: the connection to the gateway was cut; trying again\n"
    );
    assert_eq!(receiver.recv().unwrap(), receiver.recv().unwrap());
}

#[test]
fn an_execution_that_is_gone_after_a_cut_is_no_success() {
    let fake = Fake::start();
    fake.on_execute(async |mut call| {
        call.begin().await;
    });
    fake.on_execute(async |mut call| {
        call.attached().await;
        call.fail(Status::not_found("there is no execution exec-1"))
            .await;
    });
    let output = fake.run(&["-q", "run", "true"]);
    assert_eq!(
        shown(&output),
        "exit: 125\n--- stdout\n--- stderr\n\
         error: not found: there is no execution exec-1\n"
    );
}

#[test]
fn a_draining_gateway_is_waited_for_once_it_has_accepted() {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let fake = Fake::start();
    fake.on_execute(async |mut call| {
        call.begin().await;
        let details = ErrorDetails::with_error_info("DRAINING", "cofferdam", []);
        call.fail(Status::with_error_details(
            tonic::Code::Unavailable,
            "draining",
            details,
        ))
        .await;
    });
    fake.on_execute(async |mut call| {
        call.attached().await;
        call.accept(running(), 0).await;
        call.send(Event::Finished(exited(0))).await;
    });
    assert_eq!(fake.run(&["-q", "run", "true"]).status.code(), Some(0));
}

#[test]
fn followed_logs_go_on_after_a_cut() {
    let fake = Fake::start();
    fake.on_read_output(async |call| {
        assert!(call.request.follow && call.request.from_offset == 0);
        call.send(crate::support::fake::output(
            0,
            OutputStream::Stdout,
            "one ",
        ))
        .await;
        call.send(crate::support::fake::output(4, OutputStream::Stderr, "err"))
            .await;
    });
    fake.on_read_output(async |call| {
        assert_eq!(call.request.from_offset, 7);
        call.send(crate::support::fake::output(
            7,
            OutputStream::Stdout,
            "two\n",
        ))
        .await;
        call.send(Event::Finished(exited(9))).await;
    });
    let output = fake.run(&["logs", "-f", "-q", "exec-1"]);
    // How the command ended is not how `logs` went.
    assert_eq!(
        shown(&output),
        "exit: 0\n--- stdout\none two\n--- stderr\nerr"
    );
}

#[test]
fn logs_as_json_are_one_object_a_line() {
    let fake = Fake::start();
    fake.on_read_output(async |call| {
        call.send(crate::support::fake::output(
            0,
            OutputStream::Stdout,
            "one\n",
        ))
        .await;
        call.send(Event::Gap(Gap {
            offset: 4,
            length: 10,
        }))
        .await;
        call.send(crate::support::fake::output(
            14,
            OutputStream::Stderr,
            [255, 0].to_vec(),
        ))
        .await;
        call.send(Event::Finished(exited(0))).await;
    });
    let output = fake.run(&["logs", "--json", "exec-1"]);
    insta::assert_snapshot!(text(&output.stdout));
}

#[test]
fn what_came_before_the_last_cut_gets_out() {
    const LENGTH: usize = 3_000_000;
    let fake = Fake::start();
    fake.on_execute(async |mut call| {
        call.begin().await;
        for index in 0..30_u64 {
            call.output(index * 100_000, OutputStream::Stdout, vec![b'x'; 100_000])
                .await;
        }
    });
    fake.on_read_output(async |call| {
        call.send(crate::support::fake::output(
            0,
            OutputStream::Stdout,
            vec![b'x'; LENGTH],
        ))
        .await;
    });
    for arguments in [
        &["run", "--reconnect-timeout", "0s", "true"][..],
        &["logs", "-f", "--reconnect-timeout", "0s", "exec-1"],
    ] {
        let output = fake.run(arguments);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        assert_eq!(output.stdout.len(), LENGTH, "{arguments:?}");
    }
}
