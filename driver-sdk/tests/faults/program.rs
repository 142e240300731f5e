//! The program, by its flags and its control socket.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::support::within;

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(2).unwrap();
    target.join("examples/fault_driver")
}

fn start(arguments: &[&str], directory: &Path) -> Child {
    Command::new(program())
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("start examples/fault_driver, which cargo builds along with the tests")
}

/// Waits until it is up; ends when its log does.
async fn up(child: &mut Child) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    within("it is up", async {
        while !lines
            .next_line()
            .await
            .unwrap()
            .unwrap()
            .contains("the driver is up")
        {}
    })
    .await;
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
}

async fn ask(control: &mut BufReader<UnixStream>, question: &str) -> Value {
    let line = format!("{question}\n");
    control.get_mut().write_all(line.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = control.read_line(&mut answer);
    within("an answer", read).await.unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[tokio::test]
async fn it_does_as_its_control_socket_says() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--socket", "d.sock", "--control", "c.sock"];
    let mut child = start(&arguments, directory.path());
    up(&mut child).await;
    let control = UnixStream::connect(directory.path().join("c.sock")).await;
    let mut control = BufReader::new(control.unwrap());
    let script = json!({"set": {
        "door": "silent",
        "rules": [
            {"rpc": "CreateSandbox", "nth": 2, "times": 1, "fault": {"cut": {"after": true}}},
            {"rpc": "*", "fault": {"fail": {"code": "UNAVAILABLE", "message": "no"}}},
        ],
        "watch": {"freeze": true, "drop": ["changed", "synced"]},
        "inventory": {"omit": ["*"], "endless": true},
        "health": {"is": "UNHEALTHY", "reason": "on fire", "flap_ms": 50},
        "variant": "wrong_order",
    }});
    let nothing = json!({"ok": null});
    assert_eq!(ask(&mut control, &script.to_string()).await, nothing);
    let before = ask(&mut control, r#"{"journal": {}}"#).await;
    assert_eq!(before["ok"]["calls"], json!([]));
    assert_eq!(
        ask(&mut control, r#"{"restart": {"forget": true}}"#).await,
        nothing
    );
    let after = ask(&mut control, r#"{"journal": {}}"#).await;
    assert_ne!(after["ok"]["incarnation"], before["ok"]["incarnation"]);
    assert_eq!(ask(&mut control, r#"{"cut": {}}"#).await, nothing);
    for wrong in [
        r#"{"set": {"rules": [{"rpc": "X", "fault": {"hangs": {}}}]}}"#,
        r#"{"set": {"freeze": true}}"#,
        "nonsense",
    ] {
        let answer = ask(&mut control, wrong).await;
        assert!(answer["error"].is_string(), "{wrong}: {answer}");
    }
}

#[tokio::test]
async fn it_leaves_no_socket_and_refuses_a_bad_script() {
    use rustix::process::{Pid, Signal, kill_process};

    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--socket", "d.sock", "--control", "c.sock"];
    let mut child = start(&arguments, directory.path());
    up(&mut child).await;
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    let ended = within("its end", child.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 0, "its sockets are gone");

    std::fs::write(directory.path().join("s.json"), r#"{"doors": "silent"}"#).unwrap();
    for (flag, value, words) in [
        ("--script", "s.json", "doors"),
        ("--script", "missing.json", "missing.json"),
        ("--variant", "nonsense", "wrong_order"),
    ] {
        let child = start(&["--socket", "d.sock", flag, value], directory.path());
        let output = within("its end", child.wait_with_output()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{said}");
    }
}
