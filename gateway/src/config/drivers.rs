//! Which drivers there are, and where each comes from.

use std::path::{Path, PathBuf};

use super::paths::{DRIVER_PREFIX, executable_trouble};
use super::problem::{Located, Problem};
use super::wire::{DriverLayer, nearest};
use super::{DriverSource, DriverSpec};
use crate::model::DriverName;

/// A Unix socket's address holds this much path.
pub(super) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The one that needs nothing installed.
pub(super) const BUILT_IN_DEFAULT: &str = "process";

pub(super) fn resolve(
    name: &str,
    driver: &DriverLayer,
    libexec: Option<&Path>,
    problems: &mut Vec<Problem>,
) -> Option<DriverSpec> {
    let subject = format!("drivers.{name}");
    let parsed = DriverName::parse(name).map_err(|error| {
        problems.push(Problem::new(
            driver.origin.clone(),
            &subject,
            error.to_string(),
        ));
    });
    let source = match (&driver.socket, &driver.program) {
        (Some(socket), _) => socket_source(&subject, socket, problems),
        (None, Some(program)) => program_source(&subject, program, problems),
        (None, None) => built_in_source(name, driver, libexec, problems),
    };
    Some(DriverSpec {
        name: parsed.ok()?,
        source: source?,
        settings: driver.settings.clone(),
    })
}

/// It need not listen yet: third parties come when they come.
fn socket_source(
    subject: &str,
    socket: &Located<PathBuf>,
    problems: &mut Vec<Problem>,
) -> Option<DriverSource> {
    if let Some(message) = socket_trouble(&socket.value) {
        problems.push(Problem::new(socket.origin.clone(), subject, message));
        return None;
    }
    let path = socket.value.clone();
    Some(DriverSource::Socket { path })
}

fn program_source(
    subject: &str,
    program: &Located<PathBuf>,
    problems: &mut Vec<Problem>,
) -> Option<DriverSource> {
    if let Some(message) = executable_trouble(&program.value) {
        problems.push(Problem::new(program.origin.clone(), subject, message));
        return None;
    }
    let program = program.value.clone();
    Some(DriverSource::BuiltIn { program })
}

fn built_in_source(
    name: &str,
    driver: &DriverLayer,
    libexec: Option<&Path>,
    problems: &mut Vec<Problem>,
) -> Option<DriverSource> {
    // Without a libexec directory there is a problem already, which says more.
    let libexec = libexec?;
    let program = built_in_program(libexec, name);
    let Some(message) = executable_trouble(&program) else {
        return Some(DriverSource::BuiltIn { program });
    };
    let installed = installed(libexec);
    let hint = match nearest(name, installed.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None if installed.is_empty() => format!("no driver is installed in {}", libexec.display()),
        None => format!(
            "installed are: {}; a driver of somebody else's needs `socket` or `path`",
            installed.join(", ")
        ),
    };
    let subject = format!("drivers.{name}");
    problems.push(Problem::new(driver.origin.clone(), subject, message).hint(hint));
    None
}

/// Where a built-in driver's program is, if it is there.
pub(super) fn built_in_program(libexec: &Path, name: &str) -> PathBuf {
    libexec.join(format!("{DRIVER_PREFIX}{name}"))
}

/// Names of the built-in drivers that are there.
fn installed(libexec: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(libexec).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| name.strip_prefix(DRIVER_PREFIX).map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// Why a path cannot be a socket's, if it cannot.
pub(super) fn socket_trouble(path: &Path) -> Option<String> {
    let length = path.as_os_str().len();
    (length > SOCKET_PATH_BYTES_MAX).then(|| {
        format!(
            "the socket's path has {length} bytes, and the system takes {SOCKET_PATH_BYTES_MAX} \
             at most: {}",
            path.display()
        )
    })
}
