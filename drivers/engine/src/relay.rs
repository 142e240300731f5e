//! *relay* mode: a sandbox's stdin and stdout, carried to its callback socket.
//!
//! ```text
//!   supervisor ◄─ stdin, stdout ─► engine ◄─ attached connection ─► relay ─► gateway.sock
//!                                             lost? attach again, while the container runs
//! ```
//!
//! Bytes that were on their way when a connection or a driver was lost are lost; both ends begin
//! every session with the hello, which skips such remains.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_driver_sdk::Context;
use cofferdam_driver_sdk::relay::{RelayEnd, persistent};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::client::{Attached, Engine, Kind, StdioStream};
use crate::labels::Record;
use crate::plan::Stream;
use crate::sandbox::Tracked;

/// Between two attempts at a container that runs.
const RETRY: Duration = Duration::from_millis(500);

/// Whether this sandbox's stream is relayed.
pub(crate) fn is_for(record: &Record) -> bool {
    record.stream == Stream::Relay.as_str()
}

/// Carries an attached connection, and what follows it, until the container ends.
pub(crate) fn begin(
    context: &Context,
    engine: &Engine,
    tracked: &Arc<Tracked>,
    attached: Attached,
    callback: &Path,
) {
    spawn(context, engine, tracked, Some(attached), callback);
}

/// Attaches to a container that runs already, unless its stream is carried to there.
pub(crate) fn resume(context: &Context, engine: &Engine, tracked: &Arc<Tracked>, callback: &Path) {
    if tracked.is_running() && !tracked.is_relayed_to(callback) {
        spawn(context, engine, tracked, None, callback);
    }
}

fn spawn(
    context: &Context,
    engine: &Engine,
    tracked: &Arc<Tracked>,
    attached: Option<Attached>,
    callback: &Path,
) {
    let cancel = context.shutdown.child_token();
    tracked.set_relay(callback, cancel.clone());
    let carrier = Carrier {
        engine: engine.clone(),
        tracked: Arc::clone(tracked),
        callback: callback.to_owned(),
        cancel,
    };
    context.tasks.spawn(async move {
        tokio::select! {
            () = carrier.carry(attached) => {}
            () = carrier.cancel.cancelled() => {}
        }
        carrier.tracked.forget_relay(&carrier.cancel);
    });
}

struct Carrier {
    engine: Engine,
    tracked: Arc<Tracked>,
    callback: PathBuf,
    cancel: CancellationToken,
}

impl Carrier {
    async fn carry(&self, mut attached: Option<Attached>) {
        let sandbox_id = self.tracked.record().sandbox_id;
        loop {
            let Some(container) = self.tracked.container_id() else {
                return;
            };
            if let Some(attached) = attached.take() {
                let tracked = Arc::clone(&self.tracked);
                let stream = StdioStream::new(attached, move |piece: &[u8]| tracked.hear(piece));
                match persistent(stream, &self.callback, &self.cancel).await {
                    RelayEnd::Cancelled => return,
                    RelayEnd::SandboxClosed => {}
                    RelayEnd::SandboxFailed(error) => {
                        tracing::debug!(sandbox.id = sandbox_id, %error, "a relay broke");
                    }
                }
            }
            // Ended with the container, or with the connection: the engine knows.
            match self.engine.inspect_container(&container).await {
                Ok(seen) if seen.state.status == "running" => {
                    match self.engine.attach(&container, true).await {
                        Ok(again) => attached = Some(again),
                        Err(error) => {
                            tracing::debug!(sandbox.id = sandbox_id, error = %error.chain(), "not attached");
                        }
                    }
                }
                Ok(_) => return,
                Err(error) if error.kind == Kind::NotFound => return,
                Err(_) => {}
            }
            if attached.is_none() {
                sleep(RETRY).await;
            }
        }
    }
}
