//! Calls that hang, break off, come back wrong, or whose answers are lost.

use cofferdam_tests::wait;
use serde_json::{Value, json};

use super::scene::Scene;

fn rule(rpc: &str, fault: &Value) -> Value {
    json!({ "rules": [{ "rpc": rpc, "fault": fault }] })
}

fn once(rpc: &str, fault: &Value) -> Value {
    json!({ "rules": [{ "rpc": rpc, "times": 1, "fault": fault }] })
}

/// What was done is found, and is not done twice: whatever became of the answer.
#[test]
fn a_create_whose_answer_is_lost_is_settled_by_looking() {
    let rpc = "CreateSandbox";
    let cases = [
        ("hung", rule(rpc, &json!({"hang": {"after": true}}))),
        ("cut", once(rpc, &json!({"cut": {"after": true}}))),
        ("empty", rule(rpc, &json!({"empty": {}}))),
        ("garbage", rule(rpc, &json!({"garbage": {}}))),
        ("huge", rule(rpc, &json!({"huge": {"bytes": 5_000_000}}))),
        (
            "failed",
            rule(rpc, &json!({"fail": {"code": "INTERNAL", "after": true}})),
        ),
        (
            "away",
            once(
                rpc,
                &json!({"fail": {"code": "UNAVAILABLE", "after": true}}),
            ),
        ),
    ];
    let scene = Scene::start(cases.iter().map(|(name, _)| *name));
    scene.set(&cases);
    let creates = cases.each_ref().map(|(name, _)| {
        let args = ["create", "--driver", name, "--name", name];
        scene.gateway.cli(args).spawn()
    });
    scene.others_do_not_notice("seven drivers lose the answer to a create");
    for ((name, _), create) in cases.iter().zip(creates) {
        let id = create.wait().success();
        let sandbox = scene.has_state(name, "READY");
        assert_eq!(sandbox["sandbox_id"], *id);
        scene.works(name);
        let journal = scene.driver(name).journal();
        assert_eq!(journal.count("DeleteSandbox", ""), 0, "{name}");
        let seen = &sandbox["observed"]["boots"];
        assert!(seen.is_null() || *seen == 1, "{name}: {sandbox:#}");
    }
    for name in ["hung", "empty", "garbage", "huge", "failed"] {
        scene.is_explained(name, "create");
        scene.driver(name).heal();
        scene.runs(name);
        scene.is_not_complained_of(name);
    }
}

/// Nothing was done, and that is what is said.
#[test]
fn a_create_that_is_never_done_fails_with_its_reason() {
    let rpc = "CreateSandbox";
    let fail = |code: &str| json!({"fail": {"code": code, "message": "the moon is full", "fix": "wait for morning"}});
    let cases = [
        ("hung", rule(rpc, &json!({"hang": {}})), "answer"),
        ("reset", rule(rpc, &json!({"reset": {}})), "create"),
        (
            "http",
            rule(rpc, &json!({"http": {"status": 503}})),
            "create",
        ),
        ("internal", rule(rpc, &fail("INTERNAL")), "the moon is full"),
        (
            "unhealthy",
            rule(rpc, &fail("FAILED_PRECONDITION")),
            "the moon is full",
        ),
        ("away", rule(rpc, &fail("UNAVAILABLE")), "the moon is full"),
    ];
    let scene = Scene::start(cases.iter().map(|(name, ..)| *name));
    for (name, script, _) in &cases {
        scene.driver(name).set(script);
    }
    let runs = cases.each_ref().map(|(name, ..)| {
        let args = ["run", "--driver", name, "echo", "invented"];
        (name, scene.gateway.cli(args).spawn())
    });
    scene.others_do_not_notice("six drivers refuse to create, or hang in it");
    for (name, _, word) in &cases {
        scene.is_explained(name, word);
    }
    for (name, run) in runs {
        let ran = run.wait();
        assert_eq!(ran.exited(125), "", "{name}");
        ran.says([*name]);
    }
    for (name, ..) in &cases {
        scene.driver(name).heal();
        scene.runs(name);
        scene.is_not_complained_of(name);
    }
}

