//! Calls: deadlines, repetitions, and what may have happened all the same.

use futures_util::StreamExt;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use super::fake::{FakeDriver, Script, sandbox, socket_path};
use super::*;

struct Setup {
    script: std::sync::Arc<Script>,
    socket: PathBuf,
    fake: Option<FakeDriver>,
    gateway: Gateway,
    driver: Driver,
    _dir: tempfile::TempDir,
}

impl Setup {
    async fn new(timing: Timing) -> Self {
        let (script, (dir, socket)) = (Script::new(), socket_path());
        let fake = FakeDriver::serve(&script, &socket);
        let gateway = Gateway::with_socket(timing, &socket);
        let driver = gateway.driver();
        connected(&driver).await;
        Self {
            script,
            socket,
            fake: Some(fake),
            gateway,
            driver,
            _dir: dir,
        }
    }

    fn put(&self, id: &str) {
        self.script
            .sandboxes
            .lock()
            .unwrap()
            .insert(id.to_owned(), sandbox(id));
    }

    fn crash(&mut self) {
        self.fake = None;
    }

    fn restart(&mut self) {
        self.fake = Some(FakeDriver::serve(&self.script, &self.socket));
    }
}

#[tokio::test]
async fn every_call_works() {
    let setup = Setup::new(eager()).await;
    let driver = &setup.driver;
    let (id, operation) = (sandbox_id("sbx-1"), OperationId::generate());
    let (handle, observation) = driver.create(create("sbx-1")).await.unwrap();
    assert_eq!(
        (handle.version, handle.data.as_slice()),
        (3, &b"handle"[..])
    );
    assert_eq!(observation.sandbox_id, id);
    let start = StartCall {
        sandbox_id: id.clone(),
        token: Token([2; 32]),
        operation: operation.clone(),
    };
    driver.start(start).await.unwrap();
    driver
        .stop(&id, Duration::from_secs(1), &operation)
        .await
        .unwrap();
    assert!(driver.get(&id).await.unwrap().is_some());
    assert_eq!(driver.stats(&id).await.unwrap().pids, Some(4));
    let console = driver.console(&id, 0, false).await.unwrap();
    let chunks: Vec<_> = console.map(Result::unwrap).collect().await;
    assert_eq!(chunks.concat(), b"one\ntwo\n");
    let violations = driver.validate(&spec()).await.unwrap();
    assert_eq!(violations.len(), 2);
    driver.delete(&id, &operation).await.unwrap();
    assert!(driver.get(&id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_list_is_all_pages_and_complete_only_at_the_last() {
    let setup = Setup::new(eager()).await;
    assert!(setup.driver.list().await.unwrap().complete);
    for id in ["sbx-1", "sbx-2", "sbx-3"] {
        setup.put(id);
    }
    let inventory = setup.driver.list().await.unwrap();
    assert_eq!(inventory.observations.len(), 3);
    assert!(inventory.complete);
    assert_eq!(inventory.incarnation, "incarnation-1");
}

#[tokio::test]
async fn a_list_with_a_sandbox_that_cannot_be_read_is_not_complete() {
    let setup = Setup::new(eager()).await;
    setup.put("Not An Id");
    assert!(!setup.driver.list().await.unwrap().complete);
}

#[tokio::test]
async fn answers_of_recover_come_in_the_order_of_the_items() {
    let setup = Setup::new(eager()).await;
    setup.put("sbx-1");
    let item = |id: &str| RecoverItem {
        sandbox_id: sandbox_id(id),
        handle: None,
        callback_directory: PathBuf::from("/run/c"),
    };
    let items = ["sbx-gone", "sbx-1", "sbx-forgotten"].map(item).to_vec();
    let answers = setup.driver.recover(items).await.unwrap();
    let outcomes: Vec<_> = answers.iter().map(|answer| answer.outcome).collect();
    use RecoverOutcome::{Gone, Recovered, Unknown};
    assert_eq!(outcomes, [Gone, Recovered, Unknown]);
    // More than fit into one message.
    let many = (0..1200).map(|n| item(&format!("sbx-{n}"))).collect();
    assert_eq!(setup.driver.recover(many).await.unwrap().len(), 1200);
    assert_eq!(setup.script.count("RecoverSandboxes"), 4);
}

#[tokio::test]
async fn a_hang_in_any_call_is_a_timeout_that_may_have_happened() {
    let setup = Setup::new(Timing {
        calls: impatient().calls,
        ..eager()
    })
    .await;
    let driver = &setup.driver;
    setup.put("sbx-1");
    let (id, operation) = (sandbox_id("sbx-1"), OperationId::generate());
    for rpc in [
        "CreateSandbox",
        "StartSandbox",
        "StopSandbox",
        "DeleteSandbox",
        "GetSandbox",
        "ListSandboxes",
        "RecoverSandboxes",
        "ValidateSandbox",
        "ReadConsole",
        "SandboxStats",
    ] {
        setup.script.hang(rpc);
        let start = StartCall {
            sandbox_id: id.clone(),
            token: Token([2; 32]),
            operation: operation.clone(),
        };
        let item = RecoverItem {
            sandbox_id: id.clone(),
            handle: None,
            callback_directory: PathBuf::new(),
        };
        let call = async {
            match rpc {
                "CreateSandbox" => driver.create(create("sbx-1")).await.map(drop),
                "StartSandbox" => driver.start(start).await.map(drop),
                "StopSandbox" => driver.stop(&id, Duration::ZERO, &operation).await.map(drop),
                "DeleteSandbox" => driver.delete(&id, &operation).await,
                "GetSandbox" => driver.get(&id).await.map(drop),
                "ListSandboxes" => driver.list().await.map(drop),
                "RecoverSandboxes" => driver.recover(vec![item]).await.map(drop),
                "ValidateSandbox" => driver.validate(&spec()).await.map(drop),
                "ReadConsole" => driver.console(&id, 0, false).await.map(drop),
                _ => driver.stats(&id).await.map(drop),
            }
        };
        let error = within(call).await.unwrap_err();
        assert_eq!(error.kind, CallErrorKind::Timeout, "{rpc}: {error}");
        assert!(error.is_ambiguous() && error.is_transient());
        assert_eq!(driver.view().state, DriverState::Connected);
    }
}

#[tokio::test]
async fn a_call_waits_for_a_driver_that_restarts() {
    let mut setup = Setup::new(eager()).await;
    setup.crash();
    view(&setup.driver, |view| view.state == DriverState::Connecting).await;
    let driver = setup.driver.clone();
    let call = tokio::spawn(async move { driver.create(create("sbx-1")).await });
    setup.restart();
    within(call).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_whose_connection_is_cut_is_made_again() {
    let mut setup = Setup::new(eager()).await;
    setup.script.hang("CreateSandbox");
    let driver = setup.driver.clone();
    let call = tokio::spawn(async move { driver.create(create("sbx-1")).await });
    within(async {
        while setup.script.count("CreateSandbox") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    setup.crash();
    setup.script.answer_again("CreateSandbox");
    setup.restart();
    within(call).await.unwrap().unwrap();
    assert_eq!(setup.script.count("CreateSandbox"), 2);
}

#[tokio::test]
async fn a_call_to_a_driver_that_stays_away_says_what_is_wrong() {
    let mut setup = Setup::new(impatient()).await;
    setup.crash();
    let error = within(setup.driver.get(&sandbox_id("sbx-1")))
        .await
        .unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Unreachable);
    assert!(error.to_string().contains("nothing listens"), "{error}");
    assert!(error.fix.contains("start the driver"));
}

#[tokio::test]
async fn aborted_and_unavailable_are_repeated_and_others_are_not() {
    let setup = Setup::new(eager()).await;
    setup.put("sbx-1");
    let id = sandbox_id("sbx-1");
    for status in [Status::aborted("busy"), Status::unavailable("engine")] {
        let before = setup.script.count("GetSandbox");
        setup.script.fail("GetSandbox", status.clone());
        setup.script.fail("GetSandbox", status);
        assert!(within(setup.driver.get(&id)).await.unwrap().is_some());
        assert_eq!(setup.script.count("GetSandbox"), before + 3);
    }
    for (status, kind, ambiguous) in [
        (
            Status::unimplemented("no"),
            CallErrorKind::Unimplemented,
            false,
        ),
        (Status::internal("bug"), CallErrorKind::Internal, true),
        (
            Status::invalid_argument("bad"),
            CallErrorKind::Invalid,
            false,
        ),
        (
            Status::already_exists("other"),
            CallErrorKind::AlreadyExists,
            false,
        ),
        (
            Status::failed_precondition("ill"),
            CallErrorKind::Precondition,
            false,
        ),
        (
            Status::permission_denied("no"),
            CallErrorKind::Denied,
            false,
        ),
    ] {
        let before = setup.script.count("GetSandbox");
        setup.script.fail("GetSandbox", status);
        let error = within(setup.driver.get(&id)).await.unwrap_err();
        assert_eq!((error.kind, error.is_ambiguous()), (kind, ambiguous));
        assert_eq!(setup.script.count("GetSandbox"), before + 1);
    }
}

#[tokio::test]
async fn unavailable_for_too_long_is_told() {
    let setup = Setup::new(impatient()).await;
    for _ in 0..100 {
        setup.script.fail(
            "GetSandbox",
            Status::unavailable("the engine does not answer"),
        );
    }
    let error = within(setup.driver.get(&sandbox_id("sbx-1")))
        .await
        .unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Unavailable);
    assert!(error.to_string().contains("the engine does not answer"));
}

#[tokio::test]
async fn exhausted_says_when_to_come_again() {
    let setup = Setup::new(eager()).await;
    let retry = Some(Duration::from_secs(7));
    let details = ErrorDetails::with_retry_info(retry);
    let code = tonic::Code::ResourceExhausted;
    let status = Status::with_error_details(code, "no memory", details);
    setup.script.fail("CreateSandbox", status);
    let error = within(setup.driver.create(create("sbx-1")))
        .await
        .unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Exhausted { retry });
}

#[tokio::test]
async fn an_answer_about_another_sandbox_is_a_fault_of_the_driver() {
    let setup = Setup::new(eager()).await;
    let other = sandbox("sbx-2");
    setup
        .script
        .sandboxes
        .lock()
        .unwrap()
        .insert("sbx-1".to_owned(), other);
    let error = setup.driver.get(&sandbox_id("sbx-1")).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Internal);
    assert!(error.to_string().contains("sbx-2"), "{error}");
}

#[tokio::test]
async fn a_delete_ends_a_create_that_would_repeat_itself() {
    let setup = Setup::new(eager()).await;
    for _ in 0..1000 {
        setup
            .script
            .fail("CreateSandbox", Status::aborted("overtaken"));
    }
    let driver = setup.driver.clone();
    let call = tokio::spawn(async move { driver.create(create("sbx-1")).await });
    within(async {
        while setup.script.count("CreateSandbox") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (id, operation) = (sandbox_id("sbx-1"), OperationId::generate());
    within(setup.driver.delete(&id, &operation)).await.unwrap();
    let error = within(call).await.unwrap().unwrap_err();
    assert!(
        error.to_string().contains("a delete came in between"),
        "{error}"
    );
    assert!(setup.driver.get(&id).await.unwrap().is_none());
}

#[tokio::test]
async fn five_hundred_calls_at_once_all_come_through() {
    let mut setup = Setup::new(eager()).await;
    setup.gateway.synced().await;
    let calls = (0..500).map(|n| {
        let driver = setup.driver.clone();
        async move { driver.create(create(&format!("sbx-{n}"))).await }
    });
    let results = within(futures_util::future::join_all(calls)).await;
    assert!(results.iter().all(Result::is_ok));
}
