//! Who is behind a socket, and what becomes of the connection.

use std::os::unix::fs::PermissionsExt;

use cofferdam_proto::compute::v1 as wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::fake::{FakeDriver, Script, sandbox, socket_path};
use super::*;

#[tokio::test]
async fn a_driver_connects_and_introduces_itself() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let _driver = FakeDriver::serve(&script, &socket);
    let mut gateway = Gateway::with_socket(eager(), &socket);
    let view = connected(&gateway.driver()).await;
    assert!(view.is_usable() && view.trouble().is_none());
    assert_eq!(
        (view.driver_name.as_str(), view.version.as_str()),
        ("fake", "0.9.0")
    );
    assert_eq!((view.contract, view.connects, view.built_in), (1, 1, false));
    let first = gateway.event().await;
    assert!(
        matches!(&first, DriverEvent::Connected { incarnation, .. } if incarnation == "incarnation-1")
    );
    assert!(matches!(gateway.event().await, DriverEvent::Synced { .. }));
}

#[tokio::test]
async fn a_driver_that_starts_later_is_found() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let gateway = Gateway::with_socket(eager(), &socket);
    let driver = gateway.driver();
    within(gateway.registry.settled(Duration::from_secs(30))).await;
    let before = view(&driver, |view| view.is_settled()).await;
    assert!(before.error.contains("there is no socket"), "{before:?}");
    assert!(before.fix.contains("start the driver"));
    let _driver = FakeDriver::serve(&script, &socket);
    assert_eq!(connected(&driver).await.error, "");
}

#[tokio::test]
async fn a_socket_that_others_can_use_is_refused_until_mended() {
    let (script, (dir, socket)) = (Script::new(), socket_path());
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(dir.path(), mode(0o755)).unwrap();
    let _driver = FakeDriver::serve(&script, &socket);
    std::fs::set_permissions(&socket, mode(0o666)).unwrap();
    let gateway = Gateway::with_socket(eager(), &socket);
    let driver = gateway.driver();
    let view = refused(&driver).await;
    assert!(view.error.contains("mode 666"), "{view:?}");
    assert!(
        view.fix
            .contains(&format!("chmod 600 {}", socket.display()))
    );
    let error = driver.get(&sandbox_id("sbx-1")).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Unreachable);
    assert!(error.to_string().contains("mode 666") && !error.fix.is_empty());
    assert!(!error.is_ambiguous());
    assert_eq!(script.count("Handshake"), 0);
    std::fs::set_permissions(&socket, mode(0o600)).unwrap();
    connected(&driver).await;
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a skip prints its reason")]
async fn a_socket_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a socket to another user");
        return;
    }
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let _driver = FakeDriver::serve(&script, &socket);
    std::os::unix::fs::chown(&socket, Some(12345), None).unwrap();
    let gateway = Gateway::with_socket(eager(), &socket);
    let view = refused(&gateway.driver()).await;
    assert!(view.error.contains("uid 12345"), "{view:?}");
    assert_eq!(script.count("Handshake"), 0);
}

/// Not a test in this process: in a child, listens where it is told to until its stdin ends.
#[tokio::test]
async fn child_listener() {
    if let Some(path) = std::env::var_os(LISTENER) {
        let _listener = UnixListener::bind(path).unwrap();
        let _ = tokio::io::stdin().read(&mut [0; 1]).await;
    }
}

/// Set in the process that is to listen.
const LISTENER: &str = "COFFERDAM_TEST_LISTENER";

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a skip prints its reason")]
async fn what_listens_must_belong_to_the_sockets_owner() {
    let (dir, socket) = socket_path();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "driver::tests::reach::child_listener"])
        .env(LISTENER, &socket)
        .stdin(std::process::Stdio::piped())
        .uid(12345)
        .kill_on_drop(true);
    let Ok(_child) = command.spawn() else {
        eprintln!("skipped: cannot start a process of another user (not root?)");
        return;
    };
    within(async {
        while !socket.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    std::os::unix::fs::chown(&socket, Some(0), None).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).unwrap();
    let gateway = Gateway::with_socket(eager(), &socket);
    let view = refused(&gateway.driver()).await;
    assert!(view.error.contains("runs as uid 12345"), "{view:?}");
}

/// A listener that treats every connection in one way.
fn listen<F>(socket: &Path, treat: impl Fn(UnixStream) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(treat(stream));
        }
    });
}

