//! An engine that goes away and comes back.

use cofferdam_tests::container::Kind;
use cofferdam_tests::engine::Engine;
use cofferdam_tests::own_docker::OwnDocker;
use cofferdam_tests::{TestGateway, need, wait};

use super::Contained;

fn on(docker: &OwnDocker) -> Contained {
    let engine = docker.containers();
    engine.provide_image();
    Contained::on(engine, TestGateway::builder(), "")
}

fn reason(contained: &Contained, name: &str) -> String {
    let about = contained.gateway().json(["inspect", name]);
    let reason = about["observed"]["termination"]["reason"].as_str();
    reason.unwrap_or_default().to_owned()
}

fn health(contained: &Contained) -> String {
    let driver = contained.gateway().driver("docker");
    let health = driver["health"].as_str();
    health.unwrap_or_else(|| panic!("{driver:#}")).to_owned()
}

#[test]
fn sandboxes_that_end_with_their_engine_are_said_to_be_lost() {
    need!(Engine::Containers(Kind::Docker));
    let mut docker = OwnDocker::start(&[]);
    let contained = on(&docker);
    let id = contained.create("lost", &[]);
    docker.stop();
    wait::until_true("it is said", || health(&contained) == "UNHEALTHY");
    let doctor = contained.gateway().run(["doctor"]);
    assert_ne!(doctor.code(), 0);
    assert!(
        doctor.text().contains("systemctl start docker"),
        "{}",
        doctor.text()
    );
    docker.start_again();
    wait::until_true("it is back", || health(&contained) == "HEALTHY");
    wait::until_true("it is said why", || {
        reason(&contained, "lost") == "PLATFORM_LOST"
    });
    contained.gateway().ok(["rm", "--force", "lost"]);
    assert_eq!(contained.engine.of_sandbox(&id), [""; 0]);
    contained.create("next", &[]);
    assert_eq!(contained.sh("next", "echo alive"), "alive");
    drop(contained);
}

#[test]
fn sandboxes_that_survive_their_engine_go_on() {
    need!(Engine::Containers(Kind::Docker));
    let mut docker = OwnDocker::start(&["--live-restore"]);
    let contained = on(&docker);
    let id = contained.create("survivor", &[]);
    let before = contained.container(&id)["State"]["Pid"].clone();
    let script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; sleep 0.02; done";
    let running = contained
        .gateway()
        .cli(["exec", "survivor", "sh", "-c", script])
        .spawn();
    running.expect("10\n");
    docker.kill();
    docker.start_again();
    wait::until_true("it is back", || health(&contained) == "HEALTHY");
    let wanted: Vec<String> = (1..=300).map(|number| number.to_string()).collect();
    let text = running.wait().success();
    assert_eq!(text.lines().collect::<Vec<_>>(), wanted);
    assert_eq!(contained.container(&id)["State"]["Pid"], before);
    contained.gateway().ok(["stop", "survivor"]);
    contained.gateway().ok(["start", "survivor"]);
    let ready = || contained.gateway().json(["inspect", "survivor"])["state"] == "READY";
    wait::until_true("it is ready again", ready);
    drop(contained);
}
