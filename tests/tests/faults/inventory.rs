//! Drivers that lie about what there is.

use cofferdam_tests::wait;
use serde_json::json;

use super::scene::Scene;

/// Nothing is taken for gone because it was not seen.
#[test]
fn what_a_list_leaves_out_is_kept() {
    let cases = [
        ("omits", json!({"inventory": {"omit": ["*"]}})),
        (
            "partial",
            json!({"inventory": {"omit": ["*"], "incomplete": true}}),
        ),
        ("endless", json!({"inventory": {"endless": true}})),
    ];
    let scene = Scene::with_sandboxes(&cases);
    scene.set(&cases);
    for (name, _) in &cases {
        // The inventory is taken when a driver has come back.
        scene.driver(name).cut();
    }
    scene.others_do_not_notice("the lists of three drivers are not whole");
    scene.is_explained("omits", "leaves out");
    scene.is_explained("partial", "not complete");
    scene.is_explained("endless", "list");
    for (name, _) in &cases {
        scene.has_state(name, "READY");
        scene.works(name);
        scene.runs(name);
    }
    for (name, _) in &cases {
        scene.driver(name).heal();
        scene.is_not_complained_of(name);
        scene.has_state(name, "READY");
    }
}

#[test]
fn what_a_driver_invents_is_not_shown() {
    let ghost = "sbx-ghost-of-nobody";
    let cases = [("invents", json!({"inventory": {"invent": [ghost]}}))];
    let scene = Scene::with_sandboxes(&cases);
    scene.set(&cases);
    scene.driver("invents").cut();
    // It may be left of a delete that the driver did not hear of.
    wait::until_true("it is to be removed", || {
        let journal = scene.driver("invents").journal();
        journal.count("DeleteSandbox", ghost) > 0
    });
    scene.others_do_not_notice("a driver invents a sandbox");
    let all = scene.gateway.ok(["--json", "ls", "--all"]);
    assert!(!all.contains(ghost), "{all}");
    scene.has_state("invents", "READY");
    scene.works("invents");
    scene.runs("invents");
}

/// The driver is asked for it by name, and says for certain that it is not there.
#[test]
fn what_a_driver_denies_is_failed_with_its_reason_and_can_be_removed() {
    let cases = [(
        "denies",
        json!({"inventory": {"omit": ["*"], "deny": true}}),
    )];
    let scene = Scene::with_sandboxes(&cases);
    scene.set(&cases);
    scene.driver("denies").cut();
    let sandbox = scene.has_state("denies", "FAILED");
    assert_eq!(sandbox["reason"], "PLATFORM_LOST", "{sandbox:#}");
    scene.is_explained("denies", "does not know");
    scene.others_do_not_notice("a driver denies a sandbox");
    scene.gateway.ok(["rm", "denies"]);
    scene.is_gone("denies");
    wait::until_true("its processes have ended", || {
        scene.driver("denies").inmates().is_empty()
    });
}
