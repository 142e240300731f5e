//! A driver that breaks on purpose, for tests of gateways and of conformance suites.
//!
//! Below is the SDK's [fake platform](crate::fake), whole and right. Everything that goes wrong is
//! done *around* the SDK's server, so that rules which the SDK enforces by itself can be broken as
//! well. What goes wrong is said by a [`Script`], which can be exchanged while the driver runs.
//!
//! ```text
//!   connection ─► door ──► call ──► service ───────────► SDK server ─► fake platform
//!                  │        │        │                       ▲
//!       silent, closing,    │        ├─ watch: frozen,       │ restart: a new incarnation,
//!       garbage, HTTP/1     │        │  lost, doubled, …     │ with or without its memory
//!                           │        ├─ inventory: lies      │
//!            hang, delay, cut, fail, ├─ health: flaps
//!            reset, garbage, huge …  └─ variants: one rule of the contract broken, all others kept
//! ```
//!
//! * [`script`] – the words in which faults are asked for; also as JSON.
//! * [`Variant`] – drivers that break one rule, for suites that must notice.
//! * [`FaultDriver`] – in the test's own process.
//! * [`run`] – as a program, told what to do by `--script`, `--variant` and a control socket.
//!
//! A gateway that is attached to it finds an ordinary third-party driver:
//!
//! ```sh
//! cargo run -p cofferdam-driver-sdk --features fake --example fault_driver -- \
//!     --socket ./odd.sock --control ./odd.control
//! cofferdam-gateway --compute-driver-socket odd=./odd.sock
//! echo '{"set": {"rules": [{"rpc": "CreateSandbox", "fault": {"hang": {}}}]}}' | nc -U ./odd.control
//! ```

mod answers;
mod call;
mod control;
mod door;
mod health;
mod inventory;
mod journal;
mod live;
mod platform;
mod program;
pub mod script;
mod service;
mod subject;
mod variant;
mod variants;
mod watch;

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::run::{ListenError, Listeners, Peers};
use crate::settings::SchemaError;
use live::Live;

pub use journal::{Journal, Outcome, Seen};
pub use platform::Restart;
pub use program::run;
pub use script::Script;
pub use variant::{UnknownVariant, Variant};

/// Why a fault driver could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing to listen on, or it cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A mistake in the fake driver.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// A fault driver in this process. It ends when this is dropped; [`stop`](Self::stop) also waits.
#[derive(Debug)]
pub struct FaultDriver {
    live: Arc<Live>,
    serving: TaskTracker,
    stop: DropGuard,
}

impl FaultDriver {
    /// Listens on a socket of its own at `path` and does as `script` says. To be called within a
    /// runtime.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub fn start(path: &Path, script: Script) -> Result<Self, StartError> {
        let listeners = Listeners::bind(path, 0o600)?;
        Self::serve(listeners, Peers::new(&[], false), script)
    }

    pub(crate) fn serve(
        listeners: Listeners,
        peers: Peers,
        script: Script,
    ) -> Result<Self, StartError> {
        let live = Arc::new(Live::new(script)?);
        let stop = CancellationToken::new();
        let serving = TaskTracker::new();
        // Dropped without being waited for, it still ends in order.
        serving.spawn(door::serve(
            Arc::clone(&live),
            listeners,
            peers,
            stop.clone(),
        ));
        serving.close();
        Ok(Self {
            live,
            serving,
            stop: stop.drop_guard(),
        })
    }

    /// Does as this script says from now on. Counting begins anew. Calls that hang by a rule that
    /// is in this script no more go on, unless they hang for good.
    pub fn set(&self, script: Script) {
        self.live.set(script);
    }

    /// A new incarnation, as after a restart of the process.
    ///
    /// # Errors
    /// None that a test can cause: the fake's schemas compile.
    pub async fn restart(&self, restart: Restart) -> Result<(), SchemaError> {
        self.live.restart(restart).await
    }

    /// Closes all connections, in the middle of whatever is under way.
    pub fn cut(&self) {
        self.live.cut();
    }

    /// What was called, and what became of it.
    #[must_use]
    pub fn journal(&self) -> Journal {
        self.live.journal()
    }

    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Ends it together with its sandboxes, and waits for that.
    pub async fn stop(self) {
        drop(self.stop);
        self.serving.wait().await;
    }
}
