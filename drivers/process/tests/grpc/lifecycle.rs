//! From create to delete.

use std::time::{SystemTime, UNIX_EPOCH};

use cofferdam_driver_sdk::proto::watch_sandboxes_response::Event;
use cofferdam_driver_sdk::proto::*;
use tokio_stream::StreamExt as _;
use tonic::{Code, Streaming};

use crate::harness::{
    LIMIT, Rig, alive, create, create_with, delete, get, list, observe, spec, start, stop,
};

/// The next state that the watcher is told of this sandbox.
async fn next_state(events: &mut Streaming<WatchSandboxesResponse>) -> Sandbox {
    loop {
        let event = tokio::time::timeout(LIMIT, events.next())
            .await
            .expect("nothing is told");
        match event.unwrap().unwrap().event.unwrap() {
            Event::Changed(sandbox) => return sandbox,
            Event::Deleted(deleted) => panic!("{deleted:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_sandbox_lives_and_dies() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let mut callback = rig.callback("sbx-1");
    let created = client
        .create_sandbox(create("sbx-1", &callback))
        .await
        .unwrap()
        .into_inner();
    let sandbox = created.sandbox.unwrap();
    assert_eq!((sandbox.state(), sandbox.boots), (SandboxState::Running, 1));
    assert_eq!(callback.run("id -u; pwd").await, "1000\n/workspace");

    let again = client
        .create_sandbox(create("sbx-1", &callback))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.sandbox.unwrap().platform_id, sandbox.platform_id);
    let other = SandboxSpec {
        uid: 1001,
        ..spec()
    };
    let error = client
        .create_sandbox(create_with("sbx-1", &callback, other))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);

    assert_eq!(list(&mut client).await, (vec!["sbx-1".to_owned()], true));
    client.delete_sandbox(delete("sbx-1")).await.unwrap();
    client.delete_sandbox(delete("sbx-1")).await.unwrap();
    assert!(!alive(&sandbox.platform_id));
    assert_eq!(
        client.get_sandbox(get("sbx-1")).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(list(&mut client).await, (vec![], true));
    assert_eq!(
        std::fs::read_dir(rig.dir.path().join("state/records"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn stop_and_start_keep_the_workspace_and_the_watcher_sees_it() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let mut callback = rig.callback("sbx-1");
    let watch = client
        .watch_sandboxes(WatchSandboxesRequest::default())
        .await
        .unwrap();
    let mut events = watch.into_inner();
    client
        .create_sandbox(create("sbx-1", &callback))
        .await
        .unwrap();
    let running = next_state(&mut events).await;
    assert_eq!(running.state(), SandboxState::Running);
    callback.run("echo kept > note").await;

    let stopped = client
        .stop_sandbox(stop("sbx-1", 5000))
        .await
        .unwrap()
        .into_inner();
    let stopped = stopped.sandbox.unwrap();
    assert_eq!(stopped.state(), SandboxState::Stopped);
    assert_eq!(
        stopped.termination.unwrap().reason(),
        TerminationReason::StoppedByRequest
    );
    assert!(!alive(&running.platform_id));
    assert_eq!(next_state(&mut events).await.state(), SandboxState::Stopped);
    client.stop_sandbox(stop("sbx-1", 0)).await.unwrap();

    let started = client
        .start_sandbox(start("sbx-1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(started.sandbox.unwrap().boots, 2);
    client.start_sandbox(start("sbx-1")).await.unwrap();
    callback.session().await;
    assert_eq!(callback.run("cat note").await, "kept");
    let again = next_state(&mut events).await;
    assert_eq!((again.state(), again.boots), (SandboxState::Running, 2));
    client.delete_sandbox(delete("sbx-1")).await.unwrap();
}

#[tokio::test]
async fn the_watcher_is_told_how_a_supervisor_ended() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let callback = rig.callback("sbx-1");
    let created = client
        .create_sandbox(create("sbx-1", &callback))
        .await
        .unwrap()
        .into_inner();
    let watch = client
        .watch_sandboxes(WatchSandboxesRequest::default())
        .await
        .unwrap();
    let mut events = watch.into_inner();
    let pid: i32 = created.sandbox.unwrap().platform_id.parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let sandbox = next_state(&mut events).await;
    assert_eq!(sandbox.state(), SandboxState::Stopped);
    let ended = sandbox.termination.unwrap();
    assert_eq!(
        (ended.reason(), ended.signal),
        (TerminationReason::Signaled, 9)
    );
    client.start_sandbox(start("sbx-1")).await.unwrap();
    assert_eq!(next_state(&mut events).await.boots, 2);
    client.delete_sandbox(delete("sbx-1")).await.unwrap();
}

#[tokio::test]
async fn a_sandbox_ends_at_its_expire_time_and_does_not_run_again() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let callback = rig.callback("sbx-1");
    let watch = client
        .watch_sandboxes(WatchSandboxesRequest::default())
        .await
        .unwrap();
    let mut events = watch.into_inner();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let expire_time_unix_ms = u64::try_from(now.as_millis()).unwrap() + 1500;
    let spec = SandboxSpec {
        expire_time_unix_ms,
        ..spec()
    };
    client
        .create_sandbox(create_with("sbx-1", &callback, spec))
        .await
        .unwrap();
    let mut sandbox = next_state(&mut events).await;
    while sandbox.state() == SandboxState::Running {
        sandbox = next_state(&mut events).await;
    }
    assert_eq!(sandbox.state(), SandboxState::FailedState);
    assert_eq!(
        sandbox.termination.unwrap().reason(),
        TerminationReason::Deadline
    );
    let error = client.start_sandbox(start("sbx-1")).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    client.delete_sandbox(delete("sbx-1")).await.unwrap();
}

#[tokio::test]
async fn console_and_statistics_are_there() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let mut callback = rig.callback("sbx-1");
    client
        .create_sandbox(create("sbx-1", &callback))
        .await
        .unwrap();
    callback.run("true").await;
    let request = ReadConsoleRequest {
        sandbox_id: "sbx-1".to_owned(),
        follow: true,
        ..Default::default()
    };
    let mut console = client.read_console(request).await.unwrap().into_inner();
    let text = console.next().await.unwrap().unwrap().data;
    assert!(text.starts_with(b"test init for"), "{text:?}");

    let request = SandboxStatsRequest {
        sandbox_id: "sbx-1".to_owned(),
        interval_ms: 0,
    };
    let stats = client.sandbox_stats(request).await.unwrap().into_inner();
    let stats = stats.collect::<Result<Vec<_>, _>>().await.unwrap();
    let observed = observe(&mut client, "sbx-1").await;
    if crate::harness::is_root() {
        assert!(stats[0].memory_bytes.unwrap() > 0, "{stats:?}");
        assert_eq!(observed.oom_kill_count, Some(0));
        assert_eq!(observed.weaknesses, Vec::<String>::new());
    }
    client.delete_sandbox(delete("sbx-1")).await.unwrap();
}

#[tokio::test]
async fn the_kills_for_want_of_memory_are_counted() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let mut callback = rig.callback("sbx-1");
    client
        .create_sandbox(create("sbx-1", &callback))
        .await
        .unwrap();
    if observe(&mut client, "sbx-1").await.oom_kill_count.is_none() {
        println!("skipped: no memory cgroup for this user");
        return;
    }
    callback
        .run("exec awk 'BEGIN { s = \"x\"; while (1) s = s s }'")
        .await;
    assert_eq!(observe(&mut client, "sbx-1").await.oom_kill_count, Some(1));
    client.delete_sandbox(delete("sbx-1")).await.unwrap();
}

#[tokio::test]
async fn a_failed_create_leaves_nothing() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let mut request = create("sbx-1", &rig.callback("sbx-1"));
    request.callback_directory = "/nowhere".to_owned();
    let error = client.create_sandbox(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert_eq!(list(&mut client).await, (vec![], true));
    assert_eq!(
        std::fs::read_dir(rig.dir.path().join("state/sandboxes"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn many_sandboxes_are_made_side_by_side() {
    let mut rig = Rig::new();
    let client = rig.gateway().await;
    let mut making = tokio::task::JoinSet::new();
    for number in 0..20 {
        let id = format!("sbx-{number}");
        let callback = rig.callback(&id);
        let mut client = client.clone();
        making.spawn(async move {
            client.create_sandbox(create(&id, &callback)).await.unwrap();
            client.delete_sandbox(delete(&id)).await.unwrap();
        });
    }
    making.join_all().await;
    assert_eq!(list(&mut client.clone()).await, (vec![], true));
}
