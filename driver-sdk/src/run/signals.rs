//! The first SIGTERM or SIGINT drains; the second one ends.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Counts the requests to end.
#[derive(Debug)]
pub(crate) struct Signals {
    counted: watch::Receiver<u32>,
    /// The one task that counts; it ends with this.
    _counting: JoinSet<()>,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (count, counted) = watch::channel(0);
        let mut counting = JoinSet::new();
        counting.spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    () = count.closed() => return,
                }
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self {
            counted,
            _counting: counting,
        })
    }

    pub(crate) fn first(&self) -> impl Future<Output = ()> + Send + use<> {
        self.reach(1)
    }

    pub(crate) fn second(&self) -> impl Future<Output = ()> + Send + use<> {
        self.reach(2)
    }

    fn reach(&self, wanted: u32) -> impl Future<Output = ()> + Send + use<> {
        let mut counted = self.counted.clone();
        async move {
            if counted.wait_for(|count| *count >= wanted).await.is_err() {
                std::future::pending().await
            }
        }
    }
}
