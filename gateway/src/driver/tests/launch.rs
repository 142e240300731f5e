//! Built-in drivers: real processes.

use std::os::fd::FromRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;

use super::fake::{FakeDriver, Script, sandbox};
use super::*;

/// Set in the process that is to be the driver.
const CHILD: &str = "COFFERDAM_TEST_DRIVER";

/// Not a test in this process: in a child, serves a fake driver on the inherited listener until the
/// gateway is gone.
#[tokio::test]
#[allow(unsafe_code, reason = "an inherited descriptor")]
async fn child_driver() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    assert_eq!(std::env::var("LISTEN_FDS").unwrap(), "1");
    let fd = std::env::var("COFFERDAM_LISTEN_FD")
        .unwrap()
        .parse()
        .unwrap();
    // SAFETY: the gateway passed a listener under this number, and nobody else here uses it.
    let listener = unsafe { StdListener::from_raw_fd(fd) };
    listener.set_nonblocking(true).unwrap();
    let script = Script::new();
    script.handshake().incarnation = format!("pid-{:08}", std::process::id());
    script
        .sandboxes
        .lock()
        .unwrap()
        .insert("sbx-1".to_owned(), sandbox("sbx-1"));
    let _driver = FakeDriver::serve_on(&script, listener.try_into().unwrap());
    let _ = tokio::io::stdin().read(&mut [0; 1]).await;
}

/// A program of one file.
struct Program {
    directory: tempfile::TempDir,
}

impl Program {
    fn new(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = Self { directory };
        std::fs::write(program.path(), format!("#!/bin/sh\n{script}\n")).unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(program.path(), executable).unwrap();
        program
    }

    /// This test binary, as the driver.
    fn driver() -> Self {
        let tests = std::env::current_exe().unwrap();
        let name = "driver::tests::launch::child_driver";
        Self::new(&format!(
            "{CHILD}=1 exec {} --exact {name} --nocapture",
            tests.display()
        ))
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("driver")
    }

    fn spec(&self) -> Vec<DriverSpec> {
        vec![DriverSpec {
            name: DriverName::parse("built-in").unwrap(),
            source: DriverSource::BuiltIn {
                program: self.path(),
            },
            settings: serde_json::Map::new(),
        }]
    }
}

