//! Drivers that cannot be reached any more, and drivers that come back as another.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::scene::Scene;

#[test]
fn what_runs_goes_on_while_its_driver_cannot_be_reached() {
    let doors = [
        ("silent", "does not answer"),
        ("closing", "the connection ended"),
        ("garbage", "does not speak HTTP/2"),
        ("http1", "speaks HTTP/1"),
    ];
    let cases = doors.map(|(door, _)| (door, json!({ "door": door })));
    let scene = Scene::with_sandboxes(&cases);
    scene.set(&cases);
    scene.others_do_not_notice("four drivers cannot be reached");
    for (name, word) in doors {
        // A socket that is there, with nobody behind it who can be talked to.
        scene.is_explained(name, word);
        assert_ne!(scene.gateway.driver(name)["state"], "CONNECTED");
        scene.has_state(name, "READY");
        scene.works(name);
        let create = scene.gateway.run(["create", "--driver", name]);
        create.exited(125);
        create.says([name]);
    }
    for (name, _) in &cases {
        scene.driver(name).heal();
        scene.is_not_complained_of(name);
        scene.has_state(name, "READY");
        scene.works(name);
        scene.runs(name);
    }
}

#[test]
fn a_driver_that_restarts_and_remembers_goes_on() {
    let cases = [
        ("orderly", json!({})),
        ("silent", json!({"silent": true})),
        ("proxied", json!({"keep_connections": true})),
    ];
    let scene = Scene::with_sandboxes(&cases);
    for round in 0..3 {
        for (name, how) in &cases {
            scene.driver(name).restart(how);
            scene.works(name);
        }
        scene.others_do_not_notice(&format!("three drivers restart, round {round}"));
    }
    for (name, _) in &cases {
        scene.is_not_complained_of(name);
        scene.has_state(name, "READY");
        scene.works(name);
        scene.runs(name);
        let journal = scene.driver(name).journal();
        let kept = scene.sandbox(name)["sandbox_id"].clone();
        let kept = kept.as_str().expect("an id");
        assert_eq!(journal.count("DeleteSandbox", kept), 0, "{name}");
        assert_eq!(journal.count("CreateSandbox", kept), 1, "{name}");
    }
}

/// A driver's word for it that something is gone is taken; what is left of it is ended.
#[test]
fn what_a_driver_has_forgotten_is_said_and_ended() {
    let cases = [
        ("forgets", json!({"forget": true})),
        ("hides-it", json!({"forget": true, "silent": true})),
    ];
    let scene = Scene::with_sandboxes(&cases);
    for (name, how) in &cases {
        scene.driver(name).restart(how);
    }
    scene.others_do_not_notice("two drivers have forgotten everything");
    for (name, _) in &cases {
        let sandbox = scene.has_state(name, "FAILED");
        assert_eq!(sandbox["reason"], "PLATFORM_LOST", "{sandbox:#}");
        let says = sandbox["message"].as_str().unwrap_or_default();
        assert!(says.contains("does not exist"), "{sandbox:#}");
        scene.is_explained(name, "does not know");
        let ran = scene.gateway.run(["exec", name, "true"]);
        ran.exited(125);
        scene.gateway.ok(["rm", name]);
        scene.is_gone(name);
        cofferdam_tests::wait::until_true("its processes have ended", || {
            scene.driver(name).inmates().is_empty()
        });
        scene.runs(name);
    }
}

/// The change is never told by the watch: it is found out all the same.
#[test]
fn a_sandbox_that_ends_by_itself_is_not_ready_also_when_that_is_not_told() {
    let cases = [("untold", json!({"watch": {"drop": ["changed"]}}))];
    let scene = Scene::with_sandboxes(&cases);
    scene.set(&cases);
    let inmates = scene.driver("untold").inmates();
    assert!(!inmates.is_empty());
    for inmate in inmates {
        let pid = Pid::from_raw(inmate.cast_signed()).expect("a pid");
        // One may end with another.
        let _gone = kill_process(pid, Signal::KILL);
    }
    scene.has_state("untold", "STOPPED");
    scene.is_explained("untold", "has not told");
    scene.others_do_not_notice("a driver has not told that a sandbox has stopped");
    scene.gateway.ok(["start", "untold"]);
    scene.works("untold");
}
