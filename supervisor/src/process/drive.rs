//! The task of one process: moves its bytes, hears from its shim, and notices its end.
//!
//! The process has ended when its *main* process has. What it wrote before that is read to the last
//! byte; then its descendants have [`DRAIN`] to close the streams that they hold, so that a
//! grandchild which keeps stdout open cannot keep the caller waiting.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::launch::{Borrowed, Launched};
use super::plan::Stage;
use super::shim::{ENDED, REPORT_BYTES, Report, STARTED};
use super::source::{ReadOutcome, Sink, Source};
use super::{ExitResult, Phase, Process};
use crate::log::log;
use crate::oom::OomWatch;
use crate::pty;
use crate::reap::{Reaper, WaitStatus};

/// How long after the end of the main process its descendants may hold its output open.
const DRAIN: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(super) struct Driver {
    shim: i32,
    report: Option<AsyncFd<OwnedFd>>,
    borrowed: Borrowed,
    /// After the shim was killed: the end of the main process, from the reaper.
    adopted: Option<oneshot::Receiver<WaitStatus>>,
    sources: [Option<Source>; 2],
    sink: Option<Sink>,
    terminal: Option<Arc<OwnedFd>>,
    /// What tells a terminal that its input is at its end; `None` before that is due.
    end_of_file: Option<Bytes>,
    reaper: Reaper,
    oom: OomWatch,
    name: String,
    directory: String,
    pid: i32,
    ended: Option<Ended>,
}

#[derive(Debug)]
struct Ended {
    result: ExitResult,
    usage: WaitStatus,
    oom_kills: Option<u64>,
    drain_until: Instant,
    /// What was already written at the end, and so must still be read.
    owed_bytes: [u64; 2],
}

/// What happened next.
enum Event {
    Started(Report),
    Ended(WaitStatus),
    /// The process has ended, and how is not to be known.
    EndedUnseen,
    ShimLost,
    Read(usize, ReadOutcome),
    Written(io::Result<usize>),
    Look,
}

impl Driver {
    pub(super) fn new(
        launched: Launched,
        reaper: Reaper,
        oom: OomWatch,
        name: String,
        directory: String,
    ) -> Self {
        Self {
            shim: launched.shim,
            report: Some(launched.report),
            borrowed: launched.borrowed,
            adopted: None,
            sources: launched.streams.sources,
            sink: launched.streams.sink,
            terminal: launched.streams.terminal,
            end_of_file: None,
            reaper,
            oom,
            name,
            directory,
            pid: 0,
            ended: None,
        }
    }

    /// Runs until the process has ended and its output is in the spool.
    pub(super) async fn run(mut self, process: Arc<Process>) {
        process.state().terminal = self.terminal.clone();
        while !self.is_drained(&process) {
            let failure = match self.wait(&process).await {
                Event::Started(report) => self.on_started(&process, &report),
                Event::ShimLost => self.on_shim_lost(&process).await,
                Event::Ended(status) => {
                    self.on_ended(exit_result(status.status), status);
                    None
                }
                Event::EndedUnseen => {
                    self.on_ended(ExitResult::Unknown, WaitStatus::default());
                    None
                }
                Event::Read(index, outcome) => {
                    self.on_read(&process, index, outcome);
                    None
                }
                Event::Written(result) => {
                    self.on_written(&process, result);
                    None
                }
                Event::Look => None,
            };
            if let Some(failure) = failure {
                process.end(0, failure, false, WaitStatus::default(), None);
                return;
            }
        }
        let Some(ended) = self.ended.take() else {
            return;
        };
        let abandoned = self.sources.iter().any(Option::is_some);
        process.end(
            self.pid,
            ended.result,
            abandoned,
            ended.usage,
            ended.oom_kills,
        );
    }

