//! The gateway as a process: one per state directory, with signals, systemd and a log.
//!
//! ```text
//!  lock state ─► App::start ─► "listening" ─► drivers answered ─► READY=1 ─► … ─► SIGTERM
//!                                                                              │
//!        exit 0 ◄── drained ◄── App::shutdown (deadline) ◄── STOPPING=1 ◄──────┘
//!        exit 1 ◄── a second signal
//! ```
//!
//! Everything that a gateway inside another program must not do is here and not in `App`.

mod descriptors;
mod examine;
mod lock;
mod log;
mod notify;
mod signals;

use std::future::Future;
use std::time::Duration;

use crate::app::{App, StartError};
use crate::config::{self, Config, Flags, Host};
pub use examine::{Examined, examine};
pub use lock::{DirectoryLock, LockError};
pub use log::init as init_log;
use signals::{Signal, Signals};

/// The service could not run, or not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("could not listen for signals")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    /// The second signal came before the first one's work was done.
    #[error("ended by a second {0}; sandboxes go on, and the next start finds them")]
    Forced(&'static str),
}

/// Runs a gateway until a signal ends it. `announce` is called once callers can connect.
///
/// Flags and host are what the configuration was made from; a SIGHUP has them checked again.
pub async fn run(
    config: Config,
    flags: &Flags,
    host: &Host,
    announce: impl FnOnce(&App),
) -> Result<(), ServiceError> {
    // Before anything else, so that no signal is missed.
    let mut signals = Signals::listen().map_err(ServiceError::Signals)?;
    let _state = DirectoryLock::take(&config.state_dir, 0o700, "state_dir")?;
    let _sockets = DirectoryLock::take(&config.runtime_dir, 0o755, "runtime_dir")?;
    descriptors::raise_limit();
    let _watchdog = notify::keep_watchdog_fed();
    let patience = config.drain_timeout;

    let app = App::start(config).await?;
    announce(&app);
    notify::status("waiting for the drivers");
    let ready = async {
        app.ready().await;
        notify::ready();
        tracing::info!("ready");
        std::future::pending::<()>().await;
    };
    let ended_by = tokio::select! {
        () = ready => "nothing",
        signal = end_signal(&mut signals, flags, host) => signal,
    };
    tracing::info!(signal = ended_by, patience = ?patience, "ending");
    notify::stopping(patience);
    drain(app.shutdown(patience), &mut signals).await?;
    tracing::info!("ended");
    Ok(())
}

/// Waits for a signal that ends the gateway.
async fn end_signal(signals: &mut Signals, flags: &Flags, host: &Host) -> &'static str {
    loop {
        match signals.next().await {
            Signal::End(name) => return name,
            Signal::Check => check_again(flags, host),
        }
    }
}

/// Nothing is changed in a running gateway, but whoever asks for a reload learns what a restart
/// would find.
fn check_again(flags: &Flags, host: &Host) {
    match config::load(flags, host) {
        Ok(_) => tracing::info!("the configuration is good; a restart makes changes take effect"),
        Err(error) => tracing::error!("a restart would fail: {error}"),
    }
}

/// Ends in order, unless somebody insists.
async fn drain(
    shutdown: impl Future<Output = ()>,
    signals: &mut Signals,
) -> Result<(), ServiceError> {
    let insisting = async {
        loop {
            if let Signal::End(name) = signals.next().await {
                return name;
            }
        }
    };
    tokio::select! {
        () = shutdown => Ok(()),
        // What is cut off here is found again by the next start: intent is on record first.
        name = insisting => Err(ServiceError::Forced(name)),
    }
}

/// How long a forced end waits for threads that are busy.
pub const FORCED_PATIENCE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_signal_ends_a_drain_that_hangs() {
        let mut signals = Signals::listen().unwrap();
        let own = rustix::process::getpid();
        for signal in [rustix::process::Signal::HUP, rustix::process::Signal::INT] {
            rustix::process::kill_process(own, signal).unwrap();
        }
        let error = drain(std::future::pending(), &mut signals)
            .await
            .unwrap_err();
        assert!(matches!(error, ServiceError::Forced("SIGINT")), "{error}");
    }
}
