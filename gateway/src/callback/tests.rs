//! The callback socket, against peers of every kind.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cofferdam_proto::hello::Frame;
use cofferdam_proto::supervisor::v1 as wire;
use futures_util::future::BoxFuture;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::reject::Reason;

use self::supervisor::Scripted;
use super::*;
use crate::model::SandboxId;

mod hostile;
mod liveness;
mod real;
mod supervisor;

const SANDBOX: &str = "sbx-test";

/// Remembers what was stored, or refuses to.
#[derive(Default)]
struct Memory {
    stored: Mutex<Vec<(Token, Token)>>,
    broken: bool,
}

impl TokenStore for Memory {
    fn rotate<'a>(
        &'a self,
        _: &'a SandboxId,
        current: &'a Token,
        next: &'a Token,
    ) -> BoxFuture<'a, Result<(), TokenStoreError>> {
        Box::pin(async move {
            if self.broken {
                return Err("disk full".into());
            }
            self.stored
                .lock()
                .unwrap()
                .push((current.clone(), next.clone()));
            Ok(())
        })
    }
}

impl Memory {
    fn last(&self) -> Option<(Token, Token)> {
        self.stored.lock().unwrap().last().cloned()
    }
}

pub(crate) struct Setup {
    runtime: tempfile::TempDir,
    memory: Arc<Memory>,
    token: Token,
    callback: Callback,
}

impl Setup {
    async fn new() -> Self {
        Self::with(Memory::default()).await
    }

    async fn with(memory: Memory) -> Self {
        let runtime = tempfile::tempdir().unwrap();
        let memory = Arc::new(memory);
        let token = Token([1; 32]);
        let callback = open(runtime.path().into(), &memory, token.clone(), None).await;
        Self {
            runtime,
            memory,
            token,
            callback,
        }
    }

    async fn connect(&self) -> Scripted {
        Scripted::connect(self.callback.directory()).await
    }

    async fn session(&self) -> Session {
        within(async {
            let mut sessions = self.callback.session();
            let session = sessions.wait_for(Option::is_some).await.unwrap();
            session.clone().unwrap()
        })
        .await
    }
}

/// A session whose supervisor serves, and answers nothing but pings. It lasts as long as the setup.
pub(crate) async fn answering_only_pings() -> (Setup, Session) {
    let setup = Setup::new().await;
    let mut supervisor = setup.connect().await;
    let next = supervisor.prove(SANDBOX, &setup.token).await;
    supervisor.send_ready(&next).await;
    tokio::spawn(supervisor.answer_if(|path| path.ends_with("/Ping"), std::future::pending()));
    let session = setup.session().await;
    (setup, session)
}

async fn open(
    runtime_dir: PathBuf,
    memory: &Arc<Memory>,
    current: Token,
    next: Option<Token>,
) -> Callback {
    let options = CallbackOptions {
        runtime_dir,
        sandbox_id: SandboxId::parse(SANDBOX).unwrap(),
        gateway_id: "gw-test".to_owned(),
        tokens: memory.clone(),
        initial: Tokens { current, next },
        tasks: TaskTracker::new(),
        cancel: CancellationToken::new(),
    };
    Callback::open(options).await.unwrap()
}

/// Fails instead of hanging.
async fn within<T>(future: impl Future<Output = T>) -> T {
    let result = timeout(Duration::from_secs(20), future).await;
    result.expect("nothing happened for 20 s")
}

#[tokio::test]
async fn a_supervisor_with_the_token_becomes_the_session() {
    let setup = Setup::new().await;
    let supervisor = setup.connect().await;
    let (next, _serving) = within(supervisor.serve(SANDBOX, &setup.token)).await;
    let session = setup.session().await;
    assert_eq!(session.boot_id(), [7; 16]);
    assert_eq!(session.supervisor_version(), "1.2.3");
    assert_eq!((session.protocol(), session.processes()), (1, 2));
    let ping = within(session.client().ping(wire::PingRequest {}))
        .await
        .unwrap();
    assert_eq!(ping.into_inner().uptime_ms, 1);
    assert_eq!(
        setup.memory.stored.lock().unwrap()[0],
        (setup.token.clone(), next)
    );
}

