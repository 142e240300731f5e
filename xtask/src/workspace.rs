//! Where things are, and how to run other programs so that people see what happens.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// How the variables begin that `cargo run` sets for the program that it runs.
const OF_CARGO_RUN: [&str; 5] = [
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_CRATE_NAME",
    "CARGO_BIN_NAME",
    "CARGO_PRIMARY_PACKAGE",
];

/// The repository's root: the parent of this crate.
pub(crate) fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map(Path::to_path_buf).unwrap_or(manifest)
}

/// A cargo command of the same toolchain, run from the root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Set for us by `cargo run`. Build scripts that watch them would run again, with all that
    // depends on them, whenever a nested cargo and one from a shell take turns.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if OF_CARGO_RUN.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&*name);
        }
    }
    command
}

/// What `cargo metadata --no-deps` says.
pub(crate) fn metadata() -> Result<serde_json::Value> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("parse the output of cargo metadata")
}

/// Cargo's target directory, wherever the environment puts it.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata = metadata()?;
    let dir = metadata["target_directory"]
        .as_str()
        .context("cargo metadata has no target_directory")?;
    Ok(PathBuf::from(dir))
}

/// The triple of this machine, as rustc names it.
pub(crate) fn host_triple() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .arg("-vV")
        .current_dir(root())
        .output()
        .context("run rustc -vV")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// Runs a command to its end; anything but success is an error that names the command.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("start {}", show(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", show(command));
    }
    Ok(())
}

/// Runs a cargo command quietly when there is nothing to build: the headline and cargo's own lines
/// appear only once cargo has something to say.
pub(crate) fn cargo_build(headline: &str, command: &mut Command) -> Result<()> {
    if rustix::termios::isatty(std::io::stderr()) {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let start = Instant::now();
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", show(command)))?;
    let stderr = child
        .stderr
        .take()
        .context("cargo's stderr was not piped")?;
    let mut spoke = false;
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line.context("read cargo's messages")?;
        let line = String::from_utf8_lossy(&line);
        if is_closing_line(&line) {
            continue;
        }
        if !spoke {
            eprintln!("==> {headline}");
            spoke = true;
        }
        eprintln!("{line}");
    }
    let status = child.wait().context("wait for cargo")?;
    if !status.success() {
        bail!("{} failed: {status}", show(command));
    }
    if spoke {
        eprintln!("==> done in {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

fn is_closing_line(line: &str) -> bool {
    line.contains("Finished") && line.contains("target(s)")
}

/// A command line as a person would type it.
pub(crate) fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_closing_line_of_a_build_is_dropped() {
        assert!(is_closing_line(
            "    Finished `dev` profile [unoptimized] target(s) in 0.10s"
        ));
        assert!(!is_closing_line("   Compiling finished v1.0.0"));
    }

    #[test]
    fn the_root_holds_the_workspace_manifest() {
        assert!(root().join("rust-toolchain.toml").is_file());
    }
}
