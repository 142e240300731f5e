//! Before HTTP/2: identity, rotation, and streams that hold what they should not.

use std::process::Stdio;

use cofferdam_proto::hello::{Frame, Scanner};
use cofferdam_proto::supervisor::v1::reject::Reason;
use cofferdam_proto::supervisor::v1::{PingRequest, Reject};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use crate::gateway::{
    Token, hello, hello_frame, http2, next_frame, nonce, proves, run, shell, soon, start,
    welcome_frame,
};
use crate::sandbox::{FIRST_TOKEN, Options, Sandbox, command, new_directory};

/// The token that the supervisor proves on this stream, of those that it may hold.
async fn offered(stream: &mut UnixStream, tokens: &[Token]) -> usize {
    let nonce = nonce();
    stream
        .write_all(&hello_frame(&nonce))
        .await
        .expect("written");
    let Some(Frame::HelloReply(reply)) = next_frame(stream, &mut Scanner::new()).await else {
        panic!("a reply");
    };
    tokens
        .iter()
        .position(|token| proves(&reply, token, &nonce))
        .expect("one of them")
}

async fn reject(stream: &mut UnixStream, reason: Reason) {
    let reject = Reject {
        reason: reason as i32,
        message: "because".into(),
    };
    stream
        .write_all(&Frame::Reject(reject).encode().expect("short"))
        .await
        .expect("written");
}

