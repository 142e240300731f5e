//! Drivers that somebody else wrote and started.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use cofferdam_tests::driver::TestDriver;
use cofferdam_tests::engine::Engine;
use cofferdam_tests::gateway::Builder;
use cofferdam_tests::{TestGateway, User, binaries, need, wait};
use serde_json::Value;

/// Waits until the gateway has something to complain of in this driver.
#[track_caller]
fn complaint(gateway: &TestGateway, name: &str) -> Value {
    wait::until("the driver is complained of", || {
        let driver = gateway.driver(name);
        (driver["state"] != "CONNECTED" && !driver["error"].is_null()).then_some(driver)
    })
}

/// Socket and reason in the error; something to do in the fix.
#[track_caller]
fn is_clear(driver: &Value, socket: &Path, reason: &[&str]) {
    let error = driver["error"].as_str().unwrap_or_default();
    let fix = driver["fix"].as_str().unwrap_or_default();
    let whole = format!("{error} {fix}");
    assert!(
        whole.contains(&*socket.to_string_lossy()),
        "no socket: {driver:#}"
    );
    for word in reason {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
    assert!(!fix.is_empty(), "no fix: {error}");
}

/// The other driver does not notice.
#[track_caller]
fn process_works(gateway: &TestGateway) {
    assert_eq!(gateway.driver("process")["state"], "CONNECTED");
    assert_eq!(
        gateway.ok(["run", "--driver", "process", "echo", "fine"]),
        "fine"
    );
}

fn with_socket(mut make: impl FnMut(&Path)) -> (Builder, PathBuf) {
    let mut builder = TestGateway::builder();
    let dir = builder.home().private(User::Tester, "drivers-odd");
    let socket = dir.join("driver.sock");
    make(&socket);
    let builder = builder
        .config("default_driver = \"process\"")
        .driver_socket("odd", &socket);
    (builder, socket)
}

#[test]
fn a_driver_started_by_hand_runs_commands_beside_the_built_in_one() {
    let mut builder = TestGateway::builder();
    let demo = TestDriver::start(builder.home(), "demo");
    let gateway = builder
        .config("default_driver = \"process\"")
        .driver_socket("demo", demo.socket())
        .start();
    let listed = gateway.ok(["driver", "ls"]);
    for name in ["demo", "process"] {
        let row = listed.lines().find(|line| line.starts_with(name));
        assert!(row.is_some(), "{name} is not in\n{listed}");
    }
    let about = gateway.driver("demo");
    assert_eq!(
        (&about["state"], &about["built_in"]),
        (&"CONNECTED".into(), &false.into())
    );
    for driver in ["process", "demo"] {
        let script = "cat; echo err >&2; exit 7";
        let ran = gateway
            .cli(["run", "--driver", driver, "-i", "sh", "-c", script])
            .stdin("in")
            .run();
        assert_eq!(ran.exited(7), "in", "{driver}");
        assert_eq!(ran.stderr, "err\n", "{driver}");
        gateway.create(["--driver", driver, "--name", driver]);
        let ran = gateway.run(["exec", "--timeout", "1s", driver, "sleep", "600"]);
        ran.exited(124);
        assert_eq!(gateway.json(["inspect", driver])["driver"], driver);
    }
    process_works(&gateway);
}

#[test]
fn a_socket_on_the_command_line_alone_adds_to_the_built_in_driver() {
    let mut builder = TestGateway::builder()
        .user(User::Ordinary)
        .without_settings();
    let missing = builder.home().join("nobody.sock");
    let gateway = builder.driver_socket("demo", &missing).start();
    let names = gateway.ok(["driver", "ls", "-q"]);
    assert_eq!(names.lines().collect::<Vec<_>>(), ["demo", "process"]);
    assert_eq!(gateway.ok(["run", "echo", "hello"]), "hello");
}

#[test]
fn a_driver_that_comes_later_and_comes_back_is_found() {
    let mut builder = TestGateway::builder();
    let dir = builder.home().private(User::Tester, "drivers-late");
    let socket = dir.join("driver.sock");
    let gateway = builder
        .config("default_driver = \"process\"")
        .driver_socket("late", &socket)
        .start();
    is_clear(&complaint(&gateway, "late"), &socket, &["no socket"]);
    let ran = gateway.run(["run", "--driver", "late", "true"]);
    ran.exited(125);
    ran.says(["late"]);
    for _ in 0..2 {
        let driver = TestDriver::start(gateway.home(), "late");
        wait::until_true("it is connected", || {
            gateway.driver("late")["state"] == "CONNECTED"
        });
        assert_eq!(
            gateway.ok(["run", "--driver", "late", "echo", "came"]),
            "came"
        );
        // A driver that is gone removes nothing any more.
        wait::until_true("its sandbox is removed", || {
            gateway.ok(["ls", "--all", "--quiet"]).is_empty()
        });
        driver.kill();
        drop(driver);
        let _ = fs::remove_file(&socket);
        complaint(&gateway, "late");
    }
    process_works(&gateway);
}

#[test]
fn what_a_driver_that_is_away_has_to_do_is_noted_and_done_when_it_is_back() {
    let mut builder = TestGateway::builder();
    let first = TestDriver::start(builder.home(), "away");
    let gateway = builder
        .config("default_driver = \"process\"")
        .driver_socket("away", first.socket())
        .start();
    let id = gateway.create(["--driver", "away"]);
    let stopped = gateway.create(["--driver", "away"]);
    gateway.ok(["stop", &stopped]);
    first.kill();
    let ran = gateway.run(["start", &stopped]);
    ran.exited(125);
    ran.says(["driver \"away\" is away", "noted", &stopped]);
    let ran = gateway.run(["rm", "--force", &id]);
    ran.exited(125);
    ran.says(["driver \"away\" is away", "noted", &id]);
    assert_eq!(gateway.json(["inspect", &id])["state"], "DELETING");
    drop(first);
    let _second = TestDriver::start(gateway.home(), "away");
    wait::until_true("the driver is back", || {
        gateway.driver("away")["state"] == "CONNECTED"
    });
    gateway.ok(["rm", "--force", &stopped]);
    wait::until_true("it is removed", || {
        gateway.ok(["ls", "--all", "--quiet"]).is_empty()
    });
    process_works(&gateway);
}

#[test]
fn a_socket_of_another_user_is_refused() {
    need!(Engine::Root);
    let mut listener = None;
    let (builder, socket) = with_socket(|path| {
        listener = Some(UnixListener::bind(path).expect("bind"));
        User::Ordinary.own(path);
    });
    let gateway = builder.start();
    let uid = User::Ordinary.uid().to_string();
    let driver = complaint(&gateway, "odd");
    is_clear(&driver, &socket, &["belongs to uid", &uid]);
    assert_eq!(driver["state"], "REFUSED");
    process_works(&gateway);
}

#[test]
fn a_socket_that_everybody_may_use_is_refused() {
    let mut listener = None;
    let (builder, socket) = with_socket(|path| {
        listener = Some(UnixListener::bind(path).expect("bind"));
        binaries::open_to_all(path.parent().expect("a directory"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("chmod");
    });
    let gateway = builder.start();
    let driver = complaint(&gateway, "odd");
    is_clear(&driver, &socket, &["mode 666"]);
    assert!(
        driver["fix"].as_str().unwrap().contains("chmod 600"),
        "{driver:#}"
    );
    assert_eq!(driver["state"], "REFUSED");
    process_works(&gateway);
}

#[test]
fn a_file_that_is_no_socket_is_refused() {
    let (builder, socket) = with_socket(|path| fs::write(path, "not a socket").expect("write"));
    let gateway = builder.start();
    is_clear(&complaint(&gateway, "odd"), &socket, &["not a socket"]);
    process_works(&gateway);
}

#[test]
fn a_web_server_behind_the_socket_is_not_taken_for_a_driver() {
    let mut listener = None;
    let (builder, socket) = with_socket(|path| {
        listener = Some(UnixListener::bind(path).expect("bind"));
    });
    let listener = listener.expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let gateway = builder.start();
    let driver = complaint(&gateway, "odd");
    is_clear(&driver, &socket, &["not a driver"]);
    assert_eq!(driver["state"], "REFUSED");
    process_works(&gateway);
}

#[test]
fn a_gateway_behind_the_socket_is_not_taken_for_a_driver() {
    let other = TestGateway::builder()
        .config("[socket]\nmode = \"0600\"")
        .start();
    let gateway = TestGateway::builder()
        .config("default_driver = \"process\"")
        .driver_socket("odd", &other.socket())
        .start();
    is_clear(
        &complaint(&gateway, "odd"),
        &other.socket(),
        &["not a driver"],
    );
    process_works(&gateway);
}

#[test]
fn a_listener_that_says_nothing_stalls_nobody() {
    let mut listener = None;
    let (builder, socket) = with_socket(|path| {
        listener = Some(UnixListener::bind(path).expect("bind"));
    });
    let gateway = builder.start_unready();
    // Everybody else is served before the silent one is given up.
    wait::until_true("the gateway answers", || {
        gateway.run(["ls"]).status.success()
    });
    wait::until_true("the other driver is there", || {
        gateway.driver("process")["state"] == "CONNECTED"
    });
    process_works(&gateway);
    is_clear(&complaint(&gateway, "odd"), &socket, &["does not answer"]);
    gateway.wait_ready();
}

#[test]
fn a_driver_of_an_incompatible_version_is_refused_with_both_ranges() {
    let mut server = None;
    let (builder, socket) =
        with_socket(|path| server = Some(crate::odd_driver::serve(path, 7..=9)));
    let gateway = builder.start();
    let driver = complaint(&gateway, "odd");
    is_clear(&driver, &socket, &["7", "9", "1"]);
    assert!(
        driver["fix"].as_str().unwrap().contains("install"),
        "{driver:#}"
    );
    assert_eq!(driver["state"], "REFUSED");
    let ran = gateway.run(["create", "--driver", "odd"]);
    ran.exited(125);
    ran.says(["odd"]);
    process_works(&gateway);
}

#[test]
fn a_driver_that_freezes_gives_clear_errors_and_works_again_when_it_thaws() {
    let mut builder = TestGateway::builder();
    let demo = TestDriver::start(builder.home(), "demo");
    let gateway = builder
        .config("default_driver = \"process\"\n[timeouts]\ncreate = \"5s\"")
        .driver_socket("demo", demo.socket())
        .start();
    gateway.create(["--driver", "demo", "--name", "before"]);
    demo.freeze();
    let create = gateway.cli(["create", "--driver", "demo"]).spawn();
    // While that one waits, nobody else does.
    for _ in 0..3 {
        process_works(&gateway);
    }
    let ran = create.wait();
    ran.exited(125);
    ran.says(["demo", &demo.socket().to_string_lossy(), "answer"]);
    let driver = complaint(&gateway, "demo");
    is_clear(&driver, demo.socket(), &["answer"]);
    demo.thaw();
    wait::until_true("it is connected", || {
        gateway.driver("demo")["state"] == "CONNECTED"
    });
    assert_eq!(
        gateway.ok(["run", "--driver", "demo", "echo", "thawed"]),
        "thawed"
    );
    assert_eq!(gateway.ok(["exec", "before", "echo", "kept"]), "kept");
}
