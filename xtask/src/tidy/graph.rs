//! Rules about who depends on whom.
//!
//! ```text
//! proto <- driver-sdk <- drivers/* (docker, podman <- engine)      proto <- gateway <- cli      proto <- supervisor
//! ```

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Files, Finding, numbered};
use crate::workspace;

/// A crate of this workspace.
#[derive(Debug, Clone, Default)]
pub(super) struct Crate {
    /// Relative to the root: `drivers/process`.
    folder: String,
    /// Names of workspace crates linked into what it builds.
    linked: BTreeSet<String>,
    /// Names of workspace crates used by its tests only.
    tests: BTreeSet<String>,
}

/// Crates by name.
#[derive(Debug, Default)]
pub(super) struct Graph(BTreeMap<String, Crate>);

impl Graph {
    /// From the output of `cargo metadata --no-deps`.
    pub(super) fn read(metadata: &Value) -> Result<Self> {
        let root = workspace::root().to_string_lossy().into_owned();
        let packages = metadata["packages"]
            .as_array()
            .context("cargo metadata has no packages")?;
        let mut crates = BTreeMap::new();
        for package in packages {
            let name = text(package, "name")?;
            let manifest = text(package, "manifest_path")?;
            let folder = manifest
                .trim_start_matches(root.as_str())
                .trim_end_matches("/Cargo.toml");
            let mut this = Crate {
                folder: folder.trim_start_matches('/').to_owned(),
                ..Crate::default()
            };
            for dependency in package["dependencies"].as_array().into_iter().flatten() {
                if dependency["path"].is_null() {
                    continue;
                }
                let set = if dependency["kind"] == "dev" {
                    &mut this.tests
                } else {
                    &mut this.linked
                };
                set.insert(text(dependency, "name")?.to_owned());
            }
            crates.insert(name.to_owned(), this);
        }
        Ok(Self(crates))
    }

    /// Everything linked into `name`, however far away.
    fn reachable(&self, name: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut pending = vec![name];
        while let Some(current) = pending.pop() {
            for next in self
                .0
                .get(current)
                .into_iter()
                .flat_map(|this| &this.linked)
            {
                if seen.insert(next.as_str()) {
                    pending.push(next);
                }
            }
        }
        seen
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key]
        .as_str()
        .with_context(|| format!("cargo metadata: {key} is not a text"))
}

pub(super) fn findings(graph: &Graph, files: &Files) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, this) in &graph.0 {
        let manifest = format!("{}/Cargo.toml", this.folder);
        let source = files.get(&manifest).map(String::as_str).unwrap_or_default();
        let mut report = |other: &str, rule, mend| {
            let line = line_of(source, other);
            let message = format!("{name} depends on {other}");
            found.push(Finding {
                path: manifest.clone(),
                line,
                rule,
                message,
                mend,
            });
        };
        if let Some(allowed) = allowed(&this.folder) {
            for other in graph
                .reachable(name)
                .into_iter()
                .filter(|other| !allowed.contains(other))
            {
                report(
                    other,
                    "one-way-dependencies",
                    "share it through proto/, or move it to where it belongs",
                );
            }
        }
        let foreign = |other: &&String| may_not_test_with(&this.folder, other);
        for other in this.tests.iter().filter(foreign) {
            report(
                other,
                "one-way-dependencies",
                "test across the socket, in tests/",
            );
        }
        if !has_lints(source) {
            found.push(Finding {
                path: manifest.clone(),
                line: 1,
                rule: "workspace-lints",
                message: format!("{name} does not take the workspace's lints"),
                mend: "add `[lints]` with `workspace = true`",
            });
        }
    }
    found
}

/// What may be linked into the crate in `folder`; none: anything.
fn allowed(folder: &str) -> Option<&'static [&'static str]> {
    match folder {
        "proto" | "xtask" => Some(&[]),
        "gateway" | "supervisor" | "driver-sdk" => Some(&["cofferdam-proto"]),
        // It speaks for the gateway, with the gateway's own transport.
        "tests/conformance" => Some(&["cofferdam-proto", "cofferdam-gateway"]),
        "cli" => Some(&[
            "cofferdam-proto",
            "cofferdam-gateway",
            "cofferdam-conformance",
        ]),
        // Two drivers of one kind of platform may share a crate.
        "drivers/docker" | "drivers/podman" => Some(&[
            "cofferdam-proto",
            "cofferdam-driver-sdk",
            "cofferdam-driver-engine",
        ]),
        // What is copied from there has nothing but the SDK.
        "driver-sdk/template" => Some(&["cofferdam-proto", "cofferdam-driver-sdk"]),
        _ if folder.starts_with("drivers/") => Some(&["cofferdam-proto", "cofferdam-driver-sdk"]),
        _ => None,
    }
}

