//! Signals that this process gets: which are passed on, and when enough is enough.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CommandError;

/// Within this, a second Ctrl-C means: now.
const FORCE_WITHIN: Duration = Duration::from_secs(2);

pub(crate) const SIGINT: u32 = libc::SIGINT as u32;
pub(crate) const SIGTERM: u32 = libc::SIGTERM as u32;

/// What comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// To be passed on to the command.
    Signal(u32),
    /// The terminal has another size.
    Resized,
    /// We were stopped and go on: the shell has changed the terminal meanwhile.
    Continued,
}

/// All signals that matter while an execution is followed. SIGTSTP keeps stopping us, and SIGPIPE
/// is an error of the write.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
    user1: Signal,
    user2: Signal,
    resized: Signal,
    continued: Signal,
}

impl Signals {
    /// From here on these signals do not end this process any more.
    pub(crate) fn listen() -> Result<Self, CommandError> {
        let listen = |kind| {
            signal(kind).map_err(|error| CommandError::io("cannot listen to signals", error))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            quit: listen(SignalKind::quit())?,
            user1: listen(SignalKind::user_defined1())?,
            user2: listen(SignalKind::user_defined2())?,
            resized: listen(SignalKind::window_change())?,
            continued: listen(SignalKind::from_raw(libc::SIGCONT))?,
        })
    }

    /// The next one. Nothing is lost when this is cancelled.
    pub(crate) async fn next(&mut self) -> Incoming {
        let signal = |kind: SignalKind| Incoming::Signal(kind.as_raw_value().cast_unsigned());
        tokio::select! {
            _ = self.interrupt.recv() => signal(SignalKind::interrupt()),
            _ = self.terminate.recv() => signal(SignalKind::terminate()),
            _ = self.hangup.recv() => signal(SignalKind::hangup()),
            _ = self.quit.recv() => signal(SignalKind::quit()),
            _ = self.user1.recv() => signal(SignalKind::user_defined1()),
            _ = self.user2.recv() => signal(SignalKind::user_defined2()),
            _ = self.resized.recv() => Incoming::Resized,
            _ = self.continued.recv() => Incoming::Continued,
        }
    }
}

/// What to do about a signal for the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Forward(u32),
    /// It does not run yet: cancel it, and wait for that.
    Cancel(u32),
    /// The second one in a short time: cancel it, and leave.
    Force(u32),
}

/// Pure: the clock is passed in.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    asked_to_end: Option<Instant>,
}

impl Policy {
    pub(crate) fn decide(&mut self, signal: u32, is_running: bool, now: Instant) -> Action {
        if signal != SIGINT && signal != SIGTERM {
            return Action::Forward(signal);
        }
        let before = self.asked_to_end.replace(now);
        if before.is_some_and(|before| now.duration_since(before) <= FORCE_WITHIN) {
            Action::Force(signal)
        } else if is_running {
            Action::Forward(signal)
        } else {
            Action::Cancel(signal)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_interrupt_in_a_short_time_forces() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut policy = Policy::default();
        assert_eq!(policy.decide(SIGINT, true, at(0)), Action::Forward(SIGINT));
        assert_eq!(
            policy.decide(SIGINT, true, at(2001)),
            Action::Forward(SIGINT)
        );
        assert_eq!(
            policy.decide(SIGTERM, true, at(4001)),
            Action::Force(SIGTERM)
        );
    }

    #[test]
    fn other_signals_are_only_passed_on() {
        let now = Instant::now();
        let mut policy = Policy::default();
        assert_eq!(policy.decide(10, true, now), Action::Forward(10));
        assert_eq!(policy.decide(10, true, now), Action::Forward(10));
    }

    #[test]
    fn what_does_not_run_yet_is_canceled() {
        let now = Instant::now();
        let mut policy = Policy::default();
        assert_eq!(policy.decide(SIGINT, false, now), Action::Cancel(SIGINT));
        assert_eq!(policy.decide(SIGINT, false, now), Action::Force(SIGINT));
    }
}
