//! Ending whole trees, whatever they do about it.

use cofferdam_proto::supervisor::v1::process_exited::Result as ExitResult;
use cofferdam_proto::supervisor::v1::{KillProcessRequest, PingRequest, ProcessSpec};
use tonic::Code;

use crate::gateway::{Client, Outcome, run, shell, soon, spec, start};
use crate::sandbox::{Options, Sandbox, descendants, is_root, skip};

async fn kill(client: &Client, id: &str, grace_ms: u64) -> u32 {
    let kill = KillProcessRequest {
        process_id: id.into(),
        grace_ms,
    };
    soon(client.clone().kill_process(kill))
        .await
        .expect("killed")
        .into_inner()
        .killed
}

#[tokio::test]
async fn nothing_escapes_a_kill() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let escape = "trap '' TERM HUP INT; \
        setsid sh -c 'trap \"\" TERM; echo up; sleep 1000' & \
        (setsid sh -c 'sleep 1001 & echo up' &) ; \
        (sh -c '(sleep 1002 & echo up) &' &) ; \
        nohup sleep 1003 >/dev/null 2>&1 & \
        echo up; wait; sleep 1004";
    let mut attached = start(&client, "p", shell(escape)).await;
    let mut outcome = Outcome::default();
    while outcome.text().matches("up\n").count() < 4 {
        let event = attached.event().await.expect("goes on").expect("an event");
        assert!(!outcome.add(event));
    }
    assert!(descendants(sandbox.child.id() as i32).len() > 4);
    let killed = kill(&client, "p", 50).await;
    assert!(killed >= 2, "those that ignore SIGTERM: {killed}");
    let outcome = attached.finish_with(outcome).await;
    assert!(
        matches!(outcome.exited.result, Some(ExitResult::Signal(9))),
        "{:?}",
        outcome.exited
    );
    assert_eq!(descendants(sandbox.child.id() as i32), []);
}

#[tokio::test]
async fn a_tree_that_heeds_sigterm_needs_no_sigkill() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let script = "trap 'echo bye; exit 6' TERM; sh -c 'echo ready; exec sleep 1000' & wait";
    let mut attached = start(&client, "p", shell(script)).await;
    let mut outcome = Outcome::default();
    attached.read_until(&mut outcome, "ready").await;
    assert_eq!(kill(&client, "p", 30_000).await, 0);
    let outcome = attached.finish_with(outcome).await;
    assert_eq!(
        (outcome.code(), outcome.text().as_str()),
        (6, "ready\nbye\n")
    );
    assert_eq!(kill(&client, "p", 0).await, 0, "again: nothing is left");
}

#[tokio::test]
async fn one_tree_is_ended_and_the_others_stay() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let script = "setsid sleep 1000 & sleep 1000 & echo ready; wait";
    let mut one = start(&client, "one", shell(script)).await;
    let mut other = start(&client, "other", shell(script)).await;
    one.read_until(&mut Outcome::default(), "ready").await;
    other.read_until(&mut Outcome::default(), "ready").await;
    let before = descendants(other.started.pid as i32).len();
    kill(&client, "one", 0).await;
    assert_eq!(descendants(one.started.pid as i32), []);
    assert_eq!(descendants(other.started.pid as i32).len(), before);
}

#[tokio::test]
async fn stopped_processes_are_killed_too() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let mut attached = start(&client, "p", shell("echo ready; kill -STOP $$")).await;
    attached.read_until(&mut Outcome::default(), "ready").await;
    let is_stopped = |(_, state): &(i32, char)| *state == 'T';
    while !descendants(sandbox.child.id() as i32)
        .iter()
        .any(is_stopped)
    {}
    assert_eq!(kill(&client, "p", 50).await, 1);
    assert_eq!(descendants(sandbox.child.id() as i32), []);
}

