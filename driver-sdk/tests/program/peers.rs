//! Whose processes may call.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use tokio::process::Command;

use crate::harness::{Driver, connect, handshake, program};

/// What the test binary does when it is started again as another user.
const SOCKET_VARIABLE: &str = "COFFERDAM_TEST_CALL";

const STRANGER: u32 = 54_321;

#[tokio::test]
async fn other_users_are_refused_unless_they_are_allowed() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can call as somebody else");
        return;
    }
    for (flags, allowed) in [(vec![], false), (vec!["--allow-uid", "54321"], true)] {
        let directory = tempfile::Builder::new()
            .prefix("cofferdam-")
            .tempdir_in("/tmp")
            .unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let socket = directory.path().join("d.sock");
        let mut command = Command::new(program());
        command
            .arg("--socket")
            .arg(&socket)
            .args(["--socket-mode", "666"])
            .args(flags);
        command.stdin(Stdio::null());
        let _driver = Driver::start(command).up().await;
        // A copy that the stranger can reach.
        let test = directory.path().join("test");
        std::fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
        let called = Command::new(&test)
            .args(["--exact", "peers::call_as_somebody_else"])
            .env(SOCKET_VARIABLE, &socket)
            .uid(STRANGER)
            .gid(STRANGER)
            .output()
            .await
            .unwrap();
        assert_eq!(called.status.success(), allowed, "{called:?}");
        connect(&socket).await.handshake(handshake()).await.unwrap();
    }
}

#[tokio::test]
async fn call_as_somebody_else() {
    let Some(socket) = std::env::var_os(SOCKET_VARIABLE) else {
        println!("skipped: this is the other half of another test");
        return;
    };
    let mut client = connect(socket.as_ref()).await;
    client.handshake(handshake()).await.unwrap();
}
