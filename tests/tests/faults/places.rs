//! However many executions a driver keeps waiting, there is room for those of the others.

use cofferdam_tests::wait;
use serde_json::{Value, json};

use super::scene::{Scene, TIMES};

#[test]
fn a_driver_that_hangs_takes_no_place_that_another_needs() {
    // Room for nine, and half of it is kept: two for each driver.
    let config = format!("{TIMES}[executions]\nrunning_max = 1\nqueue_max = 8");
    let scene = Scene::start_with(&config, ["hung"]);
    scene
        .gateway
        .create(["--driver", "hung", "--name", "before"]);
    let hang = json!({"rules": [{"rpc": "CreateSandbox", "fault": {"hang": {}}}]});
    scene.driver("hung").set(&hang);
    let args = ["run", "--detach", "--driver", "hung", "echo", "never"];
    let mut waiting = 1;
    scene.gateway.ok(args);
    // What is ready does not wait for its driver.
    scene.works("before");
    let refused = wait::until("the hung driver's room is full", || {
        let ran = scene.gateway.run(args);
        match ran.code() {
            0 => {
                waiting += 1;
                None
            }
            _ => Some(ran),
        }
    });
    refused.exited(125);
    refused.says(["hung", "kept for the other drivers", "executions.queue_max"]);
    assert!((2..9).contains(&waiting), "{waiting} wait");
    // One waits for its sandbox, the others for that.
    let states = states(&scene);
    let count = |state: &str| states.iter().filter(|known| *known == state).count();
    assert!(count("QUEUED") > 0, "{states:?}");
    assert_eq!(count("RUNNING"), 0, "{states:?}");
    scene.others_do_not_notice("a hung driver has filled its room");
    scene.driver("hung").heal();
    wait::until_true("all have ended", || self::states(&scene).is_empty());
    scene.runs("hung");
}

/// Of those that have not ended.
fn states(scene: &Scene) -> Vec<String> {
    let listed = scene.gateway.ok(["--json", "ps"]);
    let all = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let state = |execution: Value| execution["state"].as_str().map(str::to_owned);
    all.filter_map(state).collect()
}