#[tokio::test]
async fn the_reply_says_who_it_is() {
    let mut sandbox = Sandbox::start();
    let mut stream = sandbox.accept().await;
    let next = sandbox.next_token();
    let (reply, _) = hello(&mut stream, &sandbox.token, &next).await;
    assert_eq!(reply.sandbox_id, "sbx-test");
    assert_eq!(reply.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(reply.boot_id.len(), 16);
    assert_eq!((reply.protocol_min, reply.protocol_max), (1, 1));
    assert_eq!(reply.processes, 0);
}

#[tokio::test]
async fn garbage_and_stale_frames_before_the_hello_are_passed_over() {
    let mut sandbox = Sandbox::start();
    let mut stream = sandbox.accept().await;
    let mut stale = vec![0xa5; 10_000];
    stale.extend_from_slice(b"\0CDHELO1 and then something else");
    stale.extend(welcome_frame(&[9; 32], &nonce(), &[8; 32]));
    let gone = Reject {
        reason: Reason::SandboxGone as i32,
        message: String::new(),
    };
    stale.extend(Frame::Reject(gone).encode().expect("short"));
    stale.extend_from_slice(&hello_frame(&nonce())[..20]);
    stream.write_all(&stale).await.expect("written");
    let next = sandbox.next_token();
    let (_, rest) = hello(&mut stream, &sandbox.token, &next).await;
    let mut client = http2(stream, rest).await;
    soon(client.ping(PingRequest {})).await.expect("answered");
}

#[tokio::test]
async fn a_repeated_hello_changes_nothing() {
    let sandbox = Sandbox::start();
    let mut stream = sandbox.accept().await;
    let nonce = nonce();
    let mut scanner = Scanner::new();
    stream
        .write_all(&hello_frame(&nonce).repeat(3))
        .await
        .expect("written");
    let reply = next_frame(&mut stream, &mut scanner).await;
    assert!(matches!(reply, Some(Frame::HelloReply(_))));
    // Also one that crossed with the reply.
    stream
        .write_all(&hello_frame(&nonce))
        .await
        .expect("written");
    let next = [7; 32];
    stream
        .write_all(&welcome_frame(&sandbox.token, &nonce, &next))
        .await
        .expect("written");
    loop {
        match next_frame(&mut stream, &mut scanner).await {
            Some(Frame::HelloReply(_)) => {}
            Some(Frame::Ready(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    let mut client = http2(stream, scanner.into_rest().into()).await;
    soon(client.ping(PingRequest {})).await.expect("answered");
}

#[tokio::test]
async fn a_gateway_without_the_token_gets_no_session() {
    let sandbox = Sandbox::start();
    let mut stream = sandbox.accept().await;
    let nonce = nonce();
    let mut scanner = Scanner::new();
    stream
        .write_all(&hello_frame(&nonce))
        .await
        .expect("written");
    next_frame(&mut stream, &mut scanner)
        .await
        .expect("a reply");
    stream
        .write_all(&welcome_frame(&[9; 32], &nonce, &[8; 32]))
        .await
        .expect("written");
    // The right one is still heard, on the same stream.
    let next = [7; 32];
    stream
        .write_all(&welcome_frame(&sandbox.token, &nonce, &next))
        .await
        .expect("written");
    let ready = next_frame(&mut stream, &mut scanner).await;
    assert!(matches!(ready, Some(Frame::Ready(_))));
}

#[tokio::test]
async fn a_rejected_supervisor_tries_again_with_what_it_holds() {
    let sandbox = Sandbox::start();
    for _ in 0..3 {
        let mut stream = sandbox.accept().await;
        assert_eq!(offered(&mut stream, &[FIRST_TOKEN]).await, 0);
        reject(&mut stream, Reason::BadToken).await;
    }
}

#[tokio::test]
async fn a_cut_before_the_welcome_changes_no_token() {
    let mut sandbox = Sandbox::start();
    let mut stream = sandbox.accept().await;
    assert_eq!(offered(&mut stream, &[FIRST_TOKEN]).await, 0);
    drop(stream);
    let mut client = sandbox.session().await;
    soon(client.ping(PingRequest {})).await.expect("answered");
}

#[tokio::test]
async fn after_a_cut_before_the_first_call_both_tokens_lead_back() {
    let mut sandbox = Sandbox::start();
    let mut stream = sandbox.accept().await;
    let next = sandbox.next_token();
    hello(&mut stream, &FIRST_TOKEN, &next).await;
    drop(stream);

    // A gateway that kept the new token is met at once, one that lost it after saying so.
    let tokens = [FIRST_TOKEN, next];
    let mut stream = sandbox.accept().await;
    assert_eq!(offered(&mut stream, &tokens).await, 1);
    reject(&mut stream, Reason::BadToken).await;
    let mut stream = sandbox.accept().await;
    assert_eq!(offered(&mut stream, &tokens).await, 0);
    drop(stream);
    let mut client = sandbox.session().await;
    soon(client.ping(PingRequest {})).await.expect("answered");
}

#[tokio::test]
async fn after_the_first_call_the_old_token_is_gone() {
    let mut sandbox = Sandbox::start();
    let mut client = sandbox.session().await;
    soon(client.ping(PingRequest {})).await.expect("answered");
    drop(client);
    let tokens = [FIRST_TOKEN, sandbox.token];
    for _ in 0..2 {
        let mut stream = sandbox.accept().await;
        assert_eq!(offered(&mut stream, &tokens).await, 1);
        reject(&mut stream, Reason::BadToken).await;
    }
}

#[tokio::test]
async fn a_sandbox_that_is_gone_ends_itself() {
    let mut sandbox = Sandbox::start();
    let mut stream = sandbox.accept().await;
    offered(&mut stream, &[FIRST_TOKEN]).await;
    reject(&mut stream, Reason::SandboxGone).await;
    assert_eq!(sandbox.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_gateway_that_restarts_finds_the_same_supervisor() {
    let mut sandbox = Sandbox::start();
    let mut client = sandbox.session().await;
    let before = soon(client.ping(PingRequest {}))
        .await
        .expect("answered")
        .into_inner();
    drop(start(&client, "p", shell("exec sleep 1000")).await);
    sandbox.stop_listening();
    drop(client);
    sandbox.listen_again();

    let mut stream = sandbox.accept().await;
    let next = sandbox.next_token();
    let (reply, rest) = hello(&mut stream, &sandbox.token, &next).await;
    assert_eq!(reply.processes, 1);
    assert_eq!(reply.boot_id, before.boot_id);
    let mut client = http2(stream, rest).await;
    let after = soon(client.ping(PingRequest {}))
        .await
        .expect("answered")
        .into_inner();
    assert_eq!((after.boot_id, after.running), (before.boot_id, 1));
}

#[tokio::test]
async fn the_callback_directory_may_be_a_descriptor() {
    let options = Options::default();
    let directory = new_directory(&options);
    let callback = std::fs::File::open(directory.path().join("callback")).expect("opened");
    let listener = tokio::net::UnixListener::bind(directory.path().join("callback/gateway.sock"));
    let number = std::os::fd::AsRawFd::as_raw_fd(&callback);
    let mut command = command(&options, directory.path(), &format!("dirfd:{number}"));
    crate::sandbox::inherit(&mut command, callback);
    let mut child = command.stdin(Stdio::null()).spawn().expect("starts");
    let (mut stream, _) = soon(listener.expect("bound").accept())
        .await
        .expect("accepted");
    hello(&mut stream, &FIRST_TOKEN, &[2; 32]).await;
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

#[tokio::test]
async fn the_callback_directory_may_have_a_path_longer_than_an_address() {
    let options = Options::default();
    let directory = new_directory(&options);
    let listener = tokio::net::UnixListener::bind(directory.path().join("callback/gateway.sock"));
    let long = format!(
        "dir:{}/{}callback",
        directory.path().display(),
        "./".repeat(60)
    );
    let mut command = command(&options, directory.path(), &long);
    let mut child = command.stdin(Stdio::null()).spawn().expect("starts");
    let (mut stream, _) = soon(listener.expect("bound").accept())
        .await
        .expect("accepted");
    hello(&mut stream, &FIRST_TOKEN, &[2; 32]).await;
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

#[tokio::test]
async fn over_stdio_another_gateway_may_begin_in_the_middle_of_a_session() {
    let options = Options::default();
    let directory = new_directory(&options);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("not blocking");
    let mut ours = UnixStream::from_std(ours).expect("registered");
    let theirs = std::os::fd::OwnedFd::from(theirs);
    let mut command = command(&options, directory.path(), "stdio");
    command
        .stdin(theirs.try_clone().expect("copied"))
        .stdout(theirs);
    let mut child = command.spawn().expect("starts");
    drop(command);

    let (first, second, third) = ([2; 32], [3; 32], [4; 32]);
    let (_, rest) = hello(&mut ours, &FIRST_TOKEN, &first).await;
    // The first gateway dies in the middle of a frame; its stream is the second one's as well.
    let (reader, writer) = ours.into_split();
    let relay = tokio::io::join(reader, writer);
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let mut relay = {
        let mut client = http2(far, rest).await;
        let mut relay = relay;
        let copy = tokio::io::copy_bidirectional(&mut near, &mut relay);
        let call = async {
            soon(client.ping(PingRequest {})).await.expect("answered");
            drop(start(&client, "p", shell("exec sleep 1000")).await);
        };
        tokio::select! { _ = copy => panic!("the stream goes on"), () = call => {} }
        relay
    };
    relay
        .write_all(b"\0\0\x10\0half of a frame")
        .await
        .expect("written");
    let (reply, rest) = hello(&mut relay, &first, &second).await;
    assert_eq!(reply.processes, 1);
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let client = http2(far, rest).await;
    {
        let copy = tokio::io::copy_bidirectional(&mut near, &mut relay);
        let call = async { assert_eq!(run(&client, "q", shell("exit 5")).await.code(), 5) };
        tokio::select! { _ = copy => panic!("the stream goes on"), () = call => {} }
    }
    hello(&mut relay, &second, &third).await;
    drop(relay);
    // Nobody can speak on this stream any more.
    assert_eq!(
        tokio::task::spawn_blocking(move || child.wait())
            .await
            .expect("waited")
            .expect("ended")
            .code(),
        Some(0)
    );
}

/// Whether a process's memory holds these bytes anywhere.
fn memory_holds(pid: u32, wanted: &[u8]) -> bool {
    use std::os::unix::fs::FileExt as _;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("opened");
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("read");
    let ranges = maps
        .lines()
        .filter(|line| line.contains(" rw"))
        .filter_map(|line| {
            let (start, rest) = line.split_once('-')?;
            let (end, _) = rest.split_once(' ')?;
            Some((
                u64::from_str_radix(start, 16).ok()?,
                u64::from_str_radix(end, 16).ok()?,
            ))
        });
    ranges.into_iter().any(|(start, end)| {
        let mut data = vec![0; (end - start) as usize];
        let read = memory.read_at(&mut data, start).unwrap_or(0);
        data[..read]
            .windows(wanted.len())
            .any(|window| window == wanted)
    })
}

#[tokio::test]
async fn used_tokens_are_not_in_memory_any_more() {
    if !crate::sandbox::is_root() {
        return crate::sandbox::skip("only root can look into the supervisor's memory");
    }
    let mut sandbox = Sandbox::start();
    let pid = sandbox.child.id();
    for _ in 0..3 {
        let before = sandbox.token;
        let mut client = sandbox.session().await;
        soon(client.ping(PingRequest {})).await.expect("answered");
        assert!(!memory_holds(pid, &before[..8]), "the used one");
        assert!(
            memory_holds(pid, &sandbox.token[..8]),
            "the one for the next session"
        );
    }
    let digits = "11".repeat(8);
    assert!(
        !memory_holds(pid, digits.as_bytes()),
        "as the bootstrap had it"
    );
}
