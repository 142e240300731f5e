//! Reading records: what the driver wrote, and what a shim claims.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::sandbox::layout::{self, RECORD_BYTES_MAX};
use crate::sandbox::record::{ExitRecord, ProcessId, RECORD_VERSION, RunRecord, SandboxRecord};

/// What the driver made. `None` when it is missing or of another version.
pub(super) fn sandbox(state_dir: &Path) -> Option<SandboxRecord> {
    let record: SandboxRecord = parse(&state_dir.join(layout::SANDBOX_RECORD))?;
    (record.version == RECORD_VERSION).then_some(record)
}

/// Who the shim is.
pub(super) fn shim(state_dir: &Path) -> Option<ProcessId> {
    parse(&state_dir.join(layout::SHIM_RECORD))
}

/// The init that the shim says runs.
pub(super) fn run(state_dir: &Path) -> Option<RunRecord> {
    let record: RunRecord = parse(&layout::run_dir(state_dir).join(layout::RUN_RECORD))?;
    (record.version == RECORD_VERSION).then_some(record)
}

/// How the shim says the last init ended.
pub(super) fn exit(state_dir: &Path) -> Option<ExitRecord> {
    let record: ExitRecord = parse(&layout::run_dir(state_dir).join(layout::EXIT_RECORD))?;
    (record.version == RECORD_VERSION).then_some(record)
}

/// The console: the older file, then the newer one.
pub(super) fn console(state_dir: &Path) -> Vec<u8> {
    let run = layout::run_dir(state_dir);
    let limit = 2 * layout::CONSOLE_BYTES_MAX;
    let mut text = bounded(&run.join(layout::CONSOLE_LOG_OLD), limit).unwrap_or_default();
    text.extend(bounded(&run.join(layout::CONSOLE_LOG), limit).unwrap_or_default());
    text
}

fn parse<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&bounded(path, RECORD_BYTES_MAX).ok()?).ok()
}

/// No links, no pipes, no more than `limit` bytes: the directory may be another user's.
fn bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(limit).read_to_end(&mut text)?;
    Ok(text)
}
