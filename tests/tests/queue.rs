//! Executions that wait for their turn, requests that come twice, a gateway that takes no more.

use cofferdam_proto::gateway::v1::{
    CreateExecutionRequest, CreateSandboxRequest, Execution, ExecutionRequest, ExecutionState,
    GetExecutionRequest, GetInfoRequest, SandboxRequest,
};
use cofferdam_tests::client::{self, Client};
use cofferdam_tests::{TestGateway, random_name, wait};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

async fn submit(client: &mut Client, execution: ExecutionRequest) -> Result<Execution, Status> {
    submit_as(client, execution, &random_name()).await
}

async fn submit_as(
    client: &mut Client,
    execution: ExecutionRequest,
    key: &str,
) -> Result<Execution, Status> {
    let wanted = CreateExecutionRequest {
        execution: Some(execution),
        idempotency_key: key.to_owned(),
    };
    let made = client.create_execution(client::request(wanted)).await?;
    Ok(made.into_inner().execution.expect("an execution"))
}

async fn get(client: &mut Client, id: &str, wait_ms: u64) -> Execution {
    let wanted = GetExecutionRequest {
        execution_id: id.to_owned(),
        wait_ms,
    };
    let found = client
        .get_execution(client::request(wanted))
        .await
        .expect("an answer");
    found.into_inner().execution.expect("an execution")
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executions_beyond_the_limit_wait_and_run_in_order() {
    let gateway = TestGateway::builder()
        .config("[executions]\nrunning_max = 1\nqueue_max = 3")
        .start();
    let mut caller = client::connect(&gateway).await;
    let sandbox = client::create(&mut caller, SandboxRequest::default()).await;
    let script = "while [ ! -e go ]; do sleep 0.05; done; echo first >> order";
    let first = submit(&mut caller, client::command(&sandbox, ["sh", "-c", script]))
        .await
        .expect("accepted");
    wait::until_async("the first one runs", || {
        let (mut caller, id) = (caller.clone(), first.execution_id.clone());
        async move {
            let state = get(&mut caller, &id, 0).await.state();
            (state == ExecutionState::ExecutionRunning).then_some(())
        }
    })
    .await;
    let mut waiting = Vec::new();
    for name in ["second", "third", "fourth"] {
        let script = format!("echo {name} >> order");
        let command = client::command(&sandbox, ["sh", "-c", &script]);
        waiting.push(submit(&mut caller, command).await.expect("accepted"));
    }
    for execution in &waiting {
        let state = get(&mut caller, &execution.execution_id, 0).await.state();
        assert_eq!(state, ExecutionState::ExecutionQueued);
    }
    let refused = submit(&mut caller, client::command(&sandbox, ["true"]))
        .await
        .expect_err("a full queue");
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::ResourceExhausted, "QUEUE_FULL".into())
    );
    // One that waits can be given up.
    gateway.ok(["cancel", &waiting[1].execution_id]);
    // The file is made past the queue.
    let mine = gateway.home().file(gateway.user(), "go", "");
    gateway.ok(["cp", &mine.to_string_lossy(), &format!("{sandbox}:go")]);
    for execution in [&first, &waiting[0], &waiting[2]] {
        let ended = get(&mut caller, &execution.execution_id, 30_000).await;
        assert_eq!(ended.state(), ExecutionState::ExecutionSucceeded);
    }
    let order = client::run(&mut caller, client::command(&sandbox, ["cat", "order"])).await;
    assert_eq!(order.stdout, b"first\nsecond\nfourth\n");
    let given_up = get(&mut caller, &waiting[1].execution_id, 0).await;
    assert_eq!(given_up.state(), ExecutionState::ExecutionCanceled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_gives_the_same_execution_and_sandbox() {
    let gateway = TestGateway::start();
    let mut caller = client::connect(&gateway).await;
    let wanted = |name: &str| CreateSandboxRequest {
        sandbox: Some(SandboxRequest {
            name: name.to_owned(),
            ..SandboxRequest::default()
        }),
        wait: true,
        idempotency_key: "sandbox-key".to_owned(),
    };
    let mut ids = Vec::new();
    for _ in 0..3 {
        let made = caller
            .create_sandbox(client::request(wanted("once")))
            .await
            .expect("made");
        ids.push(made.into_inner().sandbox.expect("a sandbox").sandbox_id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let other = caller
        .create_sandbox(client::request(wanted("other")))
        .await;
    let other = other.expect_err("the key is used");
    assert_eq!(other.code(), Code::AlreadyExists);
    assert_eq!(reason(&other), "IDEMPOTENCY_KEY_REUSED");

    let command = client::command(&ids[0], ["sh", "-c", "echo once >> runs"]);
    let (mut one, mut two) = (caller.clone(), caller.clone());
    let (one, two) = tokio::join!(
        submit_as(&mut one, command.clone(), "execution-key"),
        submit_as(&mut two, command.clone(), "execution-key"),
    );
    let (one, two) = (one.expect("accepted"), two.expect("accepted"));
    assert_eq!(one.execution_id, two.execution_id);
    get(&mut caller, &one.execution_id, 30_000).await;
    let again = submit_as(&mut caller, command, "execution-key")
        .await
        .expect("accepted");
    assert_eq!(again.execution_id, one.execution_id);
    let runs = client::run(&mut caller, client::command(&ids[0], ["cat", "runs"])).await;
    assert_eq!(runs.stdout, b"once\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_gateway_takes_no_new_work_and_lets_the_old_end() {
    let mut gateway = TestGateway::builder()
        .config("[timeouts]\ndrain = \"60s\"")
        .start();
    let mut caller = client::connect(&gateway).await;
    let sandbox = client::create(&mut caller, SandboxRequest::default()).await;
    let command = client::command(
        &sandbox,
        ["sh", "-c", "echo on; read line; echo $line; exit 5"],
    );
    let mut running = gateway
        .cli([
            "exec",
            "-i",
            &sandbox,
            "sh",
            "-c",
            "echo on; read line; echo $line; exit 5",
        ])
        .spawn();
    running.expect("on\n");
    gateway.signal(rustix::process::Signal::TERM);
    let refused = wait::until_async("new work is refused", || {
        let (mut caller, command) = (caller.clone(), command.clone());
        async move { submit(&mut caller, command).await.err() }
    })
    .await;
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::Unavailable, "DRAINING".into())
    );
    let info = caller
        .get_info(client::request(GetInfoRequest {}))
        .await
        .expect("an answer");
    assert!(info.into_inner().draining);
    // What runs is served to its end.
    running.type_in("to the end\n");
    assert_eq!(running.wait().exited(5), "on\nto the end");
    assert_eq!(gateway.wait_end(), cofferdam_tests::tree::End::Code(0));
    drop(caller);
    gateway.restart();
    assert_eq!(
        gateway.ok(["exec", &sandbox, "echo", "still there"]),
        "still there"
    );
}
