//! Builds the product's binaries and collects them as an installation would have them:
//!
//! ```text
//! <target>/cofferdam/bin/      cofferdam  cofferdam-gateway
//! <target>/cofferdam/libexec/  cofferdam-driver-process  cofferdam-process-shim  cofferdam-supervisor
//!                              cofferdam-driver-docker   cofferdam-driver-podman
//! ```
//!
//! Supervisor and shim are built apart: static. The supervisor runs in file systems that are not
//! ours; both are started once for each sandbox, and a dynamic loader would take as long as they.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace;

pub(crate) const PACKAGES: &[&str] = &[
    "cofferdam-cli",
    "cofferdam-gateway",
    "cofferdam-driver-process",
    "cofferdam-driver-docker",
    "cofferdam-driver-podman",
];
const BIN: &[&str] = &["cofferdam", "cofferdam-gateway"];
const LIBEXEC: &[&str] = &[
    "cofferdam-driver-process",
    "cofferdam-driver-docker",
    "cofferdam-driver-podman",
];
/// Package and program of what is static.
const STATIC: &[(&str, &str)] = &[
    ("cofferdam-supervisor", "cofferdam-supervisor"),
    ("cofferdam-driver-process", "cofferdam-process-shim"),
];

/// Where the collected binaries are.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) bin: PathBuf,
    pub(crate) libexec: PathBuf,
}

impl Collected {
    /// Tells a program of ours, or a test of it, where its parts are.
    pub(crate) fn point(&self, command: &mut Command) {
        command
            .env("COFFERDAM_BIN_DIR", &self.bin)
            .env("COFFERDAM_LIBEXEC", &self.libexec);
    }
}

/// How gateway, CLI and drivers are built. What is static is always optimised, because its size and
/// speed are part of what is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// Quick to build.
    Debug,
    Release,
    /// As `Debug`, with all test targets: `cargo test` then finds everything built, with the same
    /// features.
    Tests,
}

/// Builds everything a sandbox needs.
pub(crate) fn build(how: Build) -> Result<Collected> {
    let target = workspace::target_dir()?;
    let triple = workspace::host_triple()?;
    workspace::cargo_build(
        "building supervisor and shim (static, optimised; about a minute the first time)",
        &mut static_command(&triple),
    )?;
    workspace::cargo_build(
        "building gateway, CLI and drivers (a minute or two the first time)",
        &mut main_command(how),
    )?;

    let built = target.join(if how == Build::Release {
        "release"
    } else {
        "debug"
    });
    let home = target.join("cofferdam");
    let collected = Collected {
        bin: home.join("bin"),
        libexec: home.join("libexec"),
    };
    for name in BIN {
        collect(&built.join(name), &collected.bin)?;
    }
    for name in LIBEXEC {
        collect(&built.join(name), &collected.libexec)?;
    }
    for (_, name) in STATIC {
        let built = target.join(&triple).join("supervisor").join(name);
        collect(&built, &collected.libexec)?;
    }
    Ok(collected)
}

fn main_command(how: Build) -> Command {
    let mut command = workspace::cargo();
    command.arg("build");
    match how {
        Build::Tests => {
            command.args(["--workspace", "--all-targets"]);
        }
        Build::Debug | Build::Release => {
            command.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
        }
    }
    if how == Build::Release {
        command.arg("--release");
    }
    command
}

/// Without `--target` the static flag would reach proc macros, which cannot be static. Without
/// its default features the driver's package is the shim alone.
fn static_command(triple: &str) -> Command {
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    if !flags.is_empty() {
        flags.push(' ');
    }
    flags.push_str("-C target-feature=+crt-static");
    let mut command = workspace::cargo();
    command.args(["build", "--no-default-features"]);
    for (package, program) in STATIC {
        command.args(["--package", package, "--bin", program]);
    }
    command
        .args(["--profile", "supervisor", "--target", triple])
        .env("RUSTFLAGS", flags);
    command
}

/// Puts a built file into `dir` by rename, so that a copy in use keeps its inode.
fn collect(built: &Path, dir: &Path) -> Result<()> {
    let name = built.file_name().context("a binary has a name")?;
    let place = dir.join(name);
    let source = fs::metadata(built).with_context(|| format!("find {}", built.display()))?;
    if fs::metadata(&place)
        .is_ok_and(|present| present.ino() == source.ino() && present.dev() == source.dev())
    {
        return Ok(());
    }
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let fresh = dir.join(format!(
        ".{}.{}",
        name.to_string_lossy(),
        std::process::id()
    ));
    if fs::hard_link(built, &fresh).is_err() {
        fs::copy(built, &fresh).with_context(|| format!("copy {}", built.display()))?;
    }
    fs::rename(&fresh, &place).with_context(|| format!("put {} in place", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collecting_replaces_an_older_file_and_is_idempotent() {
        let dir = tempfile::tempdir().unwrap();
        let built = dir.path().join("tool");
        let home = dir.path().join("home");
        for content in ["one", "two"] {
            // As a linker does: a new file, not the old one written over.
            let _ = fs::remove_file(&built);
            fs::write(&built, content).unwrap();
            collect(&built, &home).unwrap();
            collect(&built, &home).unwrap();
            assert_eq!(fs::read_to_string(home.join("tool")).unwrap(), content);
        }
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    }
}
