//! Processes. Each has one task ([`drive`]) that owns its descriptors, and one [`Process`] that
//! everybody else looks at: attached streams, the table, signals.
//!
//! ```text
//!            start failure
//!  Starting ───────────────► Ended ──► forgotten (ForgetProcess, or the table is full)
//!      │                       ▲
//!      └────► Running ─────────┘  main process ended and its output is drained
//! ```

mod child;
mod drive;
mod launch;
mod plan;
mod shim;
mod source;
mod spec;
mod stack;
mod stdin;
mod table;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::termios::{Winsize, tcgetpgrp, tcsetwinsize};
use tokio::sync::{Notify, watch};

pub(crate) use self::launch::Stdio;
pub(crate) use self::plan::{Stage, User};
pub(crate) use self::shim::DESCRIPTORS_WITHOUT_CLOSE_RANGE;
pub(crate) use self::spec::{Defaults, SpecError, ValidSpec, check_environment, spool_bytes};
pub(crate) use self::stack::Stacks;
pub(crate) use self::stdin::StdinError;
use self::stdin::StdinQueue;
pub(crate) use self::table::{Table, TableError, unix_ms_now};
use crate::output::{Piece, Spool};
use crate::reap::{ShimLife, WaitStatus};
use crate::signal::{self, Signal};
use crate::tree::Roots;

/// Where a process is in its life.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Starting,
    Running { pid: i32 },
    Ended { pid: i32, exit: Exit },
}

/// How a process ended, and what is known about it.
#[derive(Clone, Debug)]
pub(crate) struct Exit {
    pub(crate) result: ExitResult,
    pub(crate) time_unix_ms: u64,
    pub(crate) output_abandoned: bool,
    pub(crate) usage: WaitStatus,
    /// How often the kernel killed meanwhile for want of memory, where that is counted.
    pub(crate) oom_kills: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) enum ExitResult {
    Code(u32),
    Signal(u32),
    /// It has ended, but how was lost with its shim.
    Unknown,
    /// It never ran.
    Failed {
        stage: Stage,
        errno: i32,
        message: String,
    },
}

/// Output held by all spools together. Beyond [`SPOOLS_BYTES_MAX`] each process may hold only
/// [`SPOOL_BYTES_FLOOR`], so that many stalled readers neither fill the sandbox's memory nor stop
/// the processes whose readers are there.
#[derive(Debug, Default)]
pub(crate) struct SpoolBudget {
    held_bytes: AtomicU64,
    freed: Notify,
}

/// What a process may hold if nobody says otherwise.
pub(crate) const SPOOL_BYTES_DEFAULT: u64 = 1024 * 1024;
const SPOOLS_BYTES_MAX: u64 = 64 * 1024 * 1024;
const SPOOL_BYTES_FLOOR: u64 = 64 * 1024;

impl SpoolBudget {
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    fn limit_of_one(&self) -> u64 {
        if self.held_bytes() > SPOOLS_BYTES_MAX {
            SPOOL_BYTES_FLOOR
        } else {
            u64::MAX
        }
    }

    fn add(&self, bytes: u64) {
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn free(&self, bytes: u64) {
        let before = self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before > SPOOLS_BYTES_MAX && before - bytes <= SPOOLS_BYTES_MAX {
            self.freed.notify_waiters();
        }
    }
}

/// One process, from its start until it is forgotten.
#[derive(Debug)]
pub(crate) struct Process {
    id: String,
    start_time_unix_ms: u64,
    shim: Option<(i32, watch::Receiver<ShimLife>)>,
    budget: Arc<SpoolBudget>,
    state: Mutex<State>,
    /// Something that attached streams want to know.
    changed: Notify,
    /// Room in the spool, or stdin to write: the process's task goes on.
    wake: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    spool: Spool,
    stdin: StdinQueue,
    terminal: Option<Arc<OwnedFd>>,
}

/// What an attached stream has told its reader so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) output: u64,
    pub(crate) stdin_taken: u64,
    pub(crate) stdin_closed: bool,
}

/// What it should tell next.
#[derive(Debug)]
pub(crate) enum Next {
    Output(Piece),
    StdinAck {
        offset: u64,
        closed: bool,
    },
    Exited {
        exit: Exit,
        output_bytes: u64,
    },
    /// The output from here on was acknowledged, and so freed, on another stream.
    Passed {
        first: u64,
    },
}

/// One line of the process list.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) phase: Phase,
    pub(crate) output_first: u64,
    pub(crate) output_end: u64,
    pub(crate) stdin_taken: u64,
    /// It was started without stdin.
    pub(crate) stdin_absent: bool,
}

impl Process {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn start_time_unix_ms(&self) -> u64 {
        self.start_time_unix_ms
    }

