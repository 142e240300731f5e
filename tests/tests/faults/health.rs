//! Platforms that are ill, and that cannot decide whether they are.

use serde_json::json;

use super::scene::Scene;

#[test]
fn an_unhealthy_platform_takes_nothing_new_and_what_runs_goes_on() {
    let cases = [
        (
            "ill",
            json!({"health": {"is": "UNHEALTHY", "reason": "the disk is on fire",
                              "fix": "call the fire brigade"}}),
        ),
        (
            "nowhere",
            json!({"health": {"is": "UNDETECTED", "reason": "no engine is installed",
                              "fix": "install an engine"}}),
        ),
    ];
    let scene = Scene::with_sandboxes(&cases);
    scene.set(&cases);
    let words = ["the disk is on fire", "no engine is installed"];
    for ((name, _), word) in cases.iter().zip(words) {
        scene.is_explained(name, word);
        let ran = scene.gateway.run(["create", "--driver", name]);
        ran.exited(125);
        ran.says([*name, word]);
        scene.has_state(name, "READY");
        scene.works(name);
    }
    scene.others_do_not_notice("two platforms are ill");
    for (name, _) in &cases {
        scene.driver(name).heal();
        scene.is_not_complained_of(name);
        scene.runs(name);
    }
}

#[test]
fn a_platform_that_flaps_is_said_to() {
    let cases = [(
        "flaps",
        json!({"health": {"is": "UNHEALTHY", "reason": "a loose cable", "fix": "push it in",
                          "flap_ms": 50}}),
    )];
    let scene = Scene::with_sandboxes(&cases);
    scene.set(&cases);
    scene.is_explained("flaps", "turned");
    scene.others_do_not_notice("a platform flaps");
    scene.has_state("flaps", "READY");
    scene.works("flaps");
}
