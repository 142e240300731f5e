//! The drivers of container engines on real engines: those that `cargo xtask test` starts.

use cofferdam_conformance::Config;
use cofferdam_tests::container::{Containers, IMAGE, Kind};
use cofferdam_tests::engine::Engine;
use cofferdam_tests::need;

use crate::support::{Place, libexec, must_have_skipped};

/// What it does not claim, or nobody can see.
const SKIPPED: &[&str] = &[
    "command.run.output",
    "command.run.exit-codes",
    "command.run.arguments",
    "command.run.files",
    "command.run.idempotent",
    "command.run.cancelled",
    "command.run.large-output",
    "command.run.timeout",
    "command.run.deleted",
    "command.run.refused",
    "resources.disk.bound",
    "resources.disk.tmp",
    "resources.disk.no-space",
    "snapshot.store.restores",
    "snapshot.store.identity",
    "snapshot.store.independent",
    "snapshot.store.idempotent",
    "snapshot.store.deleted",
    "snapshot.store.unknown",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_docker_driver_is_conformant() {
    need!(Engine::Containers(Kind::Docker));
    conforms(Kind::Docker, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_docker_driver_is_conformant_when_it_relays() {
    need!(Engine::Containers(Kind::Docker));
    conforms(Kind::Docker, "stream = \"relay\"\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_podman_driver_is_conformant() {
    need!(Engine::Containers(Kind::Podman));
    conforms(Kind::Podman, "").await;
}

async fn conforms(kind: Kind, settings: &str) {
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
    must_have_skipped(&report, SKIPPED);
}
