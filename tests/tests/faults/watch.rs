//! Drivers that do not tell what happens, or tell it wrong, or do not stop telling.

use serde_json::{Value, json};

use super::scene::Scene;

/// A sandbox's whole life.
fn lives(scene: &Scene, driver: &str) {
    let gateway = &scene.gateway;
    gateway.create(["--driver", driver, "--name", driver]);
    scene.works(driver);
    gateway.ok(["stop", driver]);
    scene.has_state(driver, "STOPPED");
    gateway.ok(["start", driver]);
    scene.has_state(driver, "READY");
    scene.works(driver);
    gateway.ok(["rm", "--force", driver]);
    scene.is_gone(driver);
    scene.runs(driver);
}

#[test]
fn a_watch_that_breaks_or_is_silent_is_said_and_lives_are_whole() {
    let watch = |faults: Value| json!({ "watch": faults });
    let cases = [
        ("ends", watch(json!({"end": true}))),
        ("frozen", watch(json!({"freeze": true}))),
        ("unsynced", watch(json!({"drop": ["synced"]}))),
    ];
    let scene = Scene::start(cases.iter().map(|(name, _)| *name));
    scene.set(&cases);
    for (name, _) in &cases {
        scene.driver(name).cut();
    }
    scene.others_do_not_notice("the watches of three drivers are of no use");
    for (name, _) in &cases {
        lives(&scene, name);
    }
    for (name, _) in &cases {
        scene.is_explained(name, "WatchSandboxes");
    }
    for (name, _) in &cases {
        scene.driver(name).heal();
        // What a stream has not told it does not tell later.
        scene.driver(name).cut();
        scene.is_not_complained_of(name);
    }
}

#[test]
fn a_life_is_whole_also_when_none_of_it_is_told() {
    let cases = [("untold", json!({"watch": {"drop": ["changed", "deleted"]}}))];
    let scene = Scene::start(["untold"]);
    scene.set(&cases);
    lives(&scene, "untold");
    scene.others_do_not_notice("a driver does not tell changes");
}

#[test]
fn what_is_told_twice_late_or_out_of_order_does_no_harm() {
    let cases = [
        ("twice", json!({"watch": {"duplicate": true}})),
        ("reorders", json!({"watch": {"reorder": true}})),
        ("stale", json!({"watch": {"stale": true}})),
    ];
    let scene = Scene::start(cases.iter().map(|(name, _)| *name));
    scene.set(&cases);
    scene.others_do_not_notice("three drivers tell changes wrong");
    for (name, _) in &cases {
        lives(&scene, name);
        scene.is_not_complained_of(name);
    }
}

#[test]
fn a_driver_that_does_not_stop_talking_is_heard_and_costs_the_others_nothing() {
    let cases = [("floods", json!({"watch": {"flood": true}}))];
    let scene = Scene::with_sandboxes(&cases);
    scene.set(&cases);
    scene.is_explained("floods", "changes a second");
    for round in 0..3 {
        scene.others_do_not_notice(&format!("a driver floods, round {round}"));
    }
    scene.works("floods");
    scene.runs("floods");
    scene.driver("floods").heal();
    scene.is_not_complained_of("floods");
    scene.has_state("floods", "READY");
}
