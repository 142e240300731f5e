//! What a test needs from the host. What is missing is a printed reason to skip; where
//! `COFFERDAM_REQUIRE_ENGINES` is set, as on CI, it is a failure.

use std::io::Write as _;
use std::path::Path;

use crate::{container, user};

/// Leaves the test if the host lacks something.
#[macro_export]
macro_rules! need {
    ($engine:expr) => {
        if !$crate::engine::is_there($engine) {
            return $crate::engine::skipped();
        }
    };
}

/// Something of the host that a test cannot bring along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The tests run as root.
    Root,
    /// The tester may make cgroups for others.
    Cgroups,
    /// An engine of this kind.
    Containers(container::Kind),
    /// A program somewhere in the system's directories.
    Program(&'static str),
    /// What the example driver in Python runs with; `cargo xtask engines` makes it.
    Python,
    /// A driver as `cargo xtask new-driver` writes it; `cargo xtask test` builds one.
    Skeleton,
}

/// What a test that cannot run returns: nothing, or an empty success.
pub fn skipped<T: Default>() -> T {
    T::default()
}

/// Says why not, if not.
pub fn is_there(engine: Engine) -> bool {
    let Some(reason) = missing(engine) else {
        return true;
    };
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var_os("COFFERDAM_REQUIRE_ENGINES").is_none(),
        "{test} needs more than this host has: {reason}"
    );
    // Not by a macro: those are shown for failed tests only.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
    false
}

fn missing(engine: Engine) -> Option<String> {
    match engine {
        Engine::Root => {
            (!user::tester_is_root()).then(|| "the tests do not run as root".to_owned())
        }
        Engine::Cgroups => crate::cgroup::Hierarchies::find()
            .err()
            .map(|reason| format!("no cgroups can be handed over: {reason}")),
        Engine::Containers(kind) => kind.missing(),
        Engine::Python => crate::python::missing(),
        Engine::Skeleton => crate::skeleton::missing(),
        Engine::Program(name) => {
            let found = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
                .iter()
                .any(|dir| Path::new(dir).join(name).exists());
            (!found).then(|| format!("{name} is not installed"))
        }
    }
}