async fn echo(stream: UnixStream) {
    let (mut read, mut write) = stream.into_split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

async fn http1(mut stream: UnixStream) {
    let mut buffer = [0; 1024];
    let _ = stream.read(&mut buffer).await;
    let _ = stream
        .write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        .await;
}

async fn garbage(mut stream: UnixStream) {
    let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    let _ = stream.read(&mut [0; 64]).await;
}

async fn silence(mut stream: UnixStream) {
    while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
}

async fn hang_up(_: UnixStream) {}

#[tokio::test]
async fn what_is_not_a_driver_is_refused_and_named() {
    for (what, expected) in [
        ("echo", "only repeats"),
        ("http1", "speaks HTTP/1"),
        ("garbage", "does not speak HTTP/2"),
    ] {
        let (_dir, socket) = socket_path();
        match what {
            "echo" => listen(&socket, echo),
            "http1" => listen(&socket, http1),
            _ => listen(&socket, garbage),
        }
        let gateway = Gateway::with_socket(eager(), &socket);
        let view = refused(&gateway.driver()).await;
        assert!(view.error.contains(expected), "{what}: {view:?}");
        assert!(
            view.fix.contains("cofferdam.compute.v1"),
            "{what}: {view:?}"
        );
    }
}

#[tokio::test]
async fn a_grpc_server_of_something_else_is_refused() {
    let (_dir, socket) = socket_path();
    let listener = UnixListener::bind(&socket).unwrap();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(health);
    tokio::spawn(server.serve_with_incoming(incoming));
    let gateway = Gateway::with_socket(eager(), &socket);
    let view = refused(&gateway.driver()).await;
    assert!(view.error.contains("not a driver"), "{view:?}");
}

#[tokio::test]
async fn who_says_nothing_or_hangs_up_is_tried_again() {
    for silent in [true, false] {
        let (_dir, socket) = socket_path();
        match silent {
            true => listen(&socket, silence),
            false => listen(&socket, hang_up),
        }
        let gateway = Gateway::with_socket(impatient(), &socket);
        let driver = gateway.driver();
        let view = view(&driver, |view| !view.error.is_empty()).await;
        assert_eq!(view.state, DriverState::Connecting, "{view:?}");
        assert_eq!(view.error.contains("does not answer"), silent, "{view:?}");
        assert!(!view.fix.is_empty(), "{view:?}");
        let error = within(driver.list()).await.unwrap_err();
        assert_eq!(error.kind, CallErrorKind::Unreachable);
    }
}

#[tokio::test]
async fn no_common_contract_names_both_ranges_and_what_to_install() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    {
        let mut handshake = script.handshake();
        handshake.contract = Some(wire::VersionRange { min: 7, max: 9 });
        handshake.chosen = 7;
    }
    let _driver = FakeDriver::serve(&script, &socket);
    let gateway = Gateway::with_socket(eager(), &socket);
    let view = refused(&gateway.driver()).await;
    assert!(
        view.error.contains("7 to 9") && view.error.contains("1 to 1"),
        "{view:?}"
    );
    assert_eq!(view.fix, "install a newer gateway or an older driver");
    assert_eq!(script.count("Configure"), 0);
}

#[tokio::test]
async fn a_driver_that_refuses_the_contract_is_quoted() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let mut details = ErrorDetails::new();
    details
        .add_precondition_failure_violation("CONTRACT_VERSION", "contract", "")
        .add_help_link("install gateway 3", "");
    let message = "this driver speaks 2 to 3, the gateway 1 to 1";
    for _ in 0..1000 {
        let code = Code::FailedPrecondition;
        script.fail(
            "Handshake",
            Status::with_error_details(code, message, details.clone()),
        );
    }
    let _driver = FakeDriver::serve(&script, &socket);
    let gateway = Gateway::with_socket(eager(), &socket);
    let view = refused(&gateway.driver()).await;
    assert!(view.error.contains(message), "{view:?}");
    assert_eq!(view.fix, "install gateway 3");
}

#[tokio::test]
async fn a_handshake_that_says_too_little_is_refused() {
    let breaks: [fn(&mut wire::HandshakeResponse); 4] = [
        |handshake| handshake.capabilities = None,
        |handshake| handshake.incarnation = "short".to_owned(),
        |handshake| handshake.settings_schema = "{".to_owned(),
        |handshake| handshake.contract = None,
    ];
    for change in breaks {
        let (script, (_dir, socket)) = (Script::new(), socket_path());
        change(&mut script.handshake());
        let _driver = FakeDriver::serve(&script, &socket);
        let gateway = Gateway::with_socket(eager(), &socket);
        refused(&gateway.driver()).await;
    }
}

#[tokio::test]
async fn a_driver_that_hangs_while_it_is_reached_does_not_answer() {
    for rpc in ["Handshake", "Configure"] {
        let (script, (_dir, socket)) = (Script::new(), socket_path());
        script.hang(rpc);
        let _driver = FakeDriver::serve(&script, &socket);
        let gateway = Gateway::with_socket(impatient(), &socket);
        let driver = gateway.driver();
        let view = view(&driver, |view| view.error.contains(rpc)).await;
        let expected = format!("{}: the driver does not answer {rpc}", socket.display());
        assert_eq!(view.error, expected);
        script.answer_again(rpc);
        connected(&driver).await;
    }
}

