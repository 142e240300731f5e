//! The same with the real supervisor, when `cargo xtask test` says where its binary is.

use std::process::{Child, Command, Stdio};

use super::*;

/// A supervisor as an ordinary process of this user.
struct Supervisor(Child);

impl Supervisor {
    #[allow(clippy::print_stderr, reason = "a skip prints its reason")]
    fn start(setup: &Setup) -> Option<Self> {
        let Some(binaries) = std::env::var_os("COFFERDAM_LIBEXEC") else {
            eprintln!("skipped: COFFERDAM_LIBEXEC does not say where the supervisor is");
            return None;
        };
        let program = Path::new(&binaries).join("cofferdam-supervisor");
        let workspace = setup.runtime.path().join("workspace");
        std::fs::create_dir(&workspace).unwrap();
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        let bootstrap = serde_json::json!({
            "sandbox_id": SANDBOX,
            "token": hex::encode(setup.token.0),
            "expire_time_unix_ms": 0,
            "workload": {"uid": uid.as_raw(), "gid": gid.as_raw(), "home": "/", "user": "test"},
            "workspace": workspace,
            "oom_score_adj": 500,
        });
        let config = setup.runtime.path().join("bootstrap.json");
        std::fs::write(&config, bootstrap.to_string()).unwrap();
        let child = Command::new("sh")
            .args([
                "-c",
                "exec \"$0\" --callback \"dir:$1\" --config-fd 3 3<\"$2\"",
            ])
            .arg(program)
            .arg(setup.callback.directory())
            .arg(config)
            .stdin(Stdio::null())
            .spawn();
        Some(Self(child.unwrap()))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_real_supervisor_holds_a_session_over_restarts_of_the_gateway() {
    let setup = Setup::new().await;
    let Some(_supervisor) = Supervisor::start(&setup) else {
        return;
    };
    let first = setup.session().await;
    let ping = within(first.client().ping(wire::PingRequest {}))
        .await
        .unwrap();
    assert_eq!(ping.into_inner().boot_id.as_ref(), first.boot_id());
    assert!(!first.supervisor_version().is_empty());
    // Each gateway knows only what was stored by the one before.
    let (runtime, memory) = (setup.runtime.path().to_owned(), setup.memory.clone());
    let mut callback = setup.callback;
    for _ in 0..3 {
        drop(callback);
        let (current, next) = memory.last().unwrap();
        callback = open(runtime.clone(), &memory, current, Some(next)).await;
        let mut sessions = callback.session();
        let again = within(sessions.wait_for(Option::is_some)).await.unwrap();
        let again = again.clone().unwrap();
        assert_eq!(again.boot_id(), first.boot_id());
        assert!(again.id() > first.id());
    }
}

#[tokio::test]
async fn the_real_supervisor_notices_that_its_session_was_cut_and_comes_back() {
    let setup = Setup::new().await;
    let Some(_supervisor) = Supervisor::start(&setup) else {
        return;
    };
    let first = setup.session().await;
    first.cut();
    let newer = |session: &Option<Session>| session.as_ref().is_some_and(|s| s.id() != first.id());
    within(setup.callback.session().wait_for(newer))
        .await
        .unwrap();
}
