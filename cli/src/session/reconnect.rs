//! When to try again after a cut, and when to give up.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

use crate::status::is_from_gateway;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Backoff {
    limit: Duration,
    give_up: Option<Instant>,
    pause: Duration,
}

impl Backoff {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            give_up: None,
            pause: FIRST_PAUSE,
        }
    }

    /// A cut is being dealt with.
    pub(crate) fn is_trying(&self) -> bool {
        self.give_up.is_some()
    }

    /// How long to wait before the next try. None: it has been tried for long enough.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Duration> {
        let give_up = *self.give_up.get_or_insert(now + self.limit);
        if now >= give_up {
            return None;
        }
        let pause = self.pause.min(give_up - now);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Some(pause)
    }

    /// The gateway has answered: the next cut is a new one.
    pub(crate) fn reset(&mut self) {
        self.give_up = None;
        self.pause = FIRST_PAUSE;
    }
}

/// Whether an error of a stream says only that the stream is cut, and nothing of the execution.
///
/// `is_accepted`: the gateway has taken the execution, so that even its own "draining" is a
/// restart to be waited for.
pub(crate) fn is_cut(status: &Status, is_accepted: bool) -> bool {
    match status.code() {
        Code::Unavailable => is_accepted || !is_from_gateway(status),
        Code::Unknown | Code::Cancelled | Code::Internal | Code::Aborted | Code::Ok => {
            !is_from_gateway(status)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let start = Instant::now();
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let mut now = start;
        let mut pauses = Vec::new();
        while let Some(pause) = backoff.next(now) {
            now += pause;
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [50, 100, 200, 400, 250]);
        backoff.reset();
        assert_eq!(backoff.next(now), Some(FIRST_PAUSE));
    }

    #[test]
    fn no_time_means_no_try() {
        assert_eq!(Backoff::new(Duration::ZERO).next(Instant::now()), None);
    }

    #[test]
    fn a_verdict_of_the_gateway_is_no_cut() {
        assert!(is_cut(&Status::unknown("h2 broke"), true));
        assert!(is_cut(&Status::unavailable("connect"), false));
        assert!(!is_cut(&Status::not_found("exec-1"), true));
        assert!(!is_cut(&Status::invalid_argument("argv"), false));
    }
}
