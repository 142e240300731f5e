//! Sockets of its own and inherited ones; the end.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use rustix::process::Signal;
use tokio::process::Command;

use crate::harness::{Driver, connect, handshake, program};

#[tokio::test]
async fn run_by_hand_it_explains_itself() {
    let mut command = Command::new(program());
    command.env_remove("LISTEN_FDS").stdin(Stdio::null());
    let (code, log) = Driver::start(command).ended().await;
    assert_eq!(code, Some(2));
    assert!(
        log.contains("This is the fake driver of Cofferdam"),
        "{log}"
    );
    assert!(log.contains("--compute-driver-socket fake=PATH"), "{log}");
}

#[tokio::test]
async fn it_says_what_it_is() {
    for (flag, expected) in [
        ("--version", "cofferdam.compute.v1"),
        ("--describe", "run_supervisor"),
    ] {
        let output = Command::new(program()).arg(flag).output().await.unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn its_own_socket_is_private_and_gone_at_the_end() {
    use std::os::unix::fs::MetadataExt as _;

    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("d.sock");
    let driver = Driver::on_socket(&socket).up().await;
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    connect(&socket).await.handshake(handshake()).await.unwrap();
    driver.signal(Signal::TERM);
    assert_eq!(driver.ended().await.0, Some(0));
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_socket_left_by_a_killed_driver_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("d.sock");
    let mut killed = Driver::on_socket(&socket).up().await;
    let (code, log) = Driver::on_socket(&socket).ended().await;
    assert_eq!(code, Some(1), "it is in use");
    assert!(log.contains("another process answers"), "{log}");
    killed.child.kill().await.unwrap();
    let _driver = Driver::on_socket(&socket).up().await;
    connect(&socket).await.handshake(handshake()).await.unwrap();
}

#[tokio::test]
async fn a_listener_is_inherited_as_systemd_passes_it() {
    for (environment, works) in [
        ("LISTEN_FDS=1 LISTEN_PID=$$", true),
        ("LISTEN_FDS=1", true),
        ("LISTEN_FDS=1 LISTEN_PID=1", false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("d.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let inherited: OwnedFd = rustix::io::dup(&listener).unwrap();
        let fd = inherited.as_raw_fd();
        let script = format!("{environment} exec \"$0\" 3<&{fd}");
        let mut command = Command::new("bash");
        command
            .args(["-c", &script])
            .arg(program())
            .stdin(Stdio::null());
        let driver = Driver::start(command);
        drop(inherited);
        if works {
            let driver = driver.up().await;
            connect(&socket).await.handshake(handshake()).await.unwrap();
            driver.signal(Signal::TERM);
            assert_eq!(driver.ended().await.0, Some(0));
            assert!(socket.exists(), "it belongs to whoever made it");
        } else {
            assert_eq!(driver.ended().await.0, Some(2), "{environment}");
        }
    }
}

#[tokio::test]
async fn it_ends_with_the_gateway_that_started_it() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("d.sock")).unwrap();
    let inherited: OwnedFd = rustix::io::dup(&listener).unwrap();
    let mut command = Command::new(program());
    command.env("COFFERDAM_LISTEN_FD", inherited.as_raw_fd().to_string());
    command.stdin(Stdio::piped());
    let mut driver = Driver::start(command).up().await;
    // As when the gateway dies, however it does.
    drop(driver.child.stdin.take());
    assert_eq!(driver.ended().await.0, Some(0));
}
