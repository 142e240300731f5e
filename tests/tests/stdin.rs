//! Stdin arrives whole and in order, whoever sends it and whatever is cut; or it is said that it
//! did not.

use bytes::Bytes;
use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_proto::gateway::v1::execute_request::Request;
use cofferdam_proto::gateway::v1::{
    ExecutionReason, ExecutionRequest, ExecutionState, SandboxRequest, Stdin, StdinEof,
};
use cofferdam_tests::client::{self, Client, Followed, Stream};
use cofferdam_tests::{TestGateway, wait};

/// A command that ends well whatever its stdin was.
async fn with_stdin(caller: &mut Client, sandbox: &str, script: &str) -> Stream {
    let request = ExecutionRequest {
        stdin: true,
        ..client::command(sandbox, ["sh", "-c", script])
    };
    Stream::start(caller, request).await.expect("accepted")
}

fn data(offset: u64, text: &'static str) -> Request {
    Request::Stdin(Stdin {
        offset,
        data: Bytes::from_static(text.as_bytes()),
    })
}

#[track_caller]
fn is_lost(ended: &Followed) {
    let execution = &ended.execution;
    assert_eq!(execution.state(), ExecutionState::ExecutionFailed);
    assert_eq!(execution.reason(), ExecutionReason::ReasonStdinLost);
    assert!(execution.message.contains("never came"), "{execution:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_in_stdin_ends_the_execution_as_failed() {
    let gateway = TestGateway::start();
    let mut caller = client::connect(&gateway).await;
    let sandbox = client::create(&mut caller, SandboxRequest::default()).await;
    let copy = "echo on; cat; exit 0";

    // In the middle.
    let stream = with_stdin(&mut caller, &sandbox, copy).await;
    stream.send(data(0, "abc")).await;
    stream.send(data(5, "fgh")).await;
    stream.send(Request::StdinEof(StdinEof { offset: 8 })).await;
    let ended = stream.finish().await;
    is_lost(&ended);
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(
        !text.contains("fgh"),
        "it was given what comes after: {text}"
    );

    // At the end: it would look like a shorter stdin.
    let mut stream = with_stdin(&mut caller, &sandbox, copy).await;
    stream.send(data(0, "abc")).await;
    while !matches!(stream.next().await, Ok(Some(Event::StdinOffset(3)))) {}
    stream.send(Request::StdinEof(StdinEof { offset: 4 })).await;
    is_lost(&stream.finish().await);

    // Of a command that wants no more, nothing is missing.
    let mut stream = with_stdin(&mut caller, &sandbox, "exec < /dev/null; echo on; sleep 1").await;
    while !matches!(stream.next().await, Ok(Some(Event::Output(_)))) {}
    stream.send(data(0, "abc")).await;
    while !matches!(stream.next().await, Ok(Some(Event::StdinOffset(3)))) {}
    stream.send(data(100, "x")).await;
    let ended = stream.finish().await;
    assert_eq!(ended.execution.state(), ExecutionState::ExecutionSucceeded);
}

#[test]
fn stdin_goes_on_where_it_was_when_the_gateway_is_killed() {
    let mut gateway = TestGateway::start();
    let sandbox = gateway.create([""; 0]);
    // A shell reads a line to its end and no further; the rest is under way when the gateway dies.
    let script = "read line; echo $line; while [ ! -e go ]; do sleep 0.05; done; cat";
    let mut call = gateway
        .cli(["exec", "-i", &sandbox, "sh", "-c", script])
        .spawn();
    let text: String = (0..60_000).map(|line| format!("{line:09}\n")).collect();
    call.type_in(&text[..300_000]);
    call.expect("000000000\n");
    gateway.kill_and_restart();
    call.type_in(&text[300_000..]);
    call.end_stdin();
    wait::until_true("the sandbox is ready", || {
        gateway
            .run(["exec", &sandbox, "touch", "go"])
            .status
            .success()
    });
    let ran = call.wait();
    ran.exited(0);
    assert!(ran.text() == text, "lost or doubled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_terminal_goes_on_behind_what_the_first_one_sent() {
    let gateway = TestGateway::start();
    let mut caller = client::connect(&gateway).await;
    let sandbox = client::create(&mut caller, SandboxRequest::default()).await;
    // It reads nothing for now, so that what the first one sends is received and not taken.
    let script = "while [ ! -e go ]; do sleep 0.05; done; cat";
    let first = with_stdin(&mut caller, &sandbox, script).await;
    first.send(data(0, "from the first\n")).await;
    wait::until_async("it was received", || {
        let (mut caller, id) = (caller.clone(), first.id().to_owned());
        async move {
            let look = Stream::attach(&mut caller, &id, 0).await.expect("accepted");
            (look.stdin_received == 15).then_some(())
        }
    })
    .await;
    let mut second = gateway.cli(["attach", first.id()]).spawn();
    second.type_in("from the second\n");
    second.end_stdin();
    gateway.ok(["exec", &sandbox, "touch", "go"]);
    let ended = first.finish().await;
    assert_eq!(ended.execution.state(), ExecutionState::ExecutionSucceeded);
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert_eq!(text, "from the first\nfrom the second\n");
    second.wait().exited(0);
}
