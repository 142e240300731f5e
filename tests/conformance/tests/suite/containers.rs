//! The drivers of container engines on real engines: those that `cargo xtask test` starts.

use cofferdam_conformance::Config;
use cofferdam_tests::container::{Containers, IMAGE, Kind};
use cofferdam_tests::engine::Engine;
use cofferdam_tests::need;

use crate::support::{Place, libexec, must_have_skipped};

/// What it does not claim, or nobody can see.
const SKIPPED: &[&str] = &["command", "resources.disk", "snapshot.store"];

/// Who calls is the relay then, which is not killed in its supervisor's place.
const SKIPPED_RELAYED: &[&str] = &["core.ending.signaled"];

#[tokio::test(flavor = "multi_thread")]
async fn the_docker_driver_is_conformant() {
    need!(Engine::Containers(Kind::Docker));
    conforms(Kind::Docker, "", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_docker_driver_is_conformant_when_it_relays() {
    need!(Engine::Containers(Kind::Docker));
    conforms(Kind::Docker, "stream = \"relay\"\n", SKIPPED_RELAYED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_podman_driver_is_conformant() {
    need!(Engine::Containers(Kind::Podman));
    conforms(Kind::Podman, "", &[]).await;
}

async fn conforms(kind: Kind, settings: &str, also_skipped: &[&str]) {
    let containers = Containers::of(kind);
    let mut place = Place::new();
    let file = place.directory.path().join("conformance.toml");
    let text = format!(
        "[settings]\n{}{settings}[sandbox]\nimage = {IMAGE:?}\n",
        containers.settings()
    );
    std::fs::write(&file, text).unwrap();
    place.options.config = Config::load(&file).unwrap();
    let driver = format!("cofferdam-driver-{}", kind.name());
    place.options.start_command = vec![
        libexec().join(driver).into(),
        "--socket".into(),
        place.options.socket.clone().into(),
    ];
    let report = place.run().await.unwrap();
    assert_eq!(report.failed(), Vec::<&str>::new());
    must_have_skipped(&report, &[SKIPPED, also_skipped].concat());
}
