//! What the example driver in Python runs with: a virtual environment under the target directory, with
//! exactly the packages that the example pins.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::workspace;

const REQUIREMENTS: &str = "docs/examples/python-driver/requirements.txt";

/// In the target directory. The tests look for it by this name.
const DIRECTORY: &str = "python-venv";

/// A copy of what it was made from, put there when it is complete.
const MADE_FROM: &str = "requirements.txt";

/// Shows it; makes it anew if it is not there or is not what the example pins, unless `check`.
pub(super) fn environment(check: bool) -> Result<ExitCode> {
    let requirements = workspace::root().join(REQUIREMENTS);
    let pinned =
        fs::read_to_string(&requirements).with_context(|| format!("read {REQUIREMENTS}"))?;
    let directory = workspace::target_dir()?.join(DIRECTORY);
    let is_made = |directory: &Path| {
        fs::read_to_string(directory.join(MADE_FROM)).is_ok_and(|made_from| made_from == pinned)
    };
    if !is_made(&directory) && !check {
        make(&directory, &requirements)?;
    }
    if is_made(&directory) {
        println!("present  {DIRECTORY:<10} {}", directory.display());
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "missing  {DIRECTORY:<10} tests: the packages of {REQUIREMENTS}; `cargo xtask engines` makes it"
    );
    Ok(ExitCode::FAILURE)
}

fn make(directory: &Path, requirements: &Path) -> Result<()> {
    let python = super::on_path("python3").context("python3 is not installed")?;
    workspace::check(
        Command::new(python)
            .args(["-m", "venv", "--clear"])
            .arg(directory),
    )?;
    // What pip says is progress, not this task's result.
    workspace::check(
        Command::new(directory.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .arg("--requirement")
            .arg(requirements)
            .stdout(std::io::stderr()),
    )
    .context("install the packages of the example driver in Python")?;
    fs::copy(requirements, directory.join(MADE_FROM)).context("note what was installed")?;
    Ok(())
}
