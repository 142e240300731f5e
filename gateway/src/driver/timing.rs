//! How long the gateway waits for drivers, and why.

use std::time::Duration;

/// The pace of reaching a driver and of noticing that it is gone.
#[derive(Debug, Clone)]
pub struct Timing {
    /// For connecting, and for each of Handshake and the first Fingerprint. A driver's process may
    /// have to start first, on a busy machine.
    pub handshake: Duration,
    /// For Configure, in which a driver may log in to its platform.
    pub configure: Duration,
    /// Between keep-alive pings of a connection.
    pub keepalive_interval: Duration,
    /// A ping without an answer for so long ends the connection. Long enough for a machine that is
    /// busy, short enough that callers learn the truth before they give up.
    pub keepalive_timeout: Duration,
    /// A watch without any message for so long is taken up anew: a bookmark is due every 10 s.
    pub watch_silence: Duration,
    /// First wait after a lost connection or a dead driver process; doubles up to `backoff_max`.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// A driver that held so long starts with `backoff_min` again.
    pub backoff_reset: Duration,
    /// Between attempts at a driver that was refused: its operator has to mend something first.
    pub refused_retry: Duration,
    /// How long a call waits for a driver that is not connected.
    pub reconnect_wait: Duration,
    /// How long a call repeats itself while the platform answers `UNAVAILABLE`.
    pub unavailable_retry: Duration,
    /// Between asking a built-in driver to end and killing it.
    pub stop_grace: Duration,
    pub calls: CallDeadlines,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            configure: Duration::from_secs(30),
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(15),
            watch_silence: Duration::from_secs(35),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            backoff_reset: Duration::from_secs(30),
            refused_retry: Duration::from_secs(10),
            reconnect_wait: Duration::from_secs(15),
            unavailable_retry: Duration::from_secs(15),
            stop_grace: Duration::from_secs(5),
            calls: CallDeadlines::default(),
        }
    }
}

impl Timing {
    /// How long a call waits whose driver died under it: for the longest backoff, and for a process that
    /// starts and finds its platform on a busy machine.
    pub(super) fn lost_wait(&self) -> Duration {
        self.reconnect_wait + self.backoff_max
    }

    /// With a driver that has so long for each call, and whose watch may be silent for so long.
    /// Everything that is shorter by itself stays.
    pub fn with(call: Duration, silence: Duration) -> Self {
        let usual = Self::default();
        let calls = &usual.calls;
        Self {
            handshake: usual.handshake.min(call),
            configure: usual.configure.min(call),
            reconnect_wait: usual.reconnect_wait.min(call),
            unavailable_retry: usual.unavailable_retry.min(call),
            watch_silence: silence,
            calls: CallDeadlines {
                create: call,
                start: call,
                stop: call,
                delete: call,
                recover: call,
                list: calls.list.min(call),
                observe: calls.observe.min(call),
                follow: calls.follow,
            },
            ..usual
        }
    }
}

/// The deadline of each kind of call, retries and waiting for the driver included.
#[derive(Debug, Clone)]
pub struct CallDeadlines {
    /// Answered when accepted, but checks on a remote platform take their time.
    pub create: Duration,
    pub start: Duration,
    /// On top of the grace.
    pub stop: Duration,
    /// Answered when nothing is left, on the slowest platform.
    pub delete: Duration,
    pub recover: Duration,
    /// For each page.
    pub list: Duration,
    /// `get`, `validate`, `stats`, and the first bytes of `console`.
    pub observe: Duration,
    /// Of a stream that is followed.
    pub follow: Duration,
}

impl Default for CallDeadlines {
    fn default() -> Self {
        Self {
            create: Duration::from_secs(60),
            start: Duration::from_secs(60),
            stop: Duration::from_secs(60),
            delete: Duration::from_secs(60),
            recover: Duration::from_secs(60),
            list: Duration::from_secs(30),
            observe: Duration::from_secs(15),
            follow: Duration::from_secs(24 * 60 * 60),
        }
    }
}