    pub(crate) fn facts(&self) -> Facts {
        let state = self.state();
        Facts {
            phase: state.phase.clone(),
            output_first: state.spool.first(),
            output_end: state.spool.end(),
            stdin_taken: state.stdin.taken(),
            stdin_absent: state.stdin.is_absent(),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state().phase, Phase::Ended { .. })
    }

    /// Ended, and all of its output has been acknowledged.
    fn is_disposable(&self) -> bool {
        let state = self.state();
        matches!(state.phase, Phase::Ended { .. }) && state.spool.held_bytes() == 0
    }

    /// Waits until it is known whether the program runs.
    pub(crate) async fn started(&self) {
        loop {
            let changed = self.changed.notified();
            if !matches!(self.state().phase, Phase::Starting) {
                return;
            }
            // Cancelled here, nothing is lost: the phase is looked at anew each time.
            changed.await;
        }
    }

    /// Waits for the next thing to tell at this position.
    pub(crate) async fn next(&self, position: &Position) -> Next {
        loop {
            let changed = self.changed.notified();
            if let Some(next) = self.next_now(position) {
                return next;
            }
            changed.await;
        }
    }

    fn next_now(&self, position: &Position) -> Option<Next> {
        let state = self.state();
        if position.output < state.spool.first() {
            return Some(Next::Passed {
                first: state.spool.first(),
            });
        }
        // Before the output: an endless producer must not hold back who waits to send more stdin.
        let (taken, closed) = (state.stdin.taken(), state.stdin.is_closed());
        if taken != position.stdin_taken || closed != position.stdin_closed {
            return Some(Next::StdinAck {
                offset: taken,
                closed,
            });
        }
        if let Some(piece) = state.spool.read(position.output) {
            return Some(Next::Output(piece));
        }
        if let Phase::Ended { exit, .. } = &state.phase {
            return Some(Next::Exited {
                exit: exit.clone(),
                output_bytes: state.spool.end(),
            });
        }
        None
    }

    /// Frees output. False if there never was so much.
    pub(crate) fn acknowledge(&self, offset: u64) -> bool {
        let mut state = self.state();
        let held = state.spool.held_bytes();
        let valid = state.spool.acknowledge(offset);
        let freed = held - state.spool.held_bytes();
        drop(state);
        self.budget.free(freed);
        self.wake.notify_one();
        valid
    }

    /// Waits until stdin that came earlier has made room, then takes more.
    pub(crate) async fn push_stdin(&self, offset: u64, data: Bytes) -> Result<(), StdinError> {
        loop {
            let changed = self.changed.notified();
            if self.state().stdin.has_room() {
                break;
            }
            changed.await;
        }
        self.state().stdin.push(offset, data)?;
        self.wake.notify_one();
        // What was pushed after the process closed its stdin counts as taken at once.
        self.changed.notify_waiters();
        Ok(())
    }

    pub(crate) fn end_stdin(&self, offset: u64) -> Result<(), StdinError> {
        self.state().stdin.end(offset)?;
        self.wake.notify_one();
        Ok(())
    }

    pub(crate) fn resize(&self, size: Winsize) -> io::Result<()> {
        match &self.state().terminal {
            Some(master) => Ok(tcsetwinsize(master, size)?),
            None => Ok(()),
        }
    }

    /// To the foreground group of the terminal, or to the process's own group.
    pub(crate) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        let state = self.state();
        let Phase::Running { pid } = state.phase else {
            return Ok(());
        };
        // A terminal without a foreground group: its session leader is about to end.
        let foreground = state
            .terminal
            .as_ref()
            .and_then(|master| tcgetpgrp(master).ok());
        let group = foreground.map_or(pid, |group| group.as_raw_nonzero().get());
        signal::send_group(group, signal)
    }

    /// To the main process alone.
    pub(crate) fn signal_main(&self, signal: Signal) -> io::Result<()> {
        match self.state().phase {
            Phase::Running { pid } => signal::send(pid, signal),
            _ => Ok(()),
        }
    }

    /// Where its tree hangs; nothing if it never was.
    pub(crate) fn roots(&self) -> Option<Roots> {
        let (shim, life) = self.shim.as_ref()?;
        match *life.borrow() {
            ShimLife::Alive => Some(Roots {
                above: vec![*shim],
                lost: None,
                strays: false,
            }),
            ShimLife::Finished => None,
            ShimLife::Killed => Some(Roots {
                above: vec![],
                lost: match self.state().phase {
                    Phase::Running { pid } => Some(pid),
                    _ => None,
                },
                strays: true,
            }),
        }
    }

    /// Waits until the shim has ended, and so (unless it was killed) everything below it.
    pub(crate) async fn tree_gone(&self) {
        if let Some((_, life)) = &self.shim {
            // The sender goes away only with the whole supervisor.
            let _ = life.clone().wait_for(|life| *life != ShimLife::Alive).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let held = self
            .state
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .spool
            .held_bytes();
        self.budget.free(held);
    }
}
