//! `cargo xtask tidy`: the invariants that a grep or the dependency graph can see.
//!
//! A rule is a pure function from text (or from the graph) to findings; this file gathers the
//! input and prints. What cannot be seen this way is left to tests.

mod graph;
mod sources;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::{codegen, workspace};

/// Something that must not be, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Relative to the repository's root.
    path: String,
    /// Counted from one.
    line: usize,
    rule: &'static str,
    message: String,
    mend: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            rule,
            message,
            mend,
        } = self;
        write!(f, "{path}:{line}: [{rule}] {message}\n    mend: {mend}")
    }
}

/// Path relative to the root, with forward slashes, to content.
type Files = BTreeMap<String, String>;

pub(crate) fn main() -> Result<ExitCode> {
    check()?;
    Ok(ExitCode::SUCCESS)
}

/// All rules, and generated code compared with its source.
pub(crate) fn check() -> Result<()> {
    let files = text_files(&workspace::root())?;
    let mut findings = Vec::new();
    for (path, text) in &files {
        findings.extend(words::findings(path, text));
        findings.extend(sources::findings(path, text));
    }
    findings.extend(graph::findings(
        &graph::Graph::read(&workspace::metadata()?)?,
        &files,
    ));
    findings.sort();
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings in {} files", findings.len(), files.len());
    }
    if codegen::main(codegen::Args { check: true })? != ExitCode::SUCCESS {
        bail!("tidy: generated code is not what the .proto files say");
    }
    eprintln!("tidy: {} files, nothing to mend", files.len());
    Ok(())
}

/// Every text file of the repository, except what is generated, built or vendored by others.
fn text_files(root: &Path) -> Result<Files> {
    const SKIPPED: &[&str] = &["target", ".git", "proto/src/gen", "Cargo.lock", "LICENSE"];
    let mut files = Files::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let path = entry?.path();
            let relative = path
                .strip_prefix(root)?
                .to_string_lossy()
                .replace('\\', "/");
            if SKIPPED.contains(&relative.as_str()) {
                continue;
            }
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                pending.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                files.insert(relative, text);
            }
        }
    }
    Ok(files)
}

/// The lines of a text with their numbers, counted from one.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}
