//! The example driver in Python, as its README says to start it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binaries;
use crate::home::Home;
use crate::lasting::LastingDriver;
use crate::user::User;

/// Made by `cargo xtask engines`.
const ENVIRONMENT: &str = "python-venv";

/// Why the driver cannot be started here, if it cannot.
pub(crate) fn missing() -> Option<String> {
    let made_from = fs::read(environment().join("requirements.txt")).ok();
    let pinned = fs::read(example().join("requirements.txt")).expect("read what is pinned");
    (made_from.as_ref() != Some(&pinned)).then(|| {
        let environment = environment();
        format!(
            "{} does not hold what the example driver in Python needs; `cargo xtask engines` makes it",
            environment.display()
        )
    })
}

/// With its stubs generated, not started.
pub fn driver() -> LastingDriver {
    let home = Home::new(User::Tester);
    let stubs = home.join("gen");
    generate(&stubs);
    let mut command = Command::new(environment().join("bin/python"));
    command.arg(example().join("main.py"));
    command.arg("--state").arg(home.join("state"));
    command.env("PYTHONPATH", stubs);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    LastingDriver::new(home, command, "serving, incarnation")
}

/// For a gateway that starts it itself: a program without arguments.
pub fn program(driver: &LastingDriver) -> PathBuf {
    let command = driver.command();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let stubs = driver.home().join("gen");
    let script = format!(
        "#!/bin/sh\nPYTHONPATH={} exec {}\n",
        stubs.display(),
        words.join(" ")
    );
    let path = driver.home().file(User::Tester, "python-driver", &script);
    binaries::open_to_all(&path);
    path
}

/// The one command of the README.
fn generate(stubs: &Path) {
    fs::create_dir(stubs).expect("create a directory");
    let out = |what: &str| format!("--{what}_out={}", stubs.display());
    let ran = Command::new(environment().join("bin/python"))
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(repository().join("proto"))
        .args([out("python"), out("pyi"), out("grpc_python")])
        .arg("cofferdam/compute/v1/compute_driver.proto")
        .output()
        .expect("run protoc");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "generate the stubs: {said}");
}

fn environment() -> PathBuf {
    binaries::target_dir().join(ENVIRONMENT)
}

fn example() -> PathBuf {
    repository().join("docs/examples/python-driver")
}

fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("a directory above").to_path_buf()
}
