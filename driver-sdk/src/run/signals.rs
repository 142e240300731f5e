//! The first SIGTERM or SIGINT drains; the second one ends.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Counts the requests to end.
#[derive(Debug)]
pub(crate) struct Signals(watch::Receiver<u32>);

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (count, counted) = watch::channel(0);
        // Ends with the runtime: it waits for signals as long as there is a process.
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    () = count.closed() => return,
                }
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(counted))
    }

    pub(crate) fn first(&self) -> impl Future<Output = ()> + Send + use<> {
        self.reach(1)
    }

    pub(crate) fn second(&self) -> impl Future<Output = ()> + Send + use<> {
        self.reach(2)
    }

    fn reach(&self, wanted: u32) -> impl Future<Output = ()> + Send + use<> {
        let mut counted = self.0.clone();
        async move {
            if counted.wait_for(|count| *count >= wanted).await.is_err() {
                std::future::pending().await
            }
        }
    }
}
