//! `cargo xtask new-driver NAME DIR`: a driver of one's own, to begin with.
//!
//! The template is a crate of this workspace (`driver-sdk/template`), built and tested with it. Its
//! copy stands alone: it gets a manifest made from what cargo knows of the template's, and the lock
//! file of this workspace, so that the very versions are built that were tested here.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace;

const TEMPLATE: &str = "driver-sdk/template";
const PACKAGE: &str = "cofferdam-driver-skeleton";
/// The one that the tests try. With a dash, which is an underscore in Rust.
const TESTED: &str = "acme-cloud";
/// What becomes the driver's name, wherever it stands in the template.
const PLACEHOLDER: &str = "skeleton";

/// Writes a complete driver crate that stands alone: it builds, runs sandboxes (without isolation)
/// and passes the conformance suite.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What the driver is called, as in `cofferdam run --driver NAME`: [a-z0-9-].
    #[arg(value_parser = parse_name)]
    name: String,

    /// Where to write it: a directory that is not there yet, or empty, outside of this repository.
    dir: PathBuf,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let dir = std::path::absolute(&args.dir).context("find the directory")?;
    check_place(&dir)?;
    write_crate(&args.name, &dir)?;
    println!("{}", next_steps(&args.name, &args.dir));
    Ok(ExitCode::SUCCESS)
}

/// As a stranger has it: written by this task and built by itself, outside of the workspace, with no
/// features but its own. The target directory is this workspace's, so that whatever is the same in
/// both is built once; the tests find the program there.
pub(crate) fn build_for_tests() -> Result<()> {
    let target = workspace::target_dir()?;
    let dir = target.join("new-driver").join(TESTED);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    write_crate(TESTED, &dir)?;
    let mut build = workspace::cargo();
    build.current_dir(&dir).args(["build", "--bins"]);
    build.env("CARGO_TARGET_DIR", target);
    workspace::cargo_build(
        "building a driver as `cargo xtask new-driver` writes it (a minute the first time)",
        &mut build,
    )
}

fn write_crate(name: &str, dir: &Path) -> Result<()> {
    let metadata = workspace::metadata()?;
    let template = workspace::root().join(TEMPLATE);
    let manifest = manifest(&template_package(&metadata)?, name)?;
    for (path, content) in rendered(&template, name)? {
        write(&dir.join(path), &content)?;
    }
    write(&dir.join("Cargo.toml"), &manifest)?;
    write(&dir.join(".gitignore"), "/target\n")?;
    let lock = workspace::root().join("Cargo.lock");
    fs::copy(&lock, dir.join("Cargo.lock")).with_context(|| format!("copy {}", lock.display()))?;
    Ok(())
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(is_plain)
        && !text.ends_with('-')
        && !text.contains("--")
        && text.len() <= 32;
    if !good {
        return Err(
            "a name begins with a letter, and has at most 32 letters, digits and single dashes"
                .to_owned(),
        );
    }
    if matches!(text, "sdk" | PLACEHOLDER) {
        return Err(format!("{text:?} is taken by Cofferdam itself"));
    }
    Ok(text.to_owned())
}

/// Nothing that is there is written over.
fn check_place(dir: &Path) -> Result<()> {
    let root = workspace::root();
    // What is not there yet is below something that is.
    let there = dir.ancestors().find_map(|above| above.canonicalize().ok());
    if there.is_some_and(|there| there.starts_with(&root)) {
        bail!(
            "{} is inside of this repository: a driver of your own lives outside, for instance in {}",
            dir.display(),
            root.parent().unwrap_or(&root).join("my-driver").display()
        );
    }
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                bail!("{} is not empty: choose a new directory", dir.display());
            }
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("look at {}", dir.display())),
    }
}

fn write(path: &Path, content: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    fs::write(path, content).with_context(|| format!("write {}", path.display()))
}

/// Every file of the template but its manifest, with the new name, by its new path.
fn rendered(template: &Path, name: &str) -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    let mut pending = vec![template.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let relative = path.strip_prefix(template)?.to_string_lossy().into_owned();
            if relative == "Cargo.toml" {
                continue;
            }
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            files.push((
                PathBuf::from(renamed(&relative, name)),
                renamed(&text, name),
            ));
        }
    }
    files.sort();
    Ok(files)
}

/// In Rust paths a dash is an underscore.
fn renamed(text: &str, name: &str) -> String {
    let module = |name: &str| format!("cofferdam_driver_{}", name.replace('-', "_"));
    text.replace(&module(PLACEHOLDER), &module(name))
        .replace(PLACEHOLDER, name)
}

fn template_package(metadata: &Value) -> Result<Value> {
    let packages = metadata["packages"].as_array();
    let package = packages
        .into_iter()
        .flatten()
        .find(|package| package["name"] == PACKAGE);
    package
        .cloned()
        .with_context(|| format!("{PACKAGE} is not a member of this workspace"))
}

