//! Each rule of the contract broken by one driver, all of them beside each other.

use cofferdam_driver_sdk::faults::Variant;
use serde_json::json;

use super::scene::Scene;

/// A result is right, or it is said that there is none; the gateway lives, and nothing stays.
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
    for (variant, name) in Variant::ALL.iter().zip(&names) {
        let args = ["run", "--driver", name, "sh", "-c", "echo out; exit 7"];
        let ran = scene.gateway.run(args);
        match ran.code() {
            7 => assert_eq!(ran.text(), "out\n", "{variant:?}"),
            _ => drop(ran.exited(125)),
        }
        let made = scene
            .gateway
            .run(["create", "--driver", name, "--name", name]);
        if made.code() == 0 {
            scene.works(name);
            scene.gateway.ok(["rm", "--force", name]);
            scene.is_gone(name);
        } else {
            made.says([name.as_str()]);
        }
    }
    scene.others_do_not_notice("every driver but one has broken its rule");
    for name in &names {
        cofferdam_tests::wait::until_true("nothing of it runs", || {
            scene.driver(name).inmates().is_empty()
        });
    }
}