#[tokio::test]
async fn killing_an_unknown_process_is_not_found() {
    let mut sandbox = Sandbox::start();
    let mut client = sandbox.session().await;
    let kill = KillProcessRequest {
        process_id: "nobody".into(),
        grace_ms: 0,
    };
    assert_eq!(
        soon(client.kill_process(kill))
            .await
            .expect_err("unknown")
            .code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn ten_thousand_orphans_leave_no_zombie() {
    let mut sandbox = Sandbox::with(&Options {
        is_init: true,
        ..Options::default()
    });
    let client = sandbox.session().await;
    let one = "i=0; while [ $i -lt 2500 ]; do (: &); i=$((i+1)); done";
    let script = format!("({one})& ({one})& ({one})& {one}; wait; echo made");
    let mut attached = start(
        &client,
        "p",
        ProcessSpec {
            stdin: true,
            ..shell(&format!("{script}; read x"))
        },
    )
    .await;
    let mut outcome = Outcome::default();
    attached.read_until(&mut outcome, "made").await;
    // While the process still runs: whoever adopted them has reaped them.
    while descendants(sandbox.child.id() as i32)
        .iter()
        .any(|(_, state)| *state == 'Z')
    {
        soon(client.clone().ping(PingRequest {}))
            .await
            .expect("answered");
    }
    attached.stdin_eof(0).await;
    attached.finish_with(outcome).await;
}

#[tokio::test]
async fn a_fork_bomb_is_ended() {
    // Shells give up when they cannot fork; this goes on.
    let bomb = "$SIG{TERM} = 'IGNORE'; $| = 1; print \"ready\\n\"; fork while 1";
    if !std::path::Path::new("/usr/bin/perl").exists() {
        return skip("there is no /usr/bin/perl to write a fork bomb in");
    }
    let options = Options {
        is_init: true,
        processes_max: Some(300),
        workload: is_root().then_some((23_456, 23_456)),
        ..Options::default()
    };
    let mut sandbox = Sandbox::with(&options);
    let client = sandbox.session().await;
    let mut attached = start(&client, "bomb", spec(&["/usr/bin/perl", "-e", bomb])).await;
    attached.read_until(&mut Outcome::default(), "ready").await;
    // It has really gone off: the limit is all but reached.
    while descendants(sandbox.child.id() as i32).len() < 280 {
        soon(client.clone().ping(PingRequest {}))
            .await
            .expect("answered");
    }
    let killed = kill(&client, "bomb", 100).await;
    assert!(killed >= 250, "{killed}");
    let left = descendants(sandbox.child.id() as i32);
    // Under PID 1's outer parent there is only PID 1.
    assert!(left.len() <= 1, "{left:?}");
    assert_eq!(
        run(&client, "after", shell("echo fine")).await.text(),
        "fine\n"
    );
}

/// A workload with the supervisor's own ids can kill its shim. That helps it nothing.
fn own_ids() -> ProcessSpec {
    ProcessSpec {
        uid: Some(rustix::process::getuid().as_raw()),
        gid: Some(rustix::process::getgid().as_raw()),
        ..ProcessSpec::default()
    }
}

#[tokio::test]
async fn a_process_that_kills_its_shim_is_still_watched() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let script = "kill -9 $PPID; echo survived; exit 3";
    let outcome = run(
        &client,
        "p",
        ProcessSpec {
            argv: shell(script).argv,
            ..own_ids()
        },
    )
    .await;
    assert_eq!((outcome.code(), outcome.text().as_str()), (3, "survived\n"));
    assert_eq!(run(&client, "q", shell("exit 4")).await.code(), 4);
}

#[tokio::test]
async fn the_orphans_of_a_killed_shim_are_killed_as_well() {
    for is_init in [false, true] {
        let mut sandbox = Sandbox::with(&Options {
            is_init,
            ..Options::default()
        });
        let client = sandbox.session().await;
        let innocent = start(&client, "innocent", shell("exec sleep 1000")).await;
        let script = "kill -9 $PPID; (setsid sleep 1001 &); echo ready; exec sleep 1002";
        let spec = ProcessSpec {
            argv: shell(script).argv,
            ..own_ids()
        };
        let mut attached = start(&client, "p", spec).await;
        let mut outcome = Outcome::default();
        attached.read_until(&mut outcome, "ready").await;
        let before = descendants(sandbox.child.id() as i32).len();
        assert_eq!(kill(&client, "p", 0).await, 2);
        let outcome = attached.finish_with(outcome).await;
        assert_eq!(outcome.exited.result, Some(ExitResult::Signal(9)));
        assert_eq!(descendants(sandbox.child.id() as i32).len(), before - 2);
        drop(innocent);
    }
}

#[tokio::test]
async fn a_shim_that_is_stopped_goes_on() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let script = "kill -STOP $PPID; echo ready; exec sleep 1000";
    let spec = ProcessSpec {
        argv: shell(script).argv,
        ..own_ids()
    };
    let mut attached = start(&client, "p", spec).await;
    let mut outcome = Outcome::default();
    attached.read_until(&mut outcome, "ready").await;
    assert_eq!(kill(&client, "p", 0).await, 1);
    attached.finish_with(outcome).await;
}
