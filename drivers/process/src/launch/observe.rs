//! What has become of a sandbox, judged by what can be verified now.

use std::io;
use std::path::{Path, PathBuf};

use super::identity::{ProcessIdentity, boot_id};
use super::read;
use crate::cgroup::Leaf;
use crate::sandbox::record::{ExitRecord, RunRecord, SandboxRecord};

/// A sandbox as it was found.
#[derive(Debug)]
pub struct Sandbox {
    /// Its state directory.
    pub state_dir: PathBuf,
    /// What was made for it; `None` when it is half-made or unreadable.
    pub record: Option<SandboxRecord>,
    /// How it is.
    pub observation: Observation,
    /// How the last init ended, when one did and the shim recorded it.
    pub last_exit: Option<ExitRecord>,
}

/// How a sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// Shim and init live.
    Running(RunRecord),
    /// The shim lives and no init runs: it can be started.
    Stopped,
    /// The shim ended by itself (deadline, terminate) and recorded it in `last_exit`.
    Ended,
    /// The shim is gone without a word: killed, or the host rebooted. Everything in the sandbox
    /// is gone with it.
    Lost,
    /// It was never finished: destroy it.
    HalfMade,
}

/// Looks at one state directory. `None` when there is none. Blocks briefly.
pub fn observe(state_dir: &Path) -> Option<Sandbox> {
    if !state_dir.is_dir() {
        return None;
    }
    let record = read::sandbox(state_dir);
    let last_exit = read::exit(state_dir);
    let observation = match &record {
        None => Observation::HalfMade,
        Some(record) => judge(state_dir, record, last_exit.as_ref()),
    };
    Some(Sandbox {
        state_dir: state_dir.to_owned(),
        record,
        observation,
        last_exit,
    })
}

fn judge(state_dir: &Path, record: &SandboxRecord, last_exit: Option<&ExitRecord>) -> Observation {
    use crate::sandbox::record::ExitCause::{Deadline, Terminated};
    let Some(shim) = read::shim(state_dir) else {
        return Observation::HalfMade;
    };
    let same_boot = record.boot_id == boot_id();
    if same_boot && ProcessIdentity::find(shim).is_some() {
        let run = read::run(state_dir).filter(|run| ProcessIdentity::find(run.init).is_some());
        return match (run, last_exit) {
            (Some(run), _) => Observation::Running(run),
            (None, Some(_)) => Observation::Stopped,
            // The shim stands but no init was ever started: it is still at it, or stuck.
            (None, None) => Observation::HalfMade,
        };
    }
    match last_exit {
        Some(exit) if matches!(exit.cause, Deadline | Terminated) => Observation::Ended,
        _ => Observation::Lost,
    }
}

/// The state directories below a state root, in no order. Blocks briefly.
pub fn list(state_root: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(state_root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            dirs.push(entry.path());
        }
    }
    Ok(dirs)
}

impl Sandbox {
    /// Its cgroup.
    pub fn cgroup(&self) -> Option<Leaf> {
        let record = self.record.as_ref()?;
        Some(Leaf::from_dirs(record.cgroup_dirs.clone()))
    }

    /// What the supervisor printed last. Blocks briefly.
    pub fn console(&self) -> Vec<u8> {
        read::console(&self.state_dir)
    }
}