/// In each call that a living sandbox may need. What needs no driver goes on without one.
#[test]
fn a_driver_that_hangs_does_not_stop_what_runs() {
    let hang = json!({"hang": {}});
    let cases = [
        ("delete", rule("DeleteSandbox", &hang)),
        ("stop", rule("StopSandbox", &hang)),
        ("list", rule("ListSandboxes", &hang)),
        ("recover", rule("RecoverSandboxes", &hang)),
        ("watch", rule("WatchSandboxes", &hang)),
        ("fingerprint", rule("Fingerprint", &hang)),
        ("all", rule("*", &hang)),
    ];
    let scene = Scene::with_sandboxes(&cases);
    scene.set(&cases);
    for name in ["list", "recover", "watch", "fingerprint", "all"] {
        scene.driver(name).cut();
    }
    let remove = scene.gateway.cli(["rm", "--force", "delete"]).spawn();
    let stop = scene.gateway.cli(["stop", "stop"]).spawn();
    scene.others_do_not_notice("seven drivers hang, each in another call");
    for name in ["list", "recover", "watch", "fingerprint", "all"] {
        scene.works(name);
        scene.has_state(name, "READY");
    }
    scene.is_explained("delete", "delete");
    scene.is_explained("stop", "stop");
    scene.is_explained("list", "list");
    scene.is_explained("recover", "recover");
    scene.is_explained("watch", "WatchSandboxes");
    scene.is_explained("fingerprint", "Fingerprint");
    scene.is_explained("all", "does not answer");
    scene.has_state("delete", "DELETING");
    scene.has_state("stop", "STOPPING");
    for (name, _) in &cases {
        scene.driver(name).heal();
    }
    drop((remove, stop));
    scene.is_gone("delete");
    scene.has_state("stop", "STOPPED");
    for name in ["list", "recover", "watch", "fingerprint", "all"] {
        scene.is_not_complained_of(name);
        scene.has_state(name, "READY");
        scene.works(name);
    }
    scene.gateway.ok(["start", "stop"]);
    scene.works("stop");
}

/// The answer to a stop, a start or a delete is lost after the work was done.
#[test]
fn a_change_whose_answer_is_lost_is_done_once_and_known() {
    let lost = |rpc| rule(rpc, &json!({"hang": {"after": true}}));
    let cases = [
        ("stop", lost("StopSandbox")),
        ("start", lost("StartSandbox")),
        ("delete", lost("DeleteSandbox")),
    ];
    let scene = Scene::with_sandboxes(&cases);
    scene.gateway.ok(["stop", "start"]);
    scene.set(&cases);
    let calls = [
        ["stop", "stop"].as_slice(),
        &["start", "start"],
        &["rm", "--force", "delete"],
    ];
    let calls = calls.map(|args| scene.gateway.cli(args).spawn());
    scene.others_do_not_notice("three drivers lose the answers to a stop, a start, a delete");
    scene.has_state("stop", "STOPPED");
    scene.has_state("start", "READY");
    scene.works("start");
    for (name, _) in &cases {
        scene.driver(name).heal();
    }
    for call in calls {
        call.wait().success();
    }
    scene.is_gone("delete");
    scene.has_state("stop", "STOPPED");
    wait::until_true("its processes have ended", || {
        scene.driver("delete").inmates().is_empty()
    });
}

/// How long a slow driver thinks about each call: longer than `others_do_not_notice` allows anybody
/// else to take.
const SLOW_MS: u64 = 6000;

/// Every call of a whole life is slow, and all that time somebody else is served.
#[test]
fn a_slow_driver_is_slow_alone() {
    let scene = Scene::start_with("create = \"120s\"\ndriver = \"60s\"", ["slow"]);
    let script = rule("*", &json!({"delay": {"ms": SLOW_MS}}));
    scene.driver("slow").set(&script);
    let args = ["run", "--driver", "slow", "sh", "-c", "echo out; exit 7"];
    let mut run = scene.gateway.cli(args).spawn();
    while !run.has_ended() {
        scene.others_do_not_notice("a driver takes 6 s for each call");
    }
    assert_eq!(run.wait().exited(7), "out");
    let journal = scene.driver("slow").journal();
    let mut calls = journal.calls.iter();
    assert!(calls.any(|call| call.rpc == "CreateSandbox" && call.fault.is_some()));
    scene.driver("slow").heal();
    scene.is_not_complained_of("slow");
}

/// So slow that somebody who waits wants to know for what; it is said as long as it lasts.
#[test]
fn what_a_slow_driver_is_waited_for_is_said() {
    let scene = Scene::start_with("create = \"300s\"\ndriver = \"300s\"", ["slow"]);
    let script = rule("CreateSandbox", &json!({"hang": {}}));
    scene.driver("slow").set(&script);
    let args = ["run", "--driver", "slow", "sh", "-c", "echo out; exit 7"];
    let run = scene.gateway.cli(args).spawn();
    scene.is_explained("slow", "has not answered create");
    scene.others_do_not_notice("a driver does not answer a create");
    // Now it answers.
    scene.driver("slow").heal();
    assert_eq!(run.wait().exited(7), "out");
    scene.is_not_complained_of("slow");
}
