//! How it all ends: on request, by a signal, at the deadline.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cofferdam_proto::supervisor::v1::{ConfigureRequest, PingRequest, ShutdownRequest};
use rustix::process::{Pid, Signal, kill_process};

use crate::gateway::{Outcome, run, shell, soon, start};
use crate::sandbox::{Options, Sandbox};

fn in_ms(milliseconds: u64) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_millis();
    now as u64 + milliseconds
}

#[tokio::test]
async fn a_shutdown_gives_processes_their_time() {
    let mut sandbox = Sandbox::start();
    let mut client = sandbox.session().await;
    let script = "trap 'echo bye; exit 6' TERM; echo ready; while :; do sleep 0.05; done";
    let mut attached = start(&client, "p", shell(script)).await;
    let mut stubborn = start(&client, "q", shell("trap '' TERM; echo ready; sleep 1000")).await;
    let mut outcome = Outcome::default();
    attached.read_until(&mut outcome, "ready").await;
    stubborn.read_until(&mut Outcome::default(), "ready").await;
    let shutdown = ShutdownRequest { grace_ms: 1_000 };
    soon(client.shutdown(shutdown))
        .await
        .expect("answered before");
    // The session goes on meanwhile.
    let outcome = attached.finish_with(outcome).await;
    assert_eq!(outcome.code(), 6);
    assert!(outcome.text().contains("bye\n"), "{}", outcome.text());
    assert_eq!(sandbox.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_shutdown_without_grace_is_at_once() {
    let mut sandbox = Sandbox::start();
    let mut client = sandbox.session().await;
    let mut attached = start(&client, "p", shell("trap '' TERM; echo ready; sleep 1000")).await;
    attached.read_until(&mut Outcome::default(), "ready").await;
    soon(client.shutdown(ShutdownRequest { grace_ms: 0 }))
        .await
        .expect("answered before");
    assert_eq!(sandbox.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_signal_from_outside_ends_the_sandbox() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let mut attached = start(
        &client,
        "p",
        shell("trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"),
    )
    .await;
    attached.read_until(&mut Outcome::default(), "ready").await;
    kill_process(Pid::from_child(&sandbox.child), Signal::TERM).expect("sent");
    assert_eq!(sandbox.ended().await.code(), Some(0));
}

#[tokio::test]
async fn pid_1_heeds_no_signal_from_inside() {
    let mut sandbox = Sandbox::with(&Options {
        is_init: true,
        ..Options::default()
    });
    let mut client = sandbox.session().await;
    let before = soon(client.ping(PingRequest {}))
        .await
        .expect("answered")
        .into_inner();
    let script = "for s in TERM INT KILL STOP HUP USR1 SEGV CHLD; do kill -$s 1; done; echo $PPID";
    let own = cofferdam_proto::supervisor::v1::ProcessSpec {
        uid: Some(rustix::process::getuid().as_raw()),
        gid: Some(rustix::process::getgid().as_raw()),
        ..shell(script)
    };
    run(&client, "p", own).await;
    let after = soon(client.ping(PingRequest {}))
        .await
        .expect("answered")
        .into_inner();
    assert_eq!(before.boot_id, after.boot_id);
    assert_eq!(run(&client, "q", shell("exit 3")).await.code(), 3);
}

#[tokio::test]
async fn nothing_outlives_the_deadline() {
    let options = Options {
        expire_time_unix_ms: in_ms(2_000),
        ..Options::default()
    };
    let mut sandbox = Sandbox::with(&options);
    let client = sandbox.session().await;
    let script = "trap '' TERM; setsid sleep 1000 & echo ready; sleep 1000";
    let mut attached = start(&client, "p", shell(script)).await;
    attached.read_until(&mut Outcome::default(), "ready").await;
    let pid = attached.started.pid as i32;
    assert_eq!(sandbox.ended().await.code(), Some(124));
    assert!(
        in_ms(0) >= options.expire_time_unix_ms,
        "not before its time"
    );
    soon(async {
        while runs(pid) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Whether it does anything yet: one that was killed may wait for its new parent to notice.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[tokio::test]
async fn the_deadline_comes_also_without_any_gateway() {
    let begin = Instant::now();
    let options = Options {
        expire_time_unix_ms: in_ms(300),
        ..Options::default()
    };
    let mut sandbox = Sandbox::with(&options);
    sandbox.stop_listening();
    assert_eq!(sandbox.ended().await.code(), Some(124));
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn the_deadline_can_be_moved() {
    let options = Options {
        expire_time_unix_ms: in_ms(1_500),
        ..Options::default()
    };
    let mut sandbox = Sandbox::with(&options);
    let mut client = sandbox.session().await;
    let later = ConfigureRequest {
        expire_time_unix_ms: in_ms(3_600_000),
        ..ConfigureRequest::default()
    };
    soon(client.configure(later)).await.expect("configured");
    let wait = "while [ $(date +%s%3N) -lt \"$0\" ]; do sleep 0.05; done; echo alive";
    let until = (options.expire_time_unix_ms + 100).to_string();
    let spec = crate::gateway::spec(&["/bin/sh", "-c", wait, &until]);
    assert_eq!(run(&client, "p", spec).await.text(), "alive\n");
    // Nothing said: as the bootstrap says, which has passed.
    let _ = soon(client.configure(ConfigureRequest::default())).await;
    assert_eq!(sandbox.ended().await.code(), Some(124));
}
