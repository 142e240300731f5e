//! Sandboxes as containers, on real engines.

mod away;
mod compose;
mod death;
mod life;
mod pull;
mod seal;

use cofferdam_tests::TestGateway;
use cofferdam_tests::container::{Containers, IMAGE, Kind};
use cofferdam_tests::gateway::Builder;
use serde_json::Value;

/// Makes a test of each function for each kind of engine.
macro_rules! for_each_engine {
    ($($name:ident),* $(,)?) => {
        mod on_docker {
            use cofferdam_tests::container::Kind;
            $(#[test]
            fn $name() {
                cofferdam_tests::need!(cofferdam_tests::engine::Engine::Containers(Kind::Docker));
                super::$name(Kind::Docker);
            })*
        }
        mod on_podman {
            use cofferdam_tests::container::Kind;
            $(#[test]
            fn $name() {
                cofferdam_tests::need!(cofferdam_tests::engine::Engine::Containers(Kind::Podman));
                super::$name(Kind::Podman);
            })*
        }
    };
}
use for_each_engine;

/// A gateway whose sandboxes are containers. Dropped, nothing of it may be left on the engine.
pub(crate) struct Contained {
    pub(crate) engine: Containers,
    gateway: Option<TestGateway>,
    gateway_id: String,
}

impl Contained {
    pub(crate) fn new(kind: Kind) -> Self {
        Self::with(kind, "")
    }

    /// With more settings of the driver, in TOML.
    pub(crate) fn with(kind: Kind, settings: &str) -> Self {
        Self::built(kind, TestGateway::builder(), settings)
    }

    pub(crate) fn built(kind: Kind, builder: Builder, settings: &str) -> Self {
        Self::on(Containers::of(kind), builder, settings)
    }

    pub(crate) fn on(engine: Containers, builder: Builder, settings: &str) -> Self {
        let gateway = engine.for_gateway_with(builder, settings).start();
        let version = gateway.json(["version"]);
        let id = version["gateway"]["gateway_id"].as_str();
        let gateway_id = id.unwrap_or_else(|| panic!("{version}")).to_owned();
        Self {
            engine,
            gateway: Some(gateway),
            gateway_id,
        }
    }

    pub(crate) fn gateway(&self) -> &TestGateway {
        self.gateway.as_ref().expect("until it is dropped")
    }

    pub(crate) fn gateway_mut(&mut self) -> &mut TestGateway {
        self.gateway.as_mut().expect("until it is dropped")
    }

    /// Makes a sandbox of the tests' image; its id.
    #[track_caller]
    pub(crate) fn create(&self, name: &str, flags: &[&str]) -> String {
        let own = ["--image", IMAGE, "--name", name];
        self.gateway().create(own.iter().chain(flags))
    }

    /// A shell script in a sandbox that has to succeed; its stdout.
    #[track_caller]
    pub(crate) fn sh(&self, name: &str, script: &str) -> String {
        self.gateway().ok(["exec", name, "sh", "-c", script])
    }

    /// What the engine says of the one container of a sandbox.
    #[track_caller]
    pub(crate) fn container(&self, sandbox_id: &str) -> Value {
        let ids = self.engine.of_sandbox(sandbox_id);
        assert_eq!(ids.len(), 1, "containers of {sandbox_id}: {ids:?}");
        let text = self.engine.say(&["inspect", &ids[0]]);
        let mut all: Value = serde_json::from_str(&text).expect("JSON");
        all[0].take()
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        // Its own checks first; it ends here.
        drop(self.gateway.take());
        if !std::thread::panicking() {
            self.engine.check_nothing_is_left(&self.gateway_id);
        }
    }
}
