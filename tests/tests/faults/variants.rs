//! Each rule of the contract broken by one driver, all of them beside each other.

use cofferdam_driver_sdk::faults::Variant;
use serde_json::json;

use super::scene::Scene;

/// None of these rules is one that a whole life depends on: every result is right, and nothing stays.
#[test]
fn no_broken_rule_invents_a_result_or_hurts_another_driver() {
    let name = |variant: &Variant| variant.name().replace('_', "-");
    let names: Vec<String> = Variant::ALL.iter().map(name).collect();
    let scene = Scene::start(names.iter().map(String::as_str));
    for (variant, name) in Variant::ALL.iter().zip(&names) {
        scene
            .driver(name)
            .set(&json!({ "variant": variant.name() }));
        scene.driver(name).cut();
    }
    scene.others_do_not_notice("every driver but one breaks a rule");
    for name in &names {
        scene.runs(name);
        scene
            .gateway
            .create(["--driver", name, "--name", name.as_str()]);
        scene.works(name);
        scene.gateway.ok(["rm", "--force", name]);
        scene.is_gone(name);
    }
    scene.others_do_not_notice("every driver but one has broken its rule");
    for name in &names {
        cofferdam_tests::wait::until_true("nothing of it runs", || {
            scene.driver(name).inmates().is_empty()
        });
    }
}