/// The manifest of the copy: what the template inherits from the workspace is written out.
fn manifest(package: &Value, name: &str) -> Result<String> {
    let text = |key: &str| {
        let value = package[key].as_str();
        value.with_context(|| format!("cargo metadata: {PACKAGE} has no {key}"))
    };
    let mut out = String::new();
    writeln!(out, "[package]\nname = \"cofferdam-driver-{name}\"")?;
    writeln!(out, "description = \"{}\"", text("description")?)?;
    writeln!(
        out,
        "version = \"0.1.0\"\nedition = \"{}\"",
        text("edition")?
    )?;
    writeln!(
        out,
        "rust-version = \"{}\"\npublish = false\n",
        text("rust_version")?
    )?;
    out.push_str("# Stands alone, wherever it is.\n[workspace]\n\n");
    out.push_str("[lints.rust]\nunsafe_code = \"forbid\"\n\n");
    out.push_str("[dependencies]\n");
    dependencies(package, None, &mut out)?;
    out.push_str("\n[dev-dependencies]\n");
    dependencies(package, Some("dev"), &mut out)?;
    out.push_str(
        "\n[profile.dev]\n\
         # Backtraces keep file and line; a third of the size of full debug info.\n\
         debug = \"line-tables-only\"\n\n\
         # The supervisor is hashed when it is first used; unoptimised, that takes seconds.\n\
         [profile.dev.package.sha2]\nopt-level = 3\n",
    );
    Ok(out)
}

fn dependencies(package: &Value, kind: Option<&str>, out: &mut String) -> Result<()> {
    let all = package["dependencies"].as_array().into_iter().flatten();
    for dependency in all.filter(|dependency| dependency["kind"].as_str() == kind) {
        let name = dependency["name"].as_str().context("a dependency's name")?;
        let mut parts = Vec::new();
        if let Some(path) = dependency["path"].as_str() {
            out.push_str(
                "# This clone. Once your driver has a life of its own: git = \"…\", rev = \"…\".\n",
            );
            parts.push(format!("path = {path:?}"));
        } else {
            let version = dependency["req"]
                .as_str()
                .context("a dependency's version")?;
            parts.push(format!("version = {:?}", version.trim_start_matches('^')));
        }
        if dependency["uses_default_features"] == false {
            parts.push("default-features = false".to_owned());
        }
        let features: Vec<String> = dependency["features"]
            .as_array()
            .into_iter()
            .flatten()
            .map(Value::to_string)
            .collect();
        if !features.is_empty() {
            parts.push(format!("features = [{}]", features.join(", ")));
        }
        writeln!(out, "{name} = {{ {} }}", parts.join(", "))?;
    }
    Ok(())
}

fn next_steps(name: &str, dir: &Path) -> String {
    let dir = dir.display();
    let book = workspace::root().join("docs/writing-a-driver.md");
    let book = book.display();
    format!(
        "{dir}: a driver that runs, with NO ISOLATION yet. Next:\n\
         \n\
         \x20 cd {dir} && cargo build\n\
         \x20 mkdir -m 700 -p /tmp/{name}\n\
         \x20 target/debug/cofferdam-driver-{name} --socket /tmp/{name}/driver.sock\n\
         \n\
         and in another terminal:\n\
         \n\
         \x20 cofferdam driver conformance --socket /tmp/{name}/driver.sock\n\
         \x20 cofferdam run --embedded --compute-driver-socket {name}=/tmp/{name}/driver.sock --driver {name} --network open -- echo hello\n\
         \n\
         Then replace what is marked: grep -rn REPLACE src. The book of it: {book}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_cargo_systemd_and_the_gateway_take() {
        for good in ["acme", "a", "my-cloud2"] {
            assert_eq!(parse_name(good), Ok(good.to_owned()));
        }
        for wrong in [
            "", "Acme", "2x", "-a", "a-", "a--b", "a_b", "sdk", "skeleton",
        ] {
            assert!(parse_name(wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn the_name_stands_everywhere_in_its_form() {
        assert_eq!(
            renamed(
                "use cofferdam_driver_skeleton::x; // cofferdam-driver-skeleton",
                "my-x"
            ),
            "use cofferdam_driver_my_x::x; // cofferdam-driver-my-x"
        );
    }

    #[test]
    fn the_copy_is_complete_and_nothing_of_the_template_shows() {
        let files = rendered(&workspace::root().join(TEMPLATE), "acme").unwrap();
        let paths: Vec<String> = files
            .iter()
            .map(|(path, _)| path.display().to_string())
            .collect();
        for wanted in [
            "README.md",
            "src/config/settings.schema.json",
            "src/driver.rs",
            "src/main.rs",
            "systemd/cofferdam-driver-acme.service",
            "tests/life.rs",
        ] {
            assert!(
                paths.iter().any(|path| path == wanted),
                "{wanted} in {paths:?}"
            );
        }
        for (path, text) in &files {
            assert!(!text.contains(PLACEHOLDER), "{}", path.display());
        }
    }

    #[test]
    fn the_manifest_needs_no_workspace() {
        let metadata = workspace::metadata().unwrap();
        let text = manifest(&template_package(&metadata).unwrap(), "acme").unwrap();
        assert!(text.contains("name = \"cofferdam-driver-acme\""), "{text}");
        assert!(!text.contains("workspace = true"), "{text}");
        let sdk = format!("path = {:?}", workspace::root().join("driver-sdk"));
        assert!(text.contains(&sdk), "{text}");
    }

    #[test]
    fn nothing_is_written_over_and_nothing_into_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_place(dir.path()).is_ok());
        assert!(check_place(&dir.path().join("new/one")).is_ok());
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(check_place(dir.path()).is_err());
        assert!(check_place(&workspace::root().join("drivers/acme")).is_err());
    }
}
