//! What makes the sandbox end besides its gateway: signals from outside, and the deadline. Also the
//! signal that children have ended.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;

use crate::core::Core;
use crate::log::log;
use crate::process::unix_ms_now;
use crate::readiness;

/// For processes after a SIGTERM from outside; whoever sent it kills us when that is too long.
const GRACE: Duration = Duration::from_secs(10);
/// The kernel's `struct signalfd_siginfo`: the signal's number is its first field, the sender's pid
/// the fourth.
const SIGINFO_BYTES: usize = 128;
const SIGINFO_PID_AT: usize = 12;

/// Reaps, and heeds those who may end us, until the supervisor ends.
pub(crate) async fn signals(signalfd: OwnedFd, core: Arc<Core>) -> io::Result<()> {
    let signalfd = readiness::watch(signalfd, Interest::READABLE)?;
    loop {
        let mut ready = signalfd.readable().await?;
        let mut info = [0; SIGINFO_BYTES];
        match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut info)?)) {
            Ok(Ok(SIGINFO_BYTES)) => on_signal(&info, &core),
            Ok(Err(error)) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
}

fn on_signal(info: &[u8; SIGINFO_BYTES], core: &Core) {
    let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
    let at = SIGINFO_PID_AT;
    let sender = i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
    if number == libc::SIGCHLD {
        core.reaper.reap();
        return;
    }
    // 0: sent from outside of our pid namespace. Whoever is inside has no say, but for our parent
    // where there is one (an engine's own init).
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if sender == 0 || sender == parent {
        let again = core.ending.borrow().is_some();
        log!("signal {number} from outside: the sandbox ends");
        core.end(if again { Duration::ZERO } else { GRACE });
    }
}

/// Returns when the deadline has come, by the wall clock, also if somebody sets that clock.
pub(crate) async fn deadline(core: &Core) -> io::Result<()> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
    let timer = readiness::watch(timer, Interest::READABLE)?;
    let mut expire = core.expire_time_unix_ms.subscribe();
    loop {
        let at_ms = *expire.borrow_and_update();
        if at_ms != 0 && unix_ms_now() >= at_ms {
            return Ok(());
        }
        let never = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let at = Timespec {
            tv_sec: i64::try_from(at_ms / 1000).unwrap_or(i64::MAX),
            tv_nsec: (at_ms % 1000) as i64 * 1_000_000,
        };
        let setting = Itimerspec {
            it_interval: never,
            it_value: at,
        };
        // An absolute timer of this clock follows when the clock is set. A zero disarms.
        timerfd_settime(timer.get_ref(), TimerfdTimerFlags::ABSTIME, &setting)?;
        tokio::select! {
            ready = timer.readable() => ready?.clear_ready(),
            changed = expire.changed() => {
                // The sender lives in the core.
                let _ = changed;
            }
        }
    }
}
