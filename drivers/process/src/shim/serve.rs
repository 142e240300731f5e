//! The shim's loop: control connections, the console, the deadline, the init's end.
//!
//! One thread, one `poll`, nothing that blocks for long. Every connection has at most one request
//! under way; further input waits in the kernel.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use zeroize::Zeroizing;

use super::console::Console;
use super::failure::Context;
use super::lifecycle::Lifecycle;
use crate::sandbox::control::{REQUEST_BYTES_MAX, Request, Response};
use crate::sandbox::record::ExitCause;
use crate::sandbox::report::{Failure, Stage};

/// Signals that end the sandbox in order. (SIGKILL does so too, without a record.)
pub(crate) const SIGNALS: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Connections served at once. The driver holds one, `wait` another; more is a bug of somebody's.
const CLIENTS_MAX: usize = 16;

/// What the loop watches besides the sandbox.
#[derive(Debug)]
pub(crate) struct Watched {
    /// [`SIGNALS`].
    pub(crate) signals: OwnedFd,
    /// See [`arm`].
    pub(crate) deadline: OwnedFd,
}

/// A timer of the deadline.
pub(crate) fn arm(expire_time_unix_ms: u64) -> Result<OwnedFd, Failure> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC)
        .at(Stage::ArmDeadline, "")?;
    set(&timer, expire_time_unix_ms)?;
    Ok(timer)
}

fn set(timer: &OwnedFd, expire_time_unix_ms: u64) -> Result<(), Failure> {
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // A value of 0 disarms it; a time that has passed fires at once.
    let at = Itimerspec {
        it_interval: zero,
        it_value: timespec(Duration::from_millis(expire_time_unix_ms)),
    };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &at)
        .map(drop)
        .at(Stage::ArmDeadline, "")
}

/// Serves until the sandbox ends; returns the exit code.
pub(crate) fn run(lifecycle: Lifecycle, watched: Watched) -> i32 {
    let mut serve = Serve {
        lifecycle,
        signals: watched.signals,
        deadline: watched.deadline,
        console: Console::default(),
        clients: Vec::new(),
    };
    while !serve.lifecycle.ended() {
        serve.turn();
    }
    serve.answer_waiting();
    serve.drain_console();
    serve.lifecycle.close();
    0
}

struct Serve {
    lifecycle: Lifecycle,
    signals: OwnedFd,
    /// The wall clock's, so that it holds across suspend and clock changes.
    deadline: OwnedFd,
    console: Console,
    clients: Vec<Client>,
}

struct Client {
    stream: UnixStream,
    input: Zeroizing<Vec<u8>>,
    /// Answered when no init of this generation runs.
    waits_for: Option<u64>,
}

/// What `poll` found.
struct Ready {
    signal: bool,
    deadline: bool,
    connection: bool,
    console: bool,
    init: bool,
    clients: Vec<bool>,
}

impl Serve {
    fn turn(&mut self) {
        let ready = self.wait();
        if ready.console {
            self.drain_console();
        }
        if ready.init {
            self.lifecycle.reap();
        }
        if ready.deadline {
            discard(&self.deadline);
            self.lifecycle.end(ExitCause::Deadline);
        }
        if ready.signal {
            discard(&self.signals);
            self.lifecycle.end(ExitCause::Terminated);
        }
        self.lifecycle.grace_over();
        self.answer_waiting();
        self.read_clients(&ready.clients);
        if ready.connection {
            self.accept();
        }
    }

    fn wait(&self) -> Ready {
        let input = PollFlags::IN;
        let handles = &self.lifecycle.handles;
        let mut fds = vec![
            PollFd::new(&self.signals, input),
            PollFd::new(&self.deadline, input),
            PollFd::new(&handles.control, input),
            PollFd::new(&handles.console.0, input),
        ];
        fds.extend(
            self.clients
                .iter()
                .map(|client| PollFd::new(&client.stream, client.interest())),
        );
        let init = self.lifecycle.pidfd();
        fds.extend(init.map(|pidfd| PollFd::new(pidfd, input)));
        let timeout = self.lifecycle.kill_in().map(timespec);
        if poll(&mut fds, timeout.as_ref()).is_err() {
            // Interrupted, or out of memory for a moment: look again.
            fds.iter_mut().for_each(PollFd::clear_revents);
        }
        let mut found = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || found.next().unwrap_or(false);
        Ready {
            signal: next(),
            deadline: next(),
            connection: next(),
            console: next(),
            clients: self.clients.iter().map(|_| next()).collect(),
            init: init.is_some() && next(),
        }
    }