#[tokio::test]
async fn a_driver_that_says_nothing_about_its_platform_is_connected_but_not_usable() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    script.hang("Fingerprint");
    let _driver = FakeDriver::serve(&script, &socket);
    let gateway = Gateway::with_socket(impatient(), &socket);
    let driver = gateway.driver();
    let first = connected(&driver).await;
    assert!(!first.is_usable());
    assert!(
        first
            .trouble()
            .unwrap()
            .0
            .contains("does not answer Fingerprint")
    );
    script.answer_again("Fingerprint");
    view(&driver, DriverView::is_usable).await;
}

#[tokio::test]
async fn every_change_of_health_is_seen() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let _driver = FakeDriver::serve(&script, &socket);
    let gateway = Gateway::with_socket(eager(), &socket);
    let driver = gateway.driver();
    view(&driver, DriverView::is_usable).await;
    script.fingerprint.send_modify(|fingerprint| {
        fingerprint.health = wire::Health::Unhealthy as i32;
        fingerprint.reason = "no engine".to_owned();
        fingerprint.fix = "systemctl start engine".to_owned();
    });
    let view = view(&driver, |view| !view.is_usable()).await;
    let (why, fix) = view.trouble().unwrap();
    assert_eq!(
        (why.as_str(), fix.as_str()),
        ("no engine", "systemctl start engine")
    );
}

#[tokio::test]
async fn a_crash_and_a_restart_are_a_new_incarnation() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let driver = FakeDriver::serve(&script, &socket);
    let mut gateway = Gateway::with_socket(eager(), &socket);
    assert_eq!(gateway.synced().await, "incarnation-1");
    drop(driver);
    let event = gateway.event().await;
    assert!(
        matches!(event, DriverEvent::Disconnected { .. }),
        "{event:?}"
    );
    script.handshake().incarnation = "incarnation-2".to_owned();
    let _driver = FakeDriver::serve(&script, &socket);
    let event = gateway.event().await;
    assert!(
        matches!(&event, DriverEvent::Connected { incarnation, .. } if incarnation == "incarnation-2"),
        "{event:?}"
    );
    assert_eq!(gateway.synced().await, "incarnation-2");
    assert_eq!(gateway.driver().view().connects, 2);
}

#[tokio::test]
async fn one_driver_that_hangs_does_not_delay_another() {
    let (stuck, (_dir1, stuck_socket)) = (Script::new(), socket_path());
    for rpc in [
        "GetSandbox",
        "WatchSandboxes",
        "Fingerprint",
        "CreateSandbox",
    ] {
        stuck.hang(rpc);
    }
    let (fine, (_dir2, fine_socket)) = (Script::new(), socket_path());
    fine.sandboxes
        .lock()
        .unwrap()
        .insert("sbx-1".to_owned(), sandbox("sbx-1"));
    let _stuck = FakeDriver::serve(&stuck, &stuck_socket);
    let _fine = FakeDriver::serve(&fine, &fine_socket);
    let specs = vec![
        socket_spec("stuck", &stuck_socket),
        socket_spec("fine", &fine_socket),
    ];
    let mut gateway = Gateway::start(eager(), specs);
    let stuck = gateway
        .registry
        .get(&DriverName::parse("stuck").unwrap())
        .unwrap();
    let fine = gateway
        .registry
        .get(&DriverName::parse("fine").unwrap())
        .unwrap();
    let calls: Vec<_> = (0..50)
        .map(|number| {
            let stuck = stuck.clone();
            tokio::spawn(async move { stuck.create(create(&format!("sbx-{number}"))).await })
        })
        .collect();
    gateway.synced().await;
    for _ in 0..100 {
        assert!(
            within(fine.get(&sandbox_id("sbx-1")))
                .await
                .unwrap()
                .is_some()
        );
    }
    assert!(calls.iter().all(|call| !call.is_finished()));
}

#[tokio::test]
async fn when_the_gateway_ends_nothing_of_a_driver_stays() {
    let (script, (_dir, socket)) = (Script::new(), socket_path());
    let _driver = FakeDriver::serve(&script, &socket);
    let mut gateway = Gateway::with_socket(eager(), &socket);
    gateway.synced().await;
    gateway.cancel.cancel();
    gateway.tasks.close();
    within(gateway.tasks.wait()).await;
}

#[tokio::test]
async fn sockets_under_long_paths_are_reached() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(150));
    std::fs::create_dir(&deep).unwrap();
    let socket = deep.join("driver.sock");
    let listener = crate::transport::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).unwrap();
    let _driver = FakeDriver::serve_on(&Script::new(), UnixListener::from_std(listener).unwrap());
    let gateway = Gateway::with_socket(eager(), &socket);
    connected(&gateway.driver()).await;
}
