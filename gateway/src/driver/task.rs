//! One task owns one driver: it reaches it, keeps the view true, and tries again for ever.
//!
//! ```text
//!            ┌────────────────────────── backoff ◄─────────────────────────┐
//!            ▼                                                             │
//!  (process up) ► connect ► handshake ► configure ► fingerprint ► CONNECTED: watch, until cut
//!                    │          │           │                              ▲
//!                    └──────────┴───────────┴──► REFUSED: slow backoff ────┘
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use cofferdam_proto::compute::v1 as wire;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::handshake::{Greeting, configure, handshake};
use super::launch::ProcessWatch;
use super::shared::{Link, Shared};
use super::trouble::{SILENT_FIX, Trouble};
use super::watch::Watch;
use super::{DriverEvent, connect, convert, fingerprint};
use crate::transport::{Channel, ChannelOptions, KeepAlive};

/// A built-in driver that has not answered so many handshakes in a row is started anew. With the
/// handshake's deadline this is a minute, in which even a starved process answers.
const SILENCES_MAX: u32 = 6;

/// What a driver's task works with.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) socket: PathBuf,
    pub(super) settings: Map<String, Value>,
    pub(super) hello: wire::HandshakeRequest,
    pub(super) events: mpsc::Sender<DriverEvent>,
    /// Of a built-in driver.
    pub(super) process: Option<ProcessWatch>,
    pub(super) cancel: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// Since when it is connected.
    pub(super) connected: Option<Instant>,
}

/// A connection that is ready for calls. Dropping it cuts the connection.
struct Reached {
    channel: Channel,
    greeting: Greeting,
    guard: DropGuard,
}

impl Task {
    /// Runs until cancelled.
    pub(super) async fn run(mut self) {
        let cancel = self.cancel.clone();
        // A cancel drops whatever is under way: connections end with their guards, calls fail.
        cancel.run_until_cancelled(self.keep_trying()).await;
        self.shared.disconnect(false, "the gateway is ending", "");
    }

    async fn keep_trying(&mut self) {
        let timing = self.shared.timing.clone();
        let mut pause = timing.backoff_min;
        let mut silences = 0;
        loop {
            let mut process = self.process.clone();
            if let Some(process) = &mut process {
                process.up(&self.shared).await;
            }
            let trouble = tokio::select! {
                trouble = self.attempt() => trouble,
                trouble = down(&mut process) => trouble,
            };
            let was_connected = self.connected.take().map(|since| since.elapsed());
            self.announce(&trouble, was_connected.is_some()).await;
            if was_connected.is_some_and(|lasted| lasted >= timing.backoff_reset) {
                pause = timing.backoff_min;
            }
            silences = if trouble.silent { silences + 1 } else { 0 };
            // Then the socket is bound anew before the process is started.
            let is_lost = trouble.no_socket && process.is_some();
            if let Some(process) = &mut process
                && (silences >= SILENCES_MAX || is_lost)
            {
                silences = 0;
                process.restart().await;
            }
            sleep(if trouble.refused && !is_lost {
                timing.refused_retry
            } else {
                pause
            })
            .await;
            pause = (pause * 2).min(timing.backoff_max);
        }
    }

    /// Tells everybody that the driver cannot be used, and why.
    async fn announce(&self, trouble: &Trouble, was_connected: bool) {
        let Trouble { error, fix, .. } = trouble;
        let driver = self.shared.name.clone();
        let before = self.shared.view();
        if trouble.refused {
            tracing::error!(driver.name = %driver, error, fix, "driver refused");
        } else if before.error != *error {
            tracing::warn!(driver.name = %driver, error, fix, "driver not connected");
        }
        self.shared.disconnect(trouble.refused, error, fix);
        if was_connected {
            let message = error.clone();
            let event = DriverEvent::Disconnected { driver, message };
            // A receiver that is gone is a gateway that ends.
            drop(self.events.send(event).await);
        }
    }

    /// Connects and stays so for as long as it goes.
    async fn attempt(&mut self) -> Trouble {
        match self.connect().await {
            Err(trouble) => trouble,
            Ok(reached) => self.serve(reached).await,
        }
    }

    async fn connect(&self) -> Result<Reached, Trouble> {
        let timing = &self.shared.timing;
        let cancel = self.cancel.child_token();
        let guard = cancel.clone().drop_guard();
        let stream = connect::connect(&self.socket, timing.handshake).await?;
        let options = ChannelOptions {
            keep_alive: Some(KeepAlive {
                interval: timing.keepalive_interval,
                timeout: timing.keepalive_timeout,
            }),
            tasks: &self.tasks,
            cancel,
        };
        let failed = |error| {
            Trouble::failing(format!("the connection ended as HTTP/2 began: {error}"))
                .with_fix("see the driver's own log")
        };
        let channel = Channel::open(stream, options).await.map_err(failed)?;
        let greeting = handshake(&channel, self.hello.clone(), timing.handshake).await?;
        self.introduce(&greeting);
        let configured = configure(&channel, &greeting, &self.settings, timing.configure).await?;
        if let Some(capabilities) = configured {
            self.shared
                .update(|view| view.capabilities = Some(capabilities));
        }
        Ok(Reached {
            channel,
            greeting,
            guard,
        })
    }

    /// Puts what the driver said of itself into the view.
    fn introduce(&self, greeting: &Greeting) {
        let response = greeting.response.clone();
        let capabilities = greeting.capabilities.clone();
        self.shared.update(|view| {
            if view.incarnation != response.incarnation {
                view.notices.new_incarnation();
            }
            view.driver_name = convert::plain(response.name);
            view.version = convert::plain(response.version);
            view.incarnation = response.incarnation;
            view.contract = response.chosen;
            view.description = convert::plain(response.description);
            view.settings_schema = response.settings_schema;
            view.driver_config_schema = response.driver_config_schema;
            view.capabilities = Some(capabilities);
            view.connects += 1;
        });
    }

    /// Publishes the connection and follows what the driver tells, until it ends.
    async fn serve(&mut self, reached: Reached) -> Trouble {
        let Reached {
            channel,
            greeting,
            guard: _guard,
        } = reached;
        let shared = self.shared.clone();
        let incarnation = greeting.response.incarnation;
        shared.set_config_schema(greeting.driver_config);
        let fingerprints = fingerprint::first(&shared, &channel).await;
        let driver = shared.name.clone();
        tracing::info!(driver.name = %driver, incarnation, "driver connected");
        shared.connect(Link {
            channel: channel.clone(),
        });
        self.connected = Some(Instant::now());
        let event = DriverEvent::Connected {
            driver,
            incarnation: incarnation.clone(),
        };
        drop(self.events.send(event).await);
        let watch = Watch {
            shared: shared.clone(),
            channel: channel.clone(),
            incarnation,
            events: self.events.clone(),
            cursor: String::new(),
            synced: false,
        };
        tokio::select! {
            biased;
            () = channel.closed() => lost(&channel),
            trouble = watch.run() => trouble,
            () = fingerprint::follow(shared, channel.clone(), fingerprints) => lost(&channel),
        }
    }
}

fn lost(channel: &Channel) -> Trouble {
    let trouble = Trouble::failing(format!("lost the driver: {}", channel.end_reason()));
    match channel.was_silent() {
        true => trouble.with_fix(SILENT_FIX),
        false => trouble,
    }
}

/// Completes when a built-in driver's process has ended.
async fn down(process: &mut Option<ProcessWatch>) -> Trouble {
    match process {
        Some(process) => process.down().await,
        None => std::future::pending().await,
    }
}
