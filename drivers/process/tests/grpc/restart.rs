//! The driver dies; its sandboxes do not.

use cofferdam_driver_sdk::proto::recover_sandboxes_response::Outcome;
use cofferdam_driver_sdk::proto::*;
use serde_json::json;
use tonic::Code;

use crate::harness::{GATEWAY, Rig, create, delete, list, observe, start, stop};

async fn recover(
    client: &mut crate::harness::Client,
    items: Vec<recover_sandboxes_request::Item>,
) -> Vec<recover_sandboxes_response::Result> {
    let request = RecoverSandboxesRequest { items };
    client
        .recover_sandboxes(request)
        .await
        .unwrap()
        .into_inner()
        .results
}

fn item(id: &str, handle: Option<Handle>) -> recover_sandboxes_request::Item {
    recover_sandboxes_request::Item {
        sandbox_id: id.to_owned(),
        handle,
        callback_directory: String::new(),
    }
}

#[tokio::test]
async fn sandboxes_survive_the_drivers_sudden_death() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let mut one = rig.callback("sbx-1");
    let mut two = rig.callback("sbx-2");
    let created = client
        .create_sandbox(create("sbx-1", &one))
        .await
        .unwrap()
        .into_inner();
    client.create_sandbox(create("sbx-2", &two)).await.unwrap();
    two.run("true").await;
    client.stop_sandbox(stop("sbx-2", 1000)).await.unwrap();
    one.run("sleep 1000 > /dev/null 2>&1 & echo $! > pid").await;

    rig.kill_driver().await;
    one.run("kill -0 $(cat pid)").await;
    let mut client = rig.gateway().await;

    assert_eq!(
        list(&mut client).await,
        (vec!["sbx-1".to_owned(), "sbx-2".to_owned()], true)
    );
    let before = created.sandbox.unwrap();
    let items = vec![
        item("sbx-1", created.handle.clone()),
        item("sbx-2", None),
        item("sbx-3", created.handle),
        item(
            "sbx-1",
            Some(Handle {
                version: 99,
                ..Default::default()
            }),
        ),
    ];
    let results = recover(&mut client, items).await;
    let outcomes: Vec<_> = results.iter().map(|result| result.outcome()).collect();
    let expected = [
        Outcome::Recovered,
        Outcome::Recovered,
        Outcome::Gone,
        Outcome::Unknown,
    ];
    assert_eq!(outcomes, expected);
    let after = results[0].sandbox.clone().unwrap();
    assert_eq!(
        (after.state(), after.platform_id),
        (SandboxState::Running, before.platform_id)
    );
    assert_eq!(after.create_time_unix_ms, before.create_time_unix_ms);
    assert_eq!(
        results[1].sandbox.as_ref().unwrap().state(),
        SandboxState::Stopped
    );

    // Everything still works, under the new driver.
    one.run("kill -0 $(cat pid)").await;
    client.start_sandbox(start("sbx-2")).await.unwrap();
    two.session().await;
    assert_eq!(two.run("echo hello").await, "hello");
    let again = client
        .create_sandbox(create("sbx-1", &one))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.sandbox.unwrap().boots, 1);
    for id in ["sbx-1", "sbx-2"] {
        client.delete_sandbox(delete(id)).await.unwrap();
    }
}

#[tokio::test]
async fn a_replaced_callback_directory_is_told() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let callback = rig.callback("sbx-1");
    let created = client
        .create_sandbox(create("sbx-1", &callback))
        .await
        .unwrap()
        .into_inner();
    for (replaced, disrupted) in [(false, false), (true, true)] {
        if replaced {
            std::fs::rename(&callback.directory, rig.dir.path().join("old")).unwrap();
            std::fs::create_dir(&callback.directory).unwrap();
        }
        let item = recover_sandboxes_request::Item {
            callback_directory: callback.directory.to_str().unwrap().to_owned(),
            ..item("sbx-1", created.handle.clone())
        };
        let result = recover(&mut client, vec![item]).await.remove(0);
        let conditions = result.sandbox.unwrap().conditions;
        let told = conditions
            .iter()
            .any(|one| one.r#type() == ConditionType::Disrupted);
        assert_eq!(
            (result.outcome, told),
            (Outcome::Recovered.into(), disrupted)
        );
    }
    client.delete_sandbox(delete("sbx-1")).await.unwrap();
}

#[tokio::test]
async fn the_first_snapshot_after_a_restart_is_whole() {
    use cofferdam_driver_sdk::proto::watch_sandboxes_response::Event;

    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let callback = rig.callback("sbx-1");
    client
        .create_sandbox(create("sbx-1", &callback))
        .await
        .unwrap();
    rig.kill_driver().await;
    let mut client = rig.gateway().await;
    let watch = client
        .watch_sandboxes(WatchSandboxesRequest::default())
        .await
        .unwrap();
    let mut events = watch.into_inner();
    let first = events.message().await.unwrap().unwrap().event.unwrap();
    assert!(matches!(first, Event::Snapshot(sandbox) if sandbox.sandbox_id == "sbx-1"));
    let second = events.message().await.unwrap().unwrap().event.unwrap();
    assert!(matches!(second, Event::Bookmark(bookmark) if bookmark.synced));
    client.delete_sandbox(delete("sbx-1")).await.unwrap();
}

#[tokio::test]
async fn an_orderly_end_leaves_sandboxes_alone_too() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let mut callback = rig.callback("sbx-1");
    client
        .create_sandbox(create("sbx-1", &callback))
        .await
        .unwrap();
    let status = rig.end_driver().await;
    assert!(status.success(), "{status}");
    assert_eq!(callback.run("echo alive").await, "alive");
    let mut client = rig.gateway().await;
    assert_eq!(
        observe(&mut client, "sbx-1").await.state(),
        SandboxState::Running
    );
    client.delete_sandbox(delete("sbx-1")).await.unwrap();
}

