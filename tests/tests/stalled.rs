//! Readers that do not read: they wait, everybody else does not, and nobody's memory fills up.

use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_proto::gateway::v1::{
    ExecutionRequest, GetInfoRequest, ListSandboxesRequest, SandboxRequest, SandboxStatsRequest,
};
use cofferdam_tests::client::{self, Stream};
use cofferdam_tests::{TestGateway, process, wait};

const READERS: usize = 50;
const MEMORY_MAX: u64 = 200 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_readers_leave_control_calls_alive_and_memory_bounded() {
    let gateway = TestGateway::start();
    let mut caller = client::connect(&gateway).await;
    let wanted = SandboxRequest {
        pids: Some(1000),
        ..SandboxRequest::default()
    };
    let sandbox = client::create(&mut caller, wanted).await;
    let mut stalled = Vec::new();
    for _ in 0..READERS {
        let command = client::command(&sandbox, ["yes", "nobody reads this"]);
        let mut stream = Stream::start(&mut caller, command).await.expect("accepted");
        // It runs, and is not read from here on.
        loop {
            if let Some(Event::Output(_)) = stream.next().await.expect("an event") {
                break;
            }
        }
        stalled.push(stream);
    }
    // On another connection, on the same one, in the same sandbox and in another.
    let mut other = client::connect(&gateway).await;
    for _ in 0..20 {
        for caller in [&mut caller, &mut other] {
            caller
                .get_info(client::request(GetInfoRequest {}))
                .await
                .expect("an answer");
            let wanted = ListSandboxesRequest::default();
            caller
                .list_sandboxes(client::request(wanted))
                .await
                .expect("an answer");
            let wanted = SandboxStatsRequest {
                sandbox: sandbox.clone(),
            };
            caller
                .sandbox_stats(client::request(wanted))
                .await
                .expect("an answer");
            let echo = client::run(caller, client::command(&sandbox, ["echo", "alive"])).await;
            assert_eq!(echo.stdout, b"alive\n");
        }
    }
    let supervisors = gateway.supervisors();
    assert_eq!(supervisors.len(), 1);
    let one_shot = client::one_shot(SandboxRequest::default(), ["echo", "fresh"]);
    assert_eq!(client::run(&mut other, one_shot).await.stdout, b"fresh\n");
    for pid in supervisors.into_iter().chain([gateway.pid()]) {
        let peak = process::memory_peak_bytes(pid).expect("it lives");
        assert!(
            peak <= MEMORY_MAX,
            "{} MiB: {}",
            peak >> 20,
            process::describe(pid)
        );
    }
    // Whoever reads again goes on where they were.
    let mut stream = stalled.pop().expect("a stream");
    let mut read = 0;
    while read < 4 << 20 {
        if let Some(Event::Output(output)) = stream.next().await.expect("an event") {
            read += output.data.len();
        }
    }
    let id = stream.id().to_owned();
    drop(stream);
    gateway.ok(["kill", &id]);
    gateway.ok(["rm", "--force", &sandbox]);
}

/// Starts `yes`, and reads no more than that it runs.
async fn stalled(caller: &mut client::Client, sandbox: &str, timeout_ms: u64) -> Stream {
    let command = ExecutionRequest {
        timeout_ms,
        ..client::command(sandbox, ["yes", "nobody reads this"])
    };
    let mut stream = Stream::start(caller, command).await.expect("accepted");
    while !matches!(
        stream.next().await.expect("an event"),
        Some(Event::Output(_))
    ) {}
    stream
}

#[tokio::test]
async fn what_nobody_reads_can_be_killed_and_times_out_like_anything_else() {
    let gateway = TestGateway::start();
    let mut caller = client::connect(&gateway).await;
    let sandbox = client::create(&mut caller, SandboxRequest::default()).await;
    let killed = stalled(&mut caller, &sandbox, 0).await;
    gateway.ok(["kill", killed.id()]);
    let timed_out = stalled(&mut caller, &sandbox, 500).await;
    wait::until_true("the timeout has ended it", || {
        gateway.json(["inspect", timed_out.id()])["state"] == "TIMED_OUT"
    });
    for stream in [killed, timed_out] {
        // Its end was seen, and not only given up waiting for.
        let about = gateway.json(["inspect", stream.id()]);
        assert!(!about["signal"].is_null(), "{about:#}");
        // Whoever reads on gets the rest, and the end.
        let ended = stream.finish().await;
        assert!(ended.stdout.starts_with(b"nobody reads this\n"));
        assert!(ended.execution.signal.is_some());
    }
}
