//! Input: offsets, ends, and readers that do not read.

use cofferdam_proto::supervisor::v1::ProcessSpec;
use cofferdam_proto::supervisor::v1::process_event::Event;
use tonic::Code;

use crate::gateway::{Attached, Outcome, attach, shell, spec, start};
use crate::sandbox::Sandbox;

fn with_stdin(spec: ProcessSpec) -> ProcessSpec {
    ProcessSpec {
        stdin: true,
        ..spec
    }
}

/// Waits for an acknowledgement.
async fn acknowledged(attached: &mut Attached, offset: u64) -> bool {
    loop {
        match attached.event().await.expect("goes on").expect("an event") {
            Event::StdinAck(ack) if ack.offset >= offset => return ack.closed,
            Event::Exited(_) => panic!("it has ended"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn stdin_is_passed_on_and_ends() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let attached = start(&client, "p", with_stdin(spec(&["cat"]))).await;
    attached.stdin(0, b"hello ").await;
    attached.stdin(6, b"world\n").await;
    attached.stdin_eof(12).await;
    assert_eq!(attached.finish().await.text(), "hello world\n");
}

#[tokio::test]
async fn without_stdin_a_process_reads_nothing() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let outcome = start(&client, "p", spec(&["cat"])).await.finish().await;
    assert_eq!((outcome.code(), outcome.text().as_str()), (0, ""));
    let mut attached = start(&client, "q", shell("exec sleep 1000")).await;
    attached.stdin(0, b"x").await;
    let refused = attached.event().await.expect_err("there is no stdin");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_sent_again_after_a_cut_is_taken_once() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let mut attached = start(&client, "p", with_stdin(spec(&["cat"]))).await;
    attached.stdin(0, b"one ").await;
    assert!(!acknowledged(&mut attached, 4).await);
    attached.stdin(4, b"two ").await;
    drop((attached, client));

    let client = sandbox.session().await;
    let attached = attach(&client, "p", 0).await.expect("attached");
    let taken = attached.started.stdin_offset;
    assert!(taken == 4 || taken == 8, "{taken}");
    attached.stdin(0, b"one two three").await;
    attached.stdin_eof(13).await;
    assert_eq!(attached.finish().await.text(), "one two three");
}

#[tokio::test]
async fn a_gap_is_refused_and_harms_no_process() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let mut attached = start(&client, "p", with_stdin(spec(&["cat"]))).await;
    attached.stdin(1, b"x").await;
    assert_eq!(
        attached.event().await.expect_err("a gap").code(),
        Code::InvalidArgument
    );
    let attached = attach(&client, "p", 0).await.expect("it runs");
    attached.stdin(0, b"fine").await;
    attached.stdin_eof(4).await;
    assert_eq!(attached.finish().await.text(), "fine");
}

#[tokio::test]
async fn a_process_that_closes_its_stdin_is_noticed() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let script = "exec 0<&-; echo closed; trap 'exit 0' USR1; while :; do sleep 0.1; done";
    let mut attached = start(&client, "p", with_stdin(shell(script))).await;
    attached.read_until(&mut Outcome::default(), "closed").await;
    attached.stdin(0, &[b'x'; 1000]).await;
    assert!(acknowledged(&mut attached, 1000).await, "closed");
    attached.stdin(1000, b"more").await;
    assert!(acknowledged(&mut attached, 1004).await, "still closed");
    attached
        .send(cofferdam_proto::supervisor::v1::process_request::Request::Signal(10))
        .await;
    attached.stdin_eof(1004).await;
}

#[tokio::test]
async fn much_stdin_goes_through_unharmed() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let mut attached = start(&client, "p", with_stdin(spec(&["sha256sum"]))).await;
    let data: Vec<u8> = (0..20_000_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    for (number, piece) in data.chunks(100_000).enumerate() {
        let offset = number as u64 * 100_000;
        // At most two pieces are under way.
        if offset >= 200_000 {
            acknowledged(&mut attached, offset - 100_000).await;
        }
        attached.stdin(offset, piece).await;
    }
    attached.stdin_eof(data.len() as u64).await;
    let outcome = attached.finish().await;
    let expected = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&data));
    assert_eq!(outcome.text().split(' ').next(), Some(expected.as_str()));
}

#[tokio::test]
async fn a_process_that_does_not_read_can_still_be_heard_and_signalled() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let script = "trap 'echo heard; exit 0' USR1; echo ready; while :; do sleep 0.1; done";
    let mut attached = start(&client, "p", with_stdin(shell(script))).await;
    let mut outcome = Outcome::default();
    attached.read_until(&mut outcome, "ready").await;
    // The pipe takes 64 KiB, the supervisor the rest.
    attached.stdin(0, &vec![b'x'; 256 * 1024]).await;
    attached
        .send(cofferdam_proto::supervisor::v1::process_request::Request::Signal(10))
        .await;
    assert!(attached.finish_with(outcome).await.text().contains("heard"));
}