#[tokio::test]
async fn what_ended_while_no_driver_was_there_is_told() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let callback = rig.callback("sbx-1");
    let created = client
        .create_sandbox(create("sbx-1", &callback))
        .await
        .unwrap()
        .into_inner();
    rig.kill_driver().await;
    let pid: i32 = created.sandbox.unwrap().platform_id.parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let mut client = rig.gateway().await;
    let mut sandbox = observe(&mut client, "sbx-1").await;
    while sandbox.state() == SandboxState::Running {
        sandbox = observe(&mut client, "sbx-1").await;
    }
    assert_eq!(sandbox.state(), SandboxState::Stopped);
    assert_eq!(sandbox.termination.unwrap().signal, 9);
    client.delete_sandbox(delete("sbx-1")).await.unwrap();
}

#[tokio::test]
async fn a_create_that_was_cut_off_is_repeated_or_deleted() {
    for repeat in [true, false] {
        let mut rig = Rig::new();
        let client = rig.gateway().await;
        let callback = rig.callback("sbx-1");
        let request = create("sbx-1", &callback);
        let cut = tokio::spawn({
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.create_sandbox(request).await }
        });
        // At whatever point it is by then.
        let records = rig.dir.path().join("state/records/sbx-1.json");
        while !records.exists() && !cut.is_finished() {
            tokio::task::yield_now().await;
        }
        rig.kill_driver().await;
        let _ = cut.await;
        let mut client = rig.gateway().await;
        if repeat {
            let created = client.create_sandbox(request).await.unwrap().into_inner();
            let sandbox = created.sandbox.unwrap();
            assert_eq!(sandbox.state(), SandboxState::Running, "{sandbox:?}");
        }
        client.delete_sandbox(delete("sbx-1")).await.unwrap();
        assert_eq!(list(&mut client).await, (vec![], true));
        let left = std::fs::read_dir(rig.dir.path().join("state/sandboxes"));
        let left: Vec<_> = left
            .into_iter()
            .flatten()
            .flatten()
            .map(|one| one.path())
            .collect();
        assert_eq!(left, Vec::<std::path::PathBuf>::new(), "repeated: {repeat}");
    }
}

/// A shim that begins only when there is a file `go` beside it.
fn gated_shim(dir: &std::path::Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let (program, gate) = (dir.join("shim"), dir.join("go"));
    let real = env!("CARGO_BIN_EXE_cofferdam-process-shim");
    let wait = format!(
        "while [ ! -e {} ]; do /bin/sleep 0.01; done",
        gate.display()
    );
    std::fs::write(&program, format!("#!/bin/sh\n{wait}\nexec {real}\n")).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    program
}

/// Whoever asked for them has gone, and what was begun goes on: it is not swept away from under it.
#[tokio::test]
async fn a_delete_waits_for_what_is_being_made_and_removes_all_of_it() {
    let mut rig = Rig::new();
    let gate = rig.dir.path().join("go");
    std::fs::write(&gate, "").unwrap();
    rig.start_driver();
    let settings = json!({
        "shim_path": gated_shim(rig.dir.path()),
        "launch_timeout_ms": 60_000,
    });
    let mut client = rig.connect(GATEWAY, settings).await;
    std::fs::remove_file(&gate).unwrap();
    // One at most takes a shim that has passed the gate before.
    let mut deletes = Vec::new();
    for id in ["sbx-1", "sbx-2", "sbx-3"] {
        let request = create(id, &rig.callback(id));
        let mut another = client.clone();
        let making = tokio::spawn(async move { another.create_sandbox(request).await });
        let state = rig.dir.path().join("state/sandboxes").join(id);
        while !state.exists() && !making.is_finished() {
            tokio::task::yield_now().await;
        }
        making.abort();
        let mut another = client.clone();
        let deleting = tokio::spawn(async move { another.delete_sandbox(delete(id)).await });
        deletes.push(deleting);
    }
    for _ in 0..20 {
        list(&mut client).await;
    }
    let early = deletes.iter().filter(|delete| delete.is_finished()).count();
    assert!(early < 2, "{early} deletes did not wait");
    std::fs::write(&gate, "").unwrap();
    for delete in deletes {
        delete.await.unwrap().unwrap();
    }
    assert_eq!(list(&mut client).await, (vec![], true));
    let left = std::fs::read_dir(rig.dir.path().join("state/sandboxes")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn cursors_and_page_tokens_of_another_life_are_refused() {
    let mut rig = Rig::new();
    let mut client = rig.gateway().await;
    let watch = client
        .watch_sandboxes(WatchSandboxesRequest::default())
        .await
        .unwrap();
    let cursor = watch.into_inner().message().await.unwrap().unwrap().cursor;
    rig.kill_driver().await;
    let mut client = rig.gateway().await;
    let request = WatchSandboxesRequest { cursor };
    let mut watch = client.watch_sandboxes(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn another_gateway_sees_nothing_and_cannot_take_an_id() {
    let mut rig = Rig::new();
    let mut ours = rig.gateway().await;
    let mut callback = rig.callback("sbx-1");
    ours.create_sandbox(create("sbx-1", &callback))
        .await
        .unwrap();
    let mut theirs = rig.connect("gw-other", serde_json::json!({})).await;
    assert_eq!(list(&mut theirs).await, (vec![], true));
    let error = theirs
        .create_sandbox(create("sbx-1", &callback))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    theirs.delete_sandbox(delete("sbx-1")).await.unwrap();
    assert_eq!(callback.run("echo here").await, "here");
    let mut ours = rig.connect(GATEWAY, serde_json::json!({})).await;
    ours.delete_sandbox(delete("sbx-1")).await.unwrap();
}
