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
    let alive = record.as_ref().and_then(|record| alive(state_dir, record));
    // Read after that: a shim records an end before it takes away the record of the run, and before
    // it ends itself.
    let last_exit = read::exit(state_dir);
    Some(Sandbox {
        state_dir: state_dir.to_owned(),
        record,
        observation: judge(alive, last_exit.as_ref()),
        last_exit,
    })
}

/// Who was there when it was looked for.
#[derive(Debug, Clone, Copy)]
struct Alive {
    shim: bool,
    /// What is recorded of an init, and whether it lives.
    run: Option<(RunRecord, bool)>,
}

/// `None` when a shim was never recorded.
fn alive(state_dir: &Path, record: &SandboxRecord) -> Option<Alive> {
    let shim = read::shim(state_dir)?;
    let same_boot = record.boot_id == boot_id();
    let run = read::run(state_dir).map(|run| (run, ProcessIdentity::find(run.init).is_some()));
    Some(Alive {
        shim: same_boot && ProcessIdentity::find(shim).is_some(),
        run,
    })
}

fn judge(alive: Option<Alive>, last_exit: Option<&ExitRecord>) -> Observation {
    use crate::sandbox::record::ExitCause::{Deadline, Terminated};
    let Some(alive) = alive else {
        return Observation::HalfMade;
    };
    if !alive.shim {
        return match last_exit {
            Some(exit) if matches!(exit.cause, Deadline | Terminated) => Observation::Ended,
            _ => Observation::Lost,
        };
    }
    let is_recorded = |run: &RunRecord| {
        let exits = last_exit.map_or(0, |exit| exit.generation);
        exits >= run.generation
    };
    match (alive.run, last_exit) {
        // Also for the moment between an init's end and the shim's word about it: nobody knows yet
        // how it has ended.
        (Some((run, lives)), _) if lives || !is_recorded(&run) => Observation::Running(run),
        (_, Some(_)) => Observation::Stopped,
        // The shim stands but no init was ever started: it is still at it, or stuck.
        (_, None) => Observation::HalfMade,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::record::{ExitCause, ProcessId, RECORD_VERSION};

    const INIT: ProcessId = ProcessId {
        pid: 7,
        start_time: 70,
    };

    fn run(generation: u64) -> RunRecord {
        RunRecord {
            version: RECORD_VERSION,
            generation,
            init: INIT,
            started_at_unix_ms: 1,
        }
    }

    fn exit(generation: u64, cause: ExitCause) -> ExitRecord {
        ExitRecord {
            version: RECORD_VERSION,
            generation,
            pid: INIT.pid,
            cause,
            code: Some(0),
            signal: None,
            at_unix_ms: 2,
        }
    }

    fn seen(shim: bool, run: Option<(RunRecord, bool)>) -> Option<Alive> {
        Some(Alive { shim, run })
    }

    #[test]
    fn an_init_that_has_just_ended_runs_until_the_shim_has_said_how() {
        let (first, second) = (run(1), run(2));
        let own = |generation| exit(generation, ExitCause::Own);
        let gone = |run| seen(true, Some((run, false)));
        assert_eq!(judge(gone(first), None), Observation::Running(first));
        // The end that is on record is another boot's.
        assert_eq!(
            judge(gone(second), Some(&own(1))),
            Observation::Running(second)
        );
        assert_eq!(judge(gone(first), Some(&own(1))), Observation::Stopped);
        // The record of the run is taken away after that.
        assert_eq!(judge(seen(true, None), Some(&own(1))), Observation::Stopped);
    }

    #[test]
    fn what_was_never_started_is_half_made() {
        assert_eq!(judge(None, None), Observation::HalfMade);
        assert_eq!(judge(seen(true, None), None), Observation::HalfMade);
    }

    #[test]
    fn without_its_shim_only_a_recorded_end_is_one() {
        let deadline = exit(1, ExitCause::Deadline);
        let own = exit(1, ExitCause::Own);
        let lost = seen(false, Some((run(2), false)));
        assert_eq!(judge(lost, Some(&deadline)), Observation::Ended);
        assert_eq!(judge(lost, Some(&own)), Observation::Lost);
        assert_eq!(judge(lost, None), Observation::Lost);
    }
}
