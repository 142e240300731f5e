//! The configuration's files.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::flags::Flags;
use super::paths::Host;
use super::problem::{Origin, Problem};
use super::wire::{self, Layer};

/// More than this is not a configuration.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What the files say, and which ones there were.
pub(super) fn from_files(
    flags: &Flags,
    host: &Host,
    problems: &mut Vec<Problem>,
) -> (Layer, Vec<PathBuf>) {
    let (main, asked) = main_file(flags, host);
    let mut layer = Layer::default();
    let mut read = Vec::new();
    let drop_ins = main.parent().map(|parent| parent.join("conf.d"));
    let mut files = vec![main.clone()];
    files.extend(
        drop_ins
            .into_iter()
            .flat_map(|directory| list(&directory, problems)),
    );
    for path in files {
        match read_text(&path) {
            Ok(text) => {
                layer.overlay(wire::decode(path.clone(), &text, problems));
                read.push(path);
            }
            // The one in the usual place may be missing.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && path == main && asked.is_none() => {}
            Err(error) => {
                let origin = asked.clone().filter(|_| path == main);
                let message = format!("cannot be read: {error}");
                problems.push(Problem::new(origin, path.display().to_string(), message));
            }
        }
    }
    (layer, read)
}

/// The main file, and who asked for it.
fn main_file(flags: &Flags, host: &Host) -> (PathBuf, Option<Origin>) {
    if let Some(path) = &flags.config {
        return (host.directory.join(path), Some(Origin::Flag("--config")));
    }
    const VARIABLE: &str = "COFFERDAM_CONFIG";
    match host.variable(VARIABLE) {
        Some(path) => (
            host.directory.join(path),
            Some(Origin::Environment(VARIABLE)),
        ),
        None => (host.config_file(), None),
    }
}

/// Pipes and /dev/null are files, too; what is read of them is bounded.
fn read_text(path: &Path) -> io::Result<String> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::other("it is a directory"));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(text)
}

/// `*.toml` in a directory, in the order of their names. No directory, no files.
fn list(directory: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let entries: io::Result<Vec<_>> =
        std::fs::read_dir(directory).and_then(|entries| entries.map(|e| Ok(e?.path())).collect());
    let mut paths = match entries {
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let message = format!("cannot be read: {error}");
            problems.push(Problem::new(None, directory.display().to_string(), message));
            return Vec::new();
        }
    };
    paths.retain(|path| {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == "toml")
    });
    paths.sort();
    paths
}