/// The gateway's tests may use the SDK's fake driver; nothing else looks across the contract.
fn may_not_test_with(folder: &str, other: &str) -> bool {
    let is_driver = other.starts_with("cofferdam-driver-") && other != "cofferdam-driver-sdk";
    match folder {
        "gateway" => is_driver,
        "driver-sdk" => other == "cofferdam-gateway" || is_driver,
        _ if folder.starts_with("drivers/") => other == "cofferdam-gateway",
        _ => false,
    }
}

fn has_lints(manifest: &str) -> bool {
    let mut lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]")
        .skip(1);
    lines.find(|line| !line.is_empty()) == Some("workspace = true")
}

/// Where a manifest names a dependency; line 1 if only something below it does.
fn line_of(manifest: &str, dependency: &str) -> usize {
    let named = |line: &str| {
        line.strip_prefix(dependency)
            .is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
    };
    numbered(manifest)
        .find(|(_, content)| named(content))
        .map_or(1, |(line, _)| line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn krate(folder: &str, linked: &[&str], tests: &[&str]) -> Crate {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Crate {
            folder: folder.to_owned(),
            linked: set(linked),
            tests: set(tests),
        }
    }

    fn check(crates: &[(&str, Crate)]) -> Vec<String> {
        let lints = "[lints]\nworkspace = true\n".to_owned();
        let files = crates
            .iter()
            .map(|(_, this)| (format!("{}/Cargo.toml", this.folder), lints.clone()))
            .collect();
        let graph = Graph(
            crates
                .iter()
                .map(|(name, this)| ((*name).to_owned(), this.clone()))
                .collect(),
        );
        findings(&graph, &files)
            .into_iter()
            .map(|finding| finding.message)
            .collect()
    }

    #[test]
    fn the_gateway_links_no_driver_however_far_away() {
        let messages = check(&[
            (
                "cofferdam-gateway",
                krate("gateway", &["middle"], &["cofferdam-driver-sdk"]),
            ),
            (
                "middle",
                krate("middle", &["cofferdam-driver-process"], &[]),
            ),
        ]);
        assert_eq!(
            messages,
            [
                "cofferdam-gateway depends on cofferdam-driver-process",
                "cofferdam-gateway depends on middle"
            ]
        );
    }

    #[test]
    fn a_driver_does_not_know_the_gateway_even_in_tests() {
        let driver = krate(
            "drivers/x",
            &["cofferdam-proto", "cofferdam-driver-sdk"],
            &["cofferdam-gateway"],
        );
        assert_eq!(
            check(&[("cofferdam-driver-x", driver)]),
            ["cofferdam-driver-x depends on cofferdam-gateway"]
        );
    }

    #[test]
    fn the_supervisor_knows_the_contract_only() {
        let good = krate("supervisor", &["cofferdam-proto"], &[]);
        assert_eq!(
            check(&[("cofferdam-supervisor", good)]),
            Vec::<String>::new()
        );
        let bad = krate("supervisor", &["cofferdam-driver-sdk"], &[]);
        assert_eq!(check(&[("cofferdam-supervisor", bad)]).len(), 1);
    }

    #[test]
    fn a_manifest_takes_the_workspace_lints() {
        assert!(has_lints("[package]\n\n[lints]\nworkspace = true\n"));
        assert!(!has_lints("[lints.rust]\nunsafe_code = \"allow\"\n"));
    }

    #[test]
    fn a_finding_points_at_the_line_of_the_dependency() {
        let manifest =
            "[dependencies]\ncofferdam-proto-extra = \"1\"\ncofferdam-proto.workspace = true\n";
        assert_eq!(line_of(manifest, "cofferdam-proto"), 3);
    }
}