#[tokio::test]
async fn a_confirmed_token_is_the_only_one() {
    let setup = Setup::new().await;
    let supervisor = setup.connect().await;
    let (next, serving) = within(supervisor.serve(SANDBOX, &setup.token)).await;
    setup.session().await;
    within(async {
        while setup.memory.last() != Some((next.clone(), next.clone())) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    serving.abort();
    let mut old = setup.connect().await;
    old.hear_hello().await;
    old.send_reply(old.reply(SANDBOX, &setup.token)).await;
    assert_eq!(rejection(&mut old).await, Reason::BadToken);
    let new = setup.connect().await;
    within(new.serve(SANDBOX, &next)).await;
}

#[tokio::test]
async fn a_supervisor_that_lost_the_welcome_is_offered_the_same_token_again() {
    let setup = Setup::new().await;
    let mut first = setup.connect().await;
    let offered = within(first.prove(SANDBOX, &setup.token)).await;
    drop(first);
    let mut second = setup.connect().await;
    assert_eq!(within(second.prove(SANDBOX, &setup.token)).await, offered);
    assert_eq!(setup.memory.stored.lock().unwrap().len(), 1);
    drop(second);
    // And one that took it before the gateway could know is accepted with it.
    let third = setup.connect().await;
    let (next, _serving) = within(third.serve(SANDBOX, &offered)).await;
    assert_ne!(next, offered);
    setup.session().await;
}

#[tokio::test]
async fn after_a_crash_between_store_and_welcome_either_token_is_accepted() {
    for which in 0..2 {
        let (memory, runtime) = (Arc::new(Memory::default()), tempfile::tempdir().unwrap());
        let (current, next) = (Token([1; 32]), Token([2; 32]));
        let held = [current.clone(), next.clone()][which].clone();
        let callback = open(runtime.path().into(), &memory, current, Some(next)).await;
        let supervisor = Scripted::connect(callback.directory()).await;
        let (_, _serving) = within(supervisor.serve(SANDBOX, &held)).await;
        within(callback.session().wait_for(Option::is_some))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn no_welcome_goes_out_before_the_next_token_is_stored() {
    let setup = Setup::with(Memory {
        broken: true,
        ..Memory::default()
    })
    .await;
    let mut supervisor = setup.connect().await;
    supervisor.hear_hello().await;
    supervisor
        .send_reply(supervisor.reply(SANDBOX, &setup.token))
        .await;
    while let Some(frame) = within(supervisor.frame()).await {
        assert!(matches!(frame, Frame::Hello(_)), "{frame:?}");
    }
}

#[tokio::test]
async fn wrong_token_wrong_sandbox_and_wrong_protocol_are_told_apart() {
    let setup = Setup::new().await;
    let reasons = [
        (SANDBOX, [9; 32], 1, Reason::BadToken),
        ("sbx-other", [1; 32], 1, Reason::WrongSandbox),
        (SANDBOX, [1; 32], 2, Reason::NoCommonProtocol),
    ];
    for (sandbox, token, protocol, expected) in reasons {
        let mut supervisor = setup.connect().await;
        supervisor.hear_hello().await;
        let mut reply = supervisor.reply(sandbox, &Token(token));
        (reply.protocol_min, reply.protocol_max) = (protocol, protocol);
        supervisor.send_reply(reply).await;
        assert_eq!(rejection(&mut supervisor).await, expected);
    }
    assert!(setup.callback.session().borrow().is_none());
    assert!(setup.memory.last().is_none());
}

async fn rejection(supervisor: &mut Scripted) -> Reason {
    loop {
        match within(supervisor.frame()).await.expect("a rejection") {
            Frame::Reject(reject) => return reject.reason(),
            Frame::Hello(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_hello_is_found_behind_stale_bytes_and_repeated_until_answered() {
    let setup = Setup::new().await;
    let mut supervisor = setup.connect().await;
    let first = supervisor.hear_hello().await;
    let second = supervisor.hear_hello().await;
    assert_eq!(first.nonce, second.nonce);
    // The end of an old session, with a frame that answers an old Hello.
    let mut old = supervisor.reply(SANDBOX, &setup.token);
    old.nonce = vec![3; 32].into();
    supervisor.send(&[0xaa; 20_000]).await;
    supervisor.send_reply(old).await;
    supervisor.send(b"\x00CDHELO1\x02\x00\x00").await;
    let reply = supervisor.reply(SANDBOX, &setup.token);
    supervisor.send_reply(reply.clone()).await;
    supervisor.send_reply(reply).await;
    let next = within(supervisor.hear_welcome(&setup.token)).await;
    supervisor.send_ready(&next).await;
    let _serving = tokio::spawn(supervisor.answer_pings());
    setup.session().await;
}

#[tokio::test]
async fn a_newer_session_takes_the_place_of_the_older_one() {
    let setup = Setup::new().await;
    let (next, _old) = setup.connect().await.serve(SANDBOX, &setup.token).await;
    let first = setup.session().await;
    let (_, _new) = within(setup.connect().await.serve(SANDBOX, &next)).await;
    within(first.closed()).await;
    let mut sessions = setup.callback.session();
    let newer = |session: &Option<Session>| session.as_ref().is_some_and(|s| s.id() != first.id());
    within(sessions.wait_for(newer)).await.unwrap();
    assert!(first.client().ping(wire::PingRequest {}).await.is_err());
}

#[tokio::test]
async fn a_session_that_ends_is_gone_at_once() {
    let setup = Setup::new().await;
    let (_, serving) = setup.connect().await.serve(SANDBOX, &setup.token).await;
    let session = setup.session().await;
    serving.abort();
    within(session.closed()).await;
    within(setup.callback.session().wait_for(Option::is_none))
        .await
        .unwrap();
    assert!(session.is_closed());
    assert!(
        session.end_reason().contains("closed"),
        "{}",
        session.end_reason()
    );
}

#[tokio::test]
async fn a_new_boot_may_come_with_a_new_token_while_the_old_one_still_counts() {
    let setup = Setup::new().await;
    setup.callback.set_token(Token([5; 32]));
    let (_, _serving) = within(setup.connect().await.serve(SANDBOX, &setup.token)).await;
    drop(setup.session().await);
    let setup = Setup::new().await;
    setup.callback.set_token(Token([5; 32]));
    let (_, _serving) = within(setup.connect().await.serve(SANDBOX, &Token([5; 32]))).await;
    drop(setup.session().await);
}

#[tokio::test]
async fn the_directory_is_the_same_one_after_a_restart_of_the_gateway() {
    use std::os::unix::fs::MetadataExt;
    let setup = Setup::new().await;
    let directory = setup.callback.directory().to_owned();
    let inode = std::fs::metadata(&directory).unwrap().ino();
    let (next, _serving) = setup.connect().await.serve(SANDBOX, &setup.token).await;
    let session = setup.session().await;
    drop(setup.callback);
    within(session.closed()).await;

    let runtime = setup.runtime.path().to_owned();
    let callback = open(runtime, &setup.memory, next.clone(), None).await;
    assert_eq!(std::fs::metadata(&directory).unwrap().ino(), inode);
    let supervisor = Scripted::connect(&directory).await;
    let (_, _serving) = within(supervisor.serve(SANDBOX, &next)).await;
    within(callback.session().wait_for(Option::is_some))
        .await
        .unwrap();
    callback.close().await;
    assert!(!directory.exists());
}

#[tokio::test]
async fn directories_of_sandboxes_that_are_gone_are_removed_and_others_kept() {
    let setup = Setup::new().await;
    let parent = setup.runtime.path().join("callback");
    std::fs::create_dir(parent.join("sbx-gone")).unwrap();
    std::fs::write(parent.join("sbx-gone/gateway.sock"), "").unwrap();
    std::fs::create_dir(parent.join("Not An Id")).unwrap();
    let alive = [SandboxId::parse(SANDBOX).unwrap()].into();
    remove_stale(setup.runtime.path(), &alive).unwrap();
    assert!(setup.callback.directory().exists());
    assert!(!parent.join("sbx-gone").exists());
    assert!(parent.join("Not An Id").exists());
}

#[tokio::test]
async fn a_runtime_directory_with_a_long_path_is_fine() {
    let runtime = tempfile::tempdir().unwrap();
    let deep = runtime.path().join("d".repeat(150));
    std::fs::create_dir(&deep).unwrap();
    let callback = open(deep, &Arc::default(), Token([1; 32]), None).await;
    let path = callback.directory().join("gateway.sock");
    crate::transport::connect(&path).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_is_a_link_to_elsewhere_is_refused() {
    let runtime = tempfile::tempdir().unwrap();
    let parent = runtime.path().join("callback");
    std::fs::create_dir(&parent).unwrap();
    std::os::unix::fs::symlink("/tmp", parent.join(SANDBOX)).unwrap();
    let error = Directory::open(runtime.path(), &SandboxId::parse(SANDBOX).unwrap()).unwrap_err();
    assert!(matches!(error, CallbackError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn modes_let_mapped_users_connect_and_nobody_else_on_the_host() {
    use std::os::unix::fs::PermissionsExt;
    let setup = Setup::new().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&setup.runtime.path().join("callback")), 0o700);
    assert_eq!(mode(setup.callback.directory()), 0o755);
    assert_eq!(
        mode(&setup.callback.directory().join("gateway.sock")),
        0o666
    );
}

#[tokio::test]
async fn five_hundred_callbacks_are_one_task_each() {
    let runtime = tempfile::tempdir().unwrap();
    let tasks = TaskTracker::new();
    let mut callbacks = Vec::new();
    for number in 0..500 {
        let options = CallbackOptions {
            runtime_dir: runtime.path().to_owned(),
            sandbox_id: SandboxId::parse(&format!("sbx-{number}")).unwrap(),
            gateway_id: "gw-test".to_owned(),
            tokens: Arc::new(Memory::default()),
            initial: Tokens {
                current: Token([1; 32]),
                next: None,
            },
            tasks: tasks.clone(),
            cancel: CancellationToken::new(),
        };
        callbacks.push(Callback::open(options).await.unwrap());
    }
    assert_eq!(tasks.len(), 500);
    drop(callbacks);
    tasks.close();
    within(tasks.wait()).await;
}

/// A stream that nobody will answer on, kept open.
async fn silent(callback: &Callback) -> UnixStream {
    UnixStream::connect(callback.directory().join("gateway.sock"))
        .await
        .unwrap()
}
