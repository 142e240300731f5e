//! Images from a registry.

use cofferdam_tests::container::{Containers, Kind};
use cofferdam_tests::engine::Engine;
use cofferdam_tests::registry::{PASSWORD, Registry, USERNAME};
use cofferdam_tests::{need, wait};

use super::Contained;

fn name() -> String {
    format!("team/{}:1", cofferdam_tests::random_name())
}

#[test]
fn an_image_that_is_not_there_is_pulled_and_its_digest_is_recorded() {
    need!(Engine::Containers(Kind::Docker));
    need!(Engine::Program("docker-registry"));
    let registry = Registry::start();
    let contained = Contained::new(Kind::Docker);
    let reference = registry.hold(&contained.engine, &name());
    let flags = ["--image", reference.as_str(), "--name", "pulled"];
    contained.gateway().create(flags);
    assert_eq!(contained.sh("pulled", "echo $FROM_IMAGE"), "yes");
    let about = contained.gateway().json(["inspect", "pulled"]);
    let digest = about["observed"]["image_digest"].as_str();
    assert!(
        digest.is_some_and(|digest| digest.contains("sha256:")),
        "{about:#}"
    );
    contained.gateway().ok(["rm", "--force", "pulled"]);
    contained.engine.say(&["rmi", &reference]);
}

#[test]
fn a_closed_registry_opens_to_the_operators_credentials_and_to_nothing_else() {
    need!(Engine::Containers(Kind::Docker));
    need!(Engine::Program("docker-registry"));
    let mut registry = Registry::start();
    let reference = registry.hold(&Containers::of(Kind::Docker), &name());
    registry.close();
    let table = |password: &str| {
        format!(
            "[drivers.docker.settings.registries.{:?}]\nusername = {USERNAME:?}\npassword = \
             {password:?}\n",
            registry.address()
        )
    };
    for settings in [String::new(), table("wrong")] {
        let contained = Contained::with(Kind::Docker, &settings);
        let create = ["create", "--image", &reference, "--name", "refused"];
        let ran = contained.gateway().run(create);
        ran.exited(125);
        ran.says([reference.as_str()]);
        let about = || contained.gateway().json(["inspect", "refused"]);
        let reason = || about()["observed"]["termination"]["reason"].clone();
        wait::until_true("its reason is told", || reason() == "IMAGE_ACCESS_DENIED");
    }
    let contained = Contained::with(Kind::Docker, &table(PASSWORD));
    contained
        .gateway()
        .create(["--image", reference.as_str(), "--name", "allowed"]);
    assert_eq!(contained.sh("allowed", "echo here"), "here");
    // Nowhere to be seen.
    assert!(!contained.gateway().log().contains(PASSWORD));
    let shown = contained
        .gateway()
        .ok(["--json", "driver", "inspect", "docker"]);
    assert!(!shown.contains(PASSWORD), "{shown}");
    contained.gateway().ok(["rm", "--force", "allowed"]);
    contained.engine.say(&["rmi", &reference]);
}