    /// Waits for one event. A branch that loses the race has taken nothing.
    async fn wait(&mut self, process: &Process) -> Event {
        let freed = process.budget.freed.notified();
        let room = process.room_bytes();
        let input = self.next_input(process);
        let now = Instant::now();
        let drain_until = self
            .ended
            .as_ref()
            .map(|ended| ended.drain_until)
            .filter(|at| *at > now);
        let [first, second] = &mut self.sources;
        tokio::select! {
            event = read_report(self.report.as_ref()) => event,
            event = adopted(self.adopted.as_mut()) => event,
            outcome = read(first.as_mut(), room) => Event::Read(0, outcome),
            outcome = read(second.as_mut(), room) => Event::Read(1, outcome),
            result = write(self.sink.as_ref(), &input) => Event::Written(result),
            () = process.wake.notified() => Event::Look,
            () = freed, if room == 0 => Event::Look,
            () = sleep_until_some(drain_until) => Event::Look,
        }
    }

    /// Stdin that waits; a stdin that is complete is closed.
    fn next_input(&mut self, process: &Process) -> Bytes {
        if self.sink.is_none() {
            return Bytes::new();
        }
        let mut state = process.state();
        if let Some(data) = state.stdin.front() {
            return data.clone();
        }
        if !state.stdin.is_finished() {
            return Bytes::new();
        }
        let Some(master) = &self.terminal else {
            self.sink = None;
            state.stdin.close();
            drop(state);
            process.changed.notify_waiters();
            return Bytes::new();
        };
        let line_is_open = state.stdin.line_is_open();
        let end_of_file = || {
            pty::end_of_file(master, line_is_open)
                .unwrap_or_default()
                .into()
        };
        self.end_of_file.get_or_insert_with(end_of_file).clone()
    }

    fn on_written(&mut self, process: &Process, result: io::Result<usize>) {
        match (result, &mut self.end_of_file) {
            (Ok(count), Some(end_of_file)) => end_of_file.advance(count),
            (Ok(count), None) => process.state().stdin.take(count),
            // The process has closed its stdin, or the terminal has nobody any more.
            (Err(_), _) => {
                self.sink = None;
                process.state().stdin.close();
            }
        }
        process.changed.notify_waiters();
    }

    fn on_read(&mut self, process: &Process, index: usize, outcome: ReadOutcome) {
        let Some(source) = &self.sources[index] else {
            return;
        };
        let data = match outcome {
            ReadOutcome::Data(data) => data,
            ReadOutcome::End => {
                self.sources[index] = None;
                return;
            }
        };
        if let Some(ended) = &mut self.ended {
            let owed = &mut ended.owed_bytes[index];
            *owed = owed.saturating_sub(data.len() as u64);
        }
        process.budget.add(data.len() as u64);
        process.state().spool.append(source.stream, data);
        process.changed.notify_waiters();
    }

    /// The program runs, or here is why not.
    fn on_started(&mut self, process: &Process, report: &Report) -> Option<ExitResult> {
        if let Some(stacks) = self.borrowed.release() {
            self.reaper.keep_stacks(self.shim, stacks);
        }
        let stage = Stage::from_raw(report.detail);
        if stage != Stage::Running {
            return Some(start_failure(
                stage,
                report.errno,
                &self.name,
                &self.directory,
            ));
        }
        self.pid = report.pid;
        process.state().phase = Phase::Running { pid: self.pid };
        process.changed.notify_waiters();
        None
    }

    fn on_ended(&mut self, result: ExitResult, usage: WaitStatus) {
        self.report = None;
        self.adopted = None;
        self.sink = None;
        let owed_bytes = self
            .sources
            .each_ref()
            .map(|source| source.as_ref().map_or(0, Source::waiting_bytes));
        self.ended = Some(Ended {
            result,
            usage,
            oom_kills: self.oom.kills(),
            drain_until: Instant::now() + DRAIN,
            owed_bytes,
        });
    }

    /// Somebody in the sandbox has killed the shim. Its children become ours, once it is gone.
    async fn on_shim_lost(&mut self, process: &Process) -> Option<ExitResult> {
        log!("the shim of a process was killed; its main process is watched by the supervisor");
        self.report = None;
        if self.pid == 0 {
            // It is unknown whether the child has left our memory, so that stays as it is.
            self.pid = self.borrowed.child_pid();
        }
        if self.pid == 0 {
            return Some(start_failure(
                Stage::Clone,
                libc::ESRCH,
                &self.name,
                &self.directory,
            ));
        }
        process.state().phase = Phase::Running { pid: self.pid };
        process.changed.notify_waiters();
        // It has closed its pipe, so it is as good as gone; only the kernel has to say so.
        process.tree_gone().await;
        self.adopted = Some(self.reaper.adopt(self.pid));
        None
    }