    fn drain_console(&mut self) {
        let handles = &self.lifecycle.handles;
        self.console.drain(&handles.run_dir, &handles.console.0);
    }

    fn accept(&mut self) {
        if let Ok((stream, _)) = self.lifecycle.handles.control.accept()
            && self.clients.len() < CLIENTS_MAX
            && stream.set_nonblocking(true).is_ok()
        {
            self.clients.push(Client {
                stream,
                input: Zeroizing::default(),
                waits_for: None,
            });
        }
    }

    fn read_clients(&mut self, ready: &[bool]) {
        let mut clients = std::mem::take(&mut self.clients);
        let mut ready = ready.iter();
        clients.retain_mut(|client| {
            !ready.next().is_some_and(|&ready| ready) || (client.read() && self.obey(client))
        });
        self.clients = clients;
    }

    /// Carries out the request a client has completed, if it has. False drops the client.
    fn obey(&mut self, client: &mut Client) -> bool {
        if client.waits_for.is_some() {
            return true;
        }
        let Some(line) = client.take_line() else {
            return true;
        };
        let outcome = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => self.carry_out(request),
            Err(error) => Err(Failure::own(Stage::Control, error.to_string())),
        };
        match outcome {
            Ok(Some(generation)) if self.lifecycle.runs(generation) => {
                client.waits_for = Some(generation);
                true
            }
            Ok(_) => client.answer(&Response::Ok(self.lifecycle.status())),
            Err(failure) => client.answer(&Response::Refused(failure)),
        }
    }

    /// Returns the generation whose end the answer waits for.
    fn carry_out(&mut self, request: Request) -> Result<Option<u64>, Failure> {
        let current = Some(self.lifecycle.generation());
        match request {
            Request::Start { bootstrap } => {
                let bootstrap = Zeroizing::new(bootstrap);
                self.lifecycle.start(bootstrap.as_bytes()).map(|()| None)
            }
            Request::Stop { grace_ms } => {
                self.lifecycle.stop(Duration::from_millis(grace_ms));
                Ok(current)
            }
            Request::Kill => {
                self.lifecycle.kill(ExitCause::Killed);
                Ok(current)
            }
            Request::Status => Ok(None),
            Request::Wait { generation } => Ok(Some(generation)),
            Request::SetExpire {
                expire_time_unix_ms,
            } => {
                // The one that was armed holds on if this one cannot be.
                set(&self.deadline, expire_time_unix_ms)?;
                self.lifecycle.set_expire(expire_time_unix_ms);
                Ok(None)
            }
            Request::Terminate => {
                self.lifecycle.end(ExitCause::Terminated);
                Ok(current)
            }
        }
    }

    fn answer_waiting(&mut self) {
        let Serve {
            lifecycle, clients, ..
        } = self;
        clients.retain_mut(|client| match client.waits_for {
            Some(generation) if !lifecycle.runs(generation) => {
                client.waits_for = None;
                client.answer(&Response::Ok(lifecycle.status()))
            }
            _ => true,
        });
    }
}

impl Client {
    /// A waiting client is only watched for its end.
    fn interest(&self) -> PollFlags {
        if self.waits_for.is_some() {
            PollFlags::RDHUP
        } else {
            PollFlags::IN
        }
    }

    /// False when the client is gone or has said too much.
    fn read(&mut self) -> bool {
        if self.waits_for.is_some() {
            return false;
        }
        let mut buffer = Zeroizing::new([0; 4096]);
        loop {
            match (&self.stream).read(&mut *buffer) {
                Ok(0) => return false,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.input.len() > REQUEST_BYTES_MAX {
                return false;
            }
        }
    }

    fn take_line(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        let end = self.input.iter().position(|&byte| byte == b'\n')?;
        let rest = self.input.split_off(end + 1);
        Some(std::mem::replace(&mut self.input, Zeroizing::new(rest)))
    }

    /// Answers fit in any socket buffer; a client that does not take one is dropped.
    fn answer(&mut self, response: &Response) -> bool {
        let Ok(mut line) = serde_json::to_vec(response) else {
            return false;
        };
        line.push(b'\n');
        (&self.stream).write_all(&line).is_ok()
    }
}

/// Takes what made a descriptor readable; that it was is all there is to know.
fn discard(fd: &OwnedFd) {
    let _ = rustix::io::read(fd, &mut [0; 128]);
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
