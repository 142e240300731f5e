//! Destroying a sandbox from any state: running, stopped, half-made, its shim long dead.
//!
//! The order makes it repeatable: first the processes, then what they held (cgroup, ids), the
//! records last. Whatever interrupts it, the records that are left say what remains to be done.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::identity::{ProcessIdentity, boot_id, real_uid};
use super::read;
use crate::cgroup::{CgroupError, Leaf};
use crate::ids::{IdBlocks, IdError};
use crate::sandbox::layout;
use crate::sandbox::record::{ProcessId, SandboxRecord};

/// First and longest pause between looks at something that ends in its own time.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// A sandbox could not be destroyed entirely; what is left is still recorded.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// A process does not end.
    #[error("process {pid} of the sandbox does not end")]
    Process {
        /// Its pid.
        pid: i32,
        /// What the kernel said, if it said anything.
        source: Option<io::Error>,
    },
    /// Its cgroup is still in use.
    #[error("the sandbox's cgroup is still in use by {pids:?}")]
    CgroupBusy {
        /// By whom.
        pids: Vec<i32>,
    },
    /// Its cgroup cannot be emptied or removed.
    #[error("cannot remove the sandbox's cgroup")]
    Cgroup(#[source] CgroupError),
    /// Its ids cannot be released.
    #[error("cannot release the sandbox's host ids")]
    Ids(#[source] IdError),
    /// Its state directory cannot be removed.
    #[error("cannot remove {}", path.display())]
    State {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Destroys the sandbox of this state directory; one that is not there is destroyed. `limit`
/// bounds each wait for something to end. Safe to call again after any error, or after having
/// been dropped half-way.
pub async fn destroy(state_dir: &Path, limit: Duration) -> Result<(), DestroyError> {
    // A shim that is only just starting may write its record while we work: then the directory
    // is not empty at the end, and the next round finds the record.
    let until = Instant::now() + limit;
    loop {
        if !state_dir.exists() {
            return Ok(());
        }
        let record = read::sandbox(state_dir);
        let shim = read::shim(state_dir);
        let leaf = (record.as_ref()).map(|record| Leaf::from_dirs(record.cgroup_dirs.clone()));
        if let Some(leaf) = &leaf
            && let Err(error) = leaf.lift_cpu_quota()
        {
            // Then it takes as long as the quota makes it.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "cannot lift the cpu quota of a sandbox that is destroyed"
            );
        }
        end_processes(state_dir, record.as_ref(), shim, limit).await?;
        if let (Some(record), Some(leaf)) = (&record, leaf) {
            remove_cgroup(&leaf, limit).await?;
            release_ids(record)?;
        }
        match remove_state(state_dir, shim.is_some()) {
            Ok(()) => return Ok(()),
            Err(error) if is_not_empty(&error) && Instant::now() < until => sleep(PAUSE_MIN).await,
            Err(source) => {
                return Err(DestroyError::State {
                    path: state_dir.to_owned(),
                    source,
                });
            }
        }
    }
}

/// The shim first: with it goes the init, and with the init its pid namespace. The init is looked
/// for all the same.
async fn end_processes(
    state_dir: &Path,
    record: Option<&SandboxRecord>,
    shim: Option<ProcessId>,
    limit: Duration,
) -> Result<(), DestroyError> {
    if record.is_some_and(|record| record.boot_id != boot_id()) {
        return Ok(());
    }
    let init = read::run(state_dir).map(|run| run.init);
    if let Some(shim) = shim {
        end_process(shim, limit).await?;
    }
    // The init's record is the sandbox's own word, so its owner must fit, too.
    let fits = |id: &ProcessId| record.is_some_and(|r| real_uid(id.pid) == Some(r.host_uid));
    match init.filter(fits) {
        Some(init) => end_process(init, limit).await,
        None => Ok(()),
    }
}

async fn end_process(id: ProcessId, limit: Duration) -> Result<(), DestroyError> {
    let failed = |source| DestroyError::Process {
        pid: id.pid,
        source,
    };
    let Some(process) = ProcessIdentity::find(id) else {
        return Ok(());
    };
    process.kill().map_err(|error| failed(Some(error)))?;
    match process.ended_within(limit).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed(None)),
        Err(error) => Err(failed(Some(error))),
    }
}

async fn remove_cgroup(leaf: &Leaf, limit: Duration) -> Result<(), DestroyError> {
    let until = Instant::now() + limit;
    let mut pause = PAUSE_MIN;
    loop {
        if leaf.try_remove().map_err(DestroyError::Cgroup)? {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(DestroyError::CgroupBusy { pids: leaf.pids() });
        }
        if !leaf.pids().is_empty() {
            leaf.kill().map_err(DestroyError::Cgroup)?;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn release_ids(record: &SandboxRecord) -> Result<(), DestroyError> {
    match (record.id_block, &record.id_claims_dir) {
        (Some(first), Some(dir)) => IdBlocks::new(dir)
            .release(first, &record.sandbox_id)
            .map_err(DestroyError::Ids),
        _ => Ok(()),
    }
}

/// Removes the directory bottom-up. A shim's record is removed only if it was read, so that none
/// is lost unseen.
fn remove_state(state_dir: &Path, shim_was_read: bool) -> io::Result<()> {
    ignore_missing(fs::remove_dir_all(layout::run_dir(state_dir)))?;
    if shim_was_read {
        ignore_missing(fs::remove_file(state_dir.join(layout::SHIM_RECORD)))?;
    }
    for name in [layout::SHIM_RECORD, layout::SANDBOX_RECORD] {
        // What a crash left between writing and renaming.
        ignore_missing(fs::remove_file(state_dir.join(format!(".{name}.new"))))?;
    }
    ignore_missing(fs::remove_file(state_dir.join(layout::SANDBOX_RECORD)))?;
    ignore_missing(fs::remove_dir(state_dir))
}

fn ignore_missing(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn is_not_empty(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::DirectoryNotEmpty
}
