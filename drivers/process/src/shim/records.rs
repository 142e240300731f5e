//! Writing records: whole, then renamed into place. The state directory is usually on tmpfs and
//! its processes do not survive a reboot, so nothing is synced.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use serde::Serialize;

use super::failure::Context;
use crate::sandbox::report::{Failure, Stage};

/// Writes `record` as `dir/name`.
pub(crate) fn write(dir: impl AsFd, name: &str, record: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_vec(record)
        .map_err(|error| Failure::own(Stage::WriteRecord, format!("{name}: {error}")))?;
    let temporary = format!(".{name}.new");
    let flags =
        OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = openat(&dir, &*temporary, flags, mode).at(Stage::WriteRecord, name)?;
    let mut rest = &text[..];
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest).at(Stage::WriteRecord, name)?;
        rest = &rest[written..];
    }
    renameat(&dir, &*temporary, &dir, name).at(Stage::WriteRecord, name)
}

/// Removes `dir/name`, if it is there.
pub(crate) fn remove(dir: impl AsFd, name: &str) {
    // It may be gone already, and nobody relies on it being gone.
    let _ = unlinkat(dir, name, AtFlags::empty());
}

/// Milliseconds since 1970.
pub(crate) fn now_unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
