//! All processes, by the ids that callers chose. Bounded: a caller that forgets nothing is refused
//! in the end, after what nobody needs any more has been dropped.

use std::collections::BTreeMap;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use super::drive::{Driver, start_failure};
use super::launch::launch;
use super::spec::printable;
use super::stdin::StdinQueue;
use super::{Exit, Phase, Process, SpoolBudget, State, ValidSpec};
use crate::oom::{OomCounter, OomWatch};
use crate::output::Spool;
use crate::reap::{Reaper, WaitStatus};

/// Running and ended ones together.
const PROCESSES_MAX: usize = 4096;
/// Ended ones whose output has been acknowledged are held up to this many; the oldest go first.
const DISPOSABLE_MAX: usize = 1024;
const ID_BYTES_MAX: usize = 128;

/// Why the table does not do what was asked.
#[derive(Debug, Error)]
pub(crate) enum TableError {
    #[error("process_id: 1 to 128 of A-Z a-z 0-9 . _ - are possible")]
    BadId,
    #[error("no process has the id {0:?}")]
    Unknown(String),
    #[error("process {0:?} is running")]
    Running(String),
    #[error("{PROCESSES_MAX} processes are running or not yet forgotten; that is the bound")]
    Full,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    processes: Mutex<BTreeMap<String, (u64, Arc<Process>)>>,
    started: AtomicU64,
    budget: Arc<SpoolBudget>,
    reaper: Reaper,
    tasks: TaskTracker,
    oom: Arc<OomCounter>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) running: u32,
    pub(crate) ended: u32,
}

impl Table {
    pub(crate) fn new(reaper: Reaper, tasks: TaskTracker, oom: OomCounter) -> Self {
        let budget = Arc::default();
        Self {
            processes: Mutex::default(),
            started: AtomicU64::new(0),
            budget,
            reaper,
            tasks,
            oom: Arc::new(oom),
        }
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<String, (u64, Arc<Process>)>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn spool_bytes(&self) -> u64 {
        self.budget.held_bytes()
    }

    pub(crate) fn get(&self, id: &str) -> Result<Arc<Process>, TableError> {
        let unknown = || TableError::Unknown(id.to_owned());
        self.processes()
            .get(id)
            .map(|(_, process)| Arc::clone(process))
            .ok_or_else(unknown)
    }

    pub(crate) fn list(&self) -> Vec<Arc<Process>> {
        self.processes()
            .values()
            .map(|(_, process)| Arc::clone(process))
            .collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (_, process) in self.processes().values() {
            if process.has_ended() {
                counts.ended += 1
            } else {
                counts.running += 1
            }
        }
        counts
    }

    /// Starts a process, or finds the one that has the id already (`true`).
    pub(crate) fn start<E>(
        &self,
        id: &str,
        spec: impl FnOnce() -> Result<ValidSpec, E>,
    ) -> Result<(Arc<Process>, bool), E>
    where
        E: From<TableError>,
    {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(allowed) {
            return Err(TableError::BadId.into());
        }
        if let Ok(process) = self.get(id) {
            return Ok((process, true));
        }
        let spec = spec()?;
        let mut processes = self.processes();
        make_room(&mut processes)?;
        let process = self.launch(id, spec);
        let sequence = self.started.fetch_add(1, Ordering::Relaxed);
        processes.insert(id.to_owned(), (sequence, Arc::clone(&process)));
        Ok((process, false))
    }

    /// Forgets an ended process.
    pub(crate) fn forget(&self, id: &str) -> Result<(), TableError> {
        let mut processes = self.processes();
        match processes.get(id) {
            None => Ok(()),
            Some((_, process)) if !process.has_ended() => Err(TableError::Running(id.to_owned())),
            Some(_) => {
                processes.remove(id);
                Ok(())
            }
        }
    }

    fn launch(&self, id: &str, spec: ValidSpec) -> Arc<Process> {
        let name = spec.program.argv.first().map(printable).unwrap_or_default();
        let directory = printable(&spec.program.directory);
        let has_stdin = !matches!(spec.stdio, super::Stdio::Pipes { stdin: false });
        let oom = OomWatch::begin(&self.oom);
        let launched = launch(spec.program, spec.stdio, &self.reaper);
        let mut process = Process {
            id: id.to_owned(),
            start_time_unix_ms: unix_ms_now(),
            shim: None,
            budget: Arc::clone(&self.budget),
            state: Mutex::new(State {
                phase: Phase::Starting,
                spool: Spool::new(spec.spool_bytes),
                stdin: if has_stdin {
                    StdinQueue::default()
                } else {
                    StdinQueue::absent()
                },
                terminal: None,
            }),
            changed: Notify::new(),
            wake: Notify::new(),
        };
        if let Ok(launched) = &launched {
            process.shim = Some((launched.shim, launched.life.clone()));
        }
        let process = Arc::new(process);
        match launched {
            Ok(launched) => {
                let driver = Driver::new(launched, self.reaper.clone(), oom, name, directory);
                self.tasks.spawn(driver.run(Arc::clone(&process)));
            }
            Err((stage, error)) => {
                let errno = error.raw_os_error().unwrap_or(0);
                let result = start_failure(stage, errno, &name, &directory);
                process.end(0, result, false, WaitStatus::default(), None);
            }
        }
        process
    }
}

impl Process {
    /// The last thing that happens to a process.
    pub(super) fn end(
        &self,
        pid: i32,
        result: super::ExitResult,
        output_abandoned: bool,
        usage: WaitStatus,
        oom_kills: Option<u64>,
    ) {
        let exit = Exit {
            result,
            time_unix_ms: unix_ms_now(),
            output_abandoned,
            usage,
            oom_kills,
        };
        let mut state = self.state();
        state.phase = Phase::Ended { pid, exit };
        state.terminal = None;
        if !state.stdin.is_absent() {
            state.stdin.close();
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

/// Drops the oldest ended processes that nobody needs any more, then looks whether there is room.
fn make_room(processes: &mut BTreeMap<String, (u64, Arc<Process>)>) -> Result<(), TableError> {
    if processes.len() < DISPOSABLE_MAX {
        return Ok(());
    }
    let mut disposable: Vec<(u64, String)> = processes
        .iter()
        .filter(|(_, (_, process))| process.is_disposable())
        .map(|(id, (sequence, _))| (*sequence, id.clone()))
        .collect();
    disposable.sort_unstable();
    let keep = DISPOSABLE_MAX - 1;
    for (_, id) in disposable
        .iter()
        .take(disposable.len().saturating_sub(keep))
    {
        processes.remove(id);
    }
    if processes.len() < PROCESSES_MAX {
        Ok(())
    } else {
        Err(TableError::Full)
    }
}

pub(crate) fn unix_ms_now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
