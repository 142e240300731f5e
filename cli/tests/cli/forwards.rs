//! `port-forward`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Stdio};

use bytes::Bytes;
use cofferdam_proto::gateway::v1::*;
use rustix::process::{Pid, Signal, kill_process};
use tonic::Status;

use crate::support::{Fake, shown};

/// Forwards a free port to 80, and says which.
fn start(fake: &Fake) -> (Child, u16) {
    fake.on_get_sandbox(|_| Ok(GetSandboxResponse::default()));
    let mut child = fake
        .cofferdam()
        .args(["port-forward", "box", "0:80"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let (local, remote) = line.trim().split_once(" -> ").unwrap();
    assert_eq!(remote, "80");
    let port = local.strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
    (child, port)
}

fn interrupt(child: &mut Child) -> Option<i32> {
    kill_process(
        Pid::from_raw(child.id().cast_signed()).unwrap(),
        Signal::INT,
    )
    .unwrap();
    child.wait().unwrap().code()
}

#[test]
fn bytes_go_both_ways_with_half_close() {
    let fake = Fake::start();
    for _ in 0..2 {
        fake.on_forward(async |mut call| {
            let open = call.opened().await;
            assert_eq!((open.sandbox.as_str(), open.port), ("box", 80));
            call.accept().await;
            let mut all = Vec::new();
            while let Some(data) = call.data().await {
                all.extend_from_slice(&data);
            }
            // The client's half is closed; ours still speaks.
            all.reverse();
            call.send(forward_response::Part::Data(Bytes::from(all)))
                .await;
        });
    }
    let (mut child, port) = start(&fake);
    for text in ["hello", "again"] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, text.chars().rev().collect::<String>());
    }
    assert_eq!(interrupt(&mut child), Some(0));
}

#[test]
fn a_port_where_nobody_listens_is_told_and_the_rest_goes_on() {
    let fake = Fake::start();
    fake.on_forward(async |mut call| {
        call.opened().await;
        call.fail(Status::failed_precondition("nothing listens on port 80"))
            .await;
    });
    let (mut child, port) = start(&fake);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut nothing = Vec::new();
    let _ = stream.read_to_end(&mut nothing);
    assert!(nothing.is_empty());
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "cofferdam: port 80: nothing listens on port 80\n");
    assert_eq!(interrupt(&mut child), Some(0));
}

#[test]
fn what_fails_again_and_again_is_told_a_few_times_and_then_counted() {
    let fake = Fake::start();
    for _ in 0..8 {
        fake.on_forward(async |mut call| {
            call.opened().await;
            call.fail(Status::failed_precondition("nothing listens on port 80"))
                .await;
        });
    }
    let (mut child, port) = start(&fake);
    for _ in 0..8 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut nothing = Vec::new();
        let _ = stream.read_to_end(&mut nothing);
    }
    assert_eq!(interrupt(&mut child), Some(0));
    let mut told = String::new();
    child.stderr.unwrap().read_to_string(&mut told).unwrap();
    let line = "cofferdam: port 80: nothing listens on port 80\n";
    let rest = told.strip_prefix(&line.repeat(3)).expect(&told);
    assert!(rest.starts_with("cofferdam: port 80: "), "{told}");
    assert!(rest.ends_with(" more remarks were not shown\n"), "{told}");
}

#[test]
fn a_sandbox_that_is_not_there_is_told_at_once() {
    let fake = Fake::start();
    fake.on_get_sandbox(|_| Err(Status::not_found("there is no sandbox box")));
    assert_eq!(
        shown(&fake.run(&["port-forward", "box", "80"])),
        "exit: 125\n--- stdout\n--- stderr\nerror: not found: there is no sandbox box\n"
    );
}
