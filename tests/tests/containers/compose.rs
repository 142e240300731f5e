//! `docker-compose up`: a gateway in a container, as packaging/compose.yaml makes it.

use std::fs;
use std::path::Path;
use std::process::Command;

use cofferdam_tests::binaries::{Installation, link_or_copy};
use cofferdam_tests::cli::{Cli, Ran};
use cofferdam_tests::container::{Containers, IMAGE, Kind};
use cofferdam_tests::engine::Engine;
use cofferdam_tests::home::Home;
use cofferdam_tests::own_docker::OwnDocker;
use cofferdam_tests::{User, need, wait};
use serde_json::Value;

const PROJECT: &str = "cofferdam";

/// What goes into the image, where packaging/compose.yaml looks for it.
const BINARIES: [&str; 4] = [
    "bin/cofferdam",
    "bin/cofferdam-gateway",
    "libexec/cofferdam-driver-docker",
    "libexec/cofferdam-supervisor",
];

/// An engine of its own with the service on it. Nothing of it outlives the engine's directory.
struct Service {
    docker: OwnDocker,
    home: Home,
}

impl Service {
    fn new() -> Self {
        let docker = OwnDocker::start(&[]);
        docker.containers().provide_image();
        let home = Home::new(User::Tester);
        let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
        fs::create_dir(home.join("packaging")).expect("create a directory");
        for name in ["compose.yaml", "compose.toml", "Dockerfile"] {
            let copied = fs::copy(packaging.join(name), home.join("packaging").join(name));
            copied.unwrap_or_else(|error| panic!("copy {name}: {error}"));
        }
        let installation = Installation::built();
        for name in BINARIES {
            let (directory, program) = name.split_once('/').expect("DIRECTORY/PROGRAM");
            let from = match directory {
                "bin" => installation.bin.join(program),
                _ => installation.libexec.join(program),
            };
            let to = home.join("target/cofferdam").join(name);
            fs::create_dir_all(to.parent().expect("a directory")).expect("create a directory");
            strip(&from, &to);
        }
        Self { docker, home }
    }

    fn engine(&self) -> Containers {
        self.docker.containers()
    }

    /// The tool's stdout; it has to succeed.
    #[track_caller]
    fn compose(&self, words: &[&str]) -> String {
        let engine = self.engine();
        let socket = engine.host().trim_start_matches("unix://").to_owned();
        let output = Command::new("docker-compose")
            .arg("--file")
            .arg(self.home.join("packaging/compose.yaml"))
            .args(["--project-name", PROJECT])
            .args(words)
            .current_dir("/")
            .env("DOCKER_HOST", engine.host())
            .env("COFFERDAM_BASE", IMAGE)
            .env("COFFERDAM_ENGINE", socket)
            .env("COFFERDAM_RUN", self.home.join("run"))
            .output()
            .expect("run docker-compose");
        assert!(
            output.status.success(),
            "docker-compose {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A caller on the engine's host.
    fn call(&self, args: &[&str]) -> Ran {
        let socket = self.home.join("run/gateway.sock");
        Cli::new(&Installation::built(), User::Tester, &self.home)
            .env("COFFERDAM_GATEWAY", &socket.to_string_lossy())
            .args(args)
            .run()
    }

    fn wait_until_it_serves(&self) {
        let mut said = String::new();
        let serves = wait::within(wait::PATIENCE, || {
            let ran = self.call(&["--json", "driver", "inspect", "docker"]);
            said = format!("{}{}", ran.text(), ran.stderr);
            let about: Value = serde_json::from_slice(&ran.stdout).ok()?;
            (about["health"] == "HEALTHY").then_some(())
        });
        let log = || self.compose(&["logs", "--no-color"]);
        assert!(serves.is_some(), "{said}\n{}", log());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // What it leaves is in the engine's own directory, but not what runs.
        if !std::thread::panicking() {
            self.compose(&["down", "--volumes", "--timeout", "10"]);
        }
    }
}

/// A tenth of the size, where there is something to strip with.
fn strip(from: &Path, to: &Path) {
    let stripped = Command::new("strip").arg("-o").arg(to).arg(from).status();
    if !stripped.is_ok_and(|status| status.success()) {
        link_or_copy(from, to);
    }
}

#[test]
fn compose_gives_a_gateway_whose_sandboxes_are_its_neighbours() {
    need!(Engine::Containers(Kind::Docker));
    need!(Engine::Program("docker-compose"));
    let service = Service::new();
    service.compose(&["up", "--detach", "--build"]);
    service.wait_until_it_serves();

    // By the socket in the mounted directory, and from within.
    let create = ["create", "--image", IMAGE, "--name", "kept"];
    service.call(&create).success();
    let said = service.call(&["exec", "kept", "id", "-u"]);
    assert_eq!(said.success(), "1000");
    let within = ["exec", "-T", "gateway", "cofferdam"];
    let run = ["run", "--image", IMAGE, "echo", "from within"];
    let said = service.compose(&[&within[..], &run].concat());
    assert_eq!(said, "from within");

    // No path of the gateway's is the engine's, so nothing of its own is mounted.
    let said = service.call(&["--json", "inspect", "kept"]).success();
    let about: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(about["observed"]["stream"], "relay", "{about:#}");

    let gateway = service.compose(&["ps", "-q", "gateway"]);
    let text = service.engine().say(&["inspect", &gateway]);
    let seen: Value = serde_json::from_str(&text).expect("JSON");
    let config = &seen[0]["HostConfig"];
    assert_eq!(config["NetworkMode"], "none");
    assert_eq!(config["ReadonlyRootfs"], true);
    assert_eq!(config["CapDrop"][0], "ALL");
    assert_eq!(config["Privileged"], false);

    // A gateway of a newer image, with the same records: what runs goes on.
    let write = ["exec", "kept", "sh", "-c", "echo yes > kept"];
    service.call(&write).success();
    service.compose(&["up", "--detach", "--force-recreate"]);
    service.wait_until_it_serves();
    let said = service.call(&["exec", "kept", "cat", "kept"]);
    assert_eq!(said.success(), "yes");
    service.call(&["rm", "--force", "kept"]).success();
}