fn signal(view: &DriverView, signal: Signal) {
    let pid = Pid::from_raw(view.pid.unwrap() as i32).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Stops the process, and waits until it stands.
async fn stop(view: &DriverView) {
    signal(view, Signal::STOP);
    let stat = format!("/proc/{}/stat", view.pid.unwrap());
    within(async {
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_built_in_driver_is_started_and_answers() {
    let program = Program::driver();
    let mut gateway = Gateway::start(eager(), program.spec());
    let driver = gateway.driver();
    let view = connected(&driver).await;
    assert!(view.built_in && view.pid.is_some());
    assert_eq!(view.path, Some(program.path()));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&view.socket), 0o600);
    assert_eq!(mode(view.socket.parent().unwrap()), 0o700);
    gateway.synced().await;
    assert!(driver.get(&sandbox_id("sbx-1")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_built_in_driver_that_is_killed_is_started_again_and_calls_wait_for_it() {
    let program = Program::driver();
    let mut gateway = Gateway::start(eager(), program.spec());
    let driver = gateway.driver();
    let first = gateway.synced().await;
    let before = connected(&driver).await;
    signal(&before, Signal::KILL);
    // At any moment: before the gateway has noticed, and after.
    for _ in 0..20 {
        assert!(
            within(driver.get(&sandbox_id("sbx-1")))
                .await
                .unwrap()
                .is_some()
        );
    }
    view(&driver, |view| view.connects == 2).await;
    assert_ne!(gateway.synced().await, first);
    assert_ne!(driver.view().pid, before.pid);
}

#[tokio::test]
async fn a_stopped_driver_is_noticed_while_calls_time_out() {
    let program = Program::driver();
    let gateway = Gateway::start(impatient(), program.spec());
    let driver = gateway.driver();
    let before = connected(&driver).await;
    stop(&before).await;
    let error = within(driver.get(&sandbox_id("sbx-1"))).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let stopped = view(&driver, |view| view.error.contains("does not answer")).await;
    assert_eq!(stopped.state, DriverState::Connecting);
    assert!(!stopped.fix.is_empty(), "{stopped:?}");
    signal(&before, Signal::CONT);
    connected(&driver).await;
}

#[tokio::test]
async fn a_built_in_driver_that_never_answers_again_is_killed_and_started_anew() {
    let program = Program::driver();
    let gateway = Gateway::start(impatient(), program.spec());
    let driver = gateway.driver();
    let before = connected(&driver).await;
    stop(&before).await;
    view(&driver, |view| view.pid.is_some() && view.pid != before.pid).await;
    connected(&driver).await;
}

/// Its process lives, and nobody finds it any more.
#[tokio::test]
async fn a_built_in_driver_whose_socket_was_removed_has_a_new_one() {
    let program = Program::driver();
    let gateway = Gateway::start(impatient(), program.spec());
    let driver = gateway.driver();
    for round in 0..2 {
        let before = connected(&driver).await;
        std::fs::remove_file(&before.socket).unwrap();
        if round == 1 {
            std::fs::write(&before.socket, "not a socket").unwrap();
        }
        // The connection that there is needs no file: it has to be lost first.
        stop(&before).await;
        view(&driver, |view| view.pid.is_some() && view.pid != before.pid).await;
        let after = connected(&driver).await;
        assert!(after.socket.exists());
        assert!(driver.get(&sandbox_id("sbx-1")).await.unwrap().is_some());
    }
    let before = connected(&driver).await;
    std::fs::remove_file(&before.socket).unwrap();
    signal(&before, Signal::KILL);
    view(&driver, |view| view.connects > before.connects).await;
    assert!(driver.get(&sandbox_id("sbx-1")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_driver_that_ends_at_once_is_quoted() {
    let program = Program::new("echo hello; echo 'no engine on this host' >&2; exit 3");
    let gateway = Gateway::start(eager(), program.spec());
    let view = view(&gateway.driver(), |view| !view.error.is_empty()).await;
    assert!(view.error.contains("exit status: 3"), "{view:?}");
    assert!(view.error.contains("no engine on this host"), "{view:?}");
    assert_eq!((view.state, view.pid), (DriverState::Connecting, None));
}

#[tokio::test]
async fn a_program_that_is_not_there_says_so() {
    let program = Program::new("");
    std::fs::remove_file(program.path()).unwrap();
    let gateway = Gateway::start(eager(), program.spec());
    let view = view(&gateway.driver(), |view| !view.error.is_empty()).await;
    assert!(
        view.error.contains("cannot start") && view.fix.contains("install"),
        "{view:?}"
    );
    let error = Timing {
        reconnect_wait: Duration::from_millis(100),
        ..eager()
    };
    let gateway = Gateway::start(error, program.spec());
    let error = within(gateway.driver().list()).await.unwrap_err();
    assert!(error.to_string().contains("cannot start"), "{error}");
}

#[tokio::test]
async fn the_process_ends_with_the_gateway_politely_or_not() {
    for script in [
        "exec sleep 600",
        "trap '' TERM; while :; do sleep 600; done",
    ] {
        let program = Program::new(script);
        let timing = Timing {
            stop_grace: Duration::from_millis(300),
            ..eager()
        };
        let gateway = Gateway::start(timing, program.spec());
        let running = view(&gateway.driver(), |view| view.pid.is_some()).await;
        gateway.cancel.cancel();
        gateway.tasks.close();
        within(gateway.tasks.wait()).await;
        let pid = Pid::from_raw(running.pid.unwrap() as i32).unwrap();
        assert!(rustix::process::test_kill_process(pid).is_err());
        assert!(!running.socket.exists());
    }
}

#[tokio::test]
async fn a_driver_is_alone_in_its_process_group_and_has_only_the_variables_that_are_listed() {
    let program = Program::new(
        "env -0 > \"$0.env\"; ps -o pgid= -p $$ > \"$0.group\"; ls -l /proc/$$/fd/3 > \"$0.fd\"; \
         touch \"$0.done\"; exec sleep 600",
    );
    let gateway = Gateway::start(eager(), program.spec());
    let running = view(&gateway.driver(), |view| view.pid.is_some()).await;
    let file = |suffix: &str| program.path().with_extension(suffix);
    within(async {
        while !file("done").exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let env = std::fs::read_to_string(file("env")).unwrap();
    // Whatever this test's own process has: a test runner sets many.
    let own = std::env::vars_os();
    let mut expected: Vec<String> = environment::passed_on(&program.path(), own)
        .into_iter()
        .map(|(name, _)| name.into_string().unwrap())
        .collect();
    expected.extend(["LISTEN_FDS", "COFFERDAM_LISTEN_FD"].map(str::to_owned));
    let of_the_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    let variables: Vec<_> = env.split_terminator('\0').collect();
    assert!(variables.contains(&"COFFERDAM_LISTEN_FD=3"), "{env:?}");
    for variable in variables {
        let name = variable.split('=').next().unwrap();
        let is_listed = expected.iter().any(|listed| listed == name);
        assert!(is_listed || of_the_shell.contains(&name), "{variable:?}");
    }
    let group = std::fs::read_to_string(file("group")).unwrap();
    assert_eq!(group.trim(), running.pid.unwrap().to_string());
    assert!(
        std::fs::read_to_string(file("fd"))
            .unwrap()
            .contains("socket:")
    );
}