    /// The process has ended, and there is nothing more to read for which its end should wait.
    fn is_drained(&mut self, process: &Process) -> bool {
        let Some(ended) = &self.ended else {
            return false;
        };
        if self.sources.iter().all(Option::is_none) {
            return true;
        }
        if Instant::now() < ended.drain_until {
            return false;
        }
        [0, 1]
            .into_iter()
            .all(|index| self.take_owed(process, index))
    }

    /// Reads what a stream owes without waiting. False if the spool has no room for it.
    fn take_owed(&mut self, process: &Process, index: usize) -> bool {
        loop {
            let Some(source) = &mut self.sources[index] else {
                return true;
            };
            if self
                .ended
                .as_ref()
                .is_none_or(|ended| ended.owed_bytes[index] == 0)
            {
                return true;
            }
            let room = process.room_bytes();
            if room == 0 {
                return false;
            }
            match source.read_now(room) {
                Some(outcome) => self.on_read(process, index, outcome),
                None => return true,
            }
        }
    }
}

impl Process {
    fn room_bytes(&self) -> usize {
        self.state().spool.room_bytes(self.budget.limit_of_one())
    }
}

async fn read_report(report: Option<&AsyncFd<OwnedFd>>) -> Event {
    let Some(fd) = report else {
        return pending().await;
    };
    let mut bytes = [0; REPORT_BYTES];
    loop {
        let Ok(mut ready) = fd.readable().await else {
            return Event::ShimLost;
        };
        match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut bytes)?)) {
            Ok(Ok(REPORT_BYTES)) => break,
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            // Reports are written whole, so anything else is the end.
            Ok(_) => return Event::ShimLost,
            Err(_would_block) => {}
        }
    }
    let report = Report::from_bytes(&bytes);
    match report.kind {
        STARTED => Event::Started(report),
        ENDED => Event::Ended(WaitStatus {
            status: report.detail as i32,
            user_us: report.user_us,
            system_us: report.system_us,
            max_rss_kib: report.max_rss_kib,
        }),
        _ => Event::ShimLost,
    }
}

async fn adopted(receiver: Option<&mut oneshot::Receiver<WaitStatus>>) -> Event {
    match receiver {
        Some(receiver) => receiver.await.map_or(Event::EndedUnseen, Event::Ended),
        None => pending().await,
    }
}

async fn read(source: Option<&mut Source>, room_bytes: usize) -> ReadOutcome {
    match source {
        Some(source) if room_bytes > 0 => source.read(room_bytes).await,
        _ => pending().await,
    }
}

async fn write(sink: Option<&Sink>, data: &[u8]) -> io::Result<usize> {
    match sink {
        Some(sink) if !data.is_empty() => sink.write(data).await,
        _ => pending().await,
    }
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

fn exit_result(status: i32) -> ExitResult {
    if libc::WIFSIGNALED(status) {
        ExitResult::Signal(libc::WTERMSIG(status) as u32)
    } else {
        ExitResult::Code(libc::WEXITSTATUS(status) as u32)
    }
}

/// One sentence on why a program does not run.
pub(super) fn start_failure(stage: Stage, errno: i32, name: &str, directory: &str) -> ExitResult {
    let error = io::Error::from_raw_os_error(errno);
    let message = match stage {
        Stage::Execute | Stage::Running => format!("cannot execute {name:?}: {error}"),
        Stage::Directory => format!("cannot enter the directory {directory:?}: {error}"),
        Stage::User => format!("cannot become the user for {name:?}: {error}"),
        Stage::Privileges => format!("cannot drop privileges for {name:?}: {error}"),
        Stage::Terminal => format!("cannot set up the stdio of {name:?}: {error}"),
        Stage::Limits => format!("cannot set the limits of {name:?}: {error}"),
        Stage::Clone => format!("cannot make a process for {name:?}: {error}"),
    };
    ExitResult::Failed {
        stage,
        errno,
        message,
    }
}
