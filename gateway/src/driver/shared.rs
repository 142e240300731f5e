//! What a driver's task publishes and its handles read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cofferdam_proto::compute::v1::compute_driver_client::ComputeDriverClient;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::notices::Notices;
use super::schema::Schema;
use super::{CallError, DriverState, DriverView, Timing};
use crate::model::{DriverName, SandboxId};
use crate::transport::Channel;

/// A connection on which the handshake is done.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) channel: Channel,
}

impl Link {
    pub(super) fn client(&self) -> ComputeDriverClient<Channel> {
        ComputeDriverClient::new(self.channel.clone())
    }
}

/// One driver's state. The task writes, everybody reads.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: DriverName,
    pub(super) timing: Timing,
    view: watch::Sender<Arc<DriverView>>,
    link: watch::Sender<Option<Link>>,
    /// Of `driver_config`, as of the last handshake.
    config_schema: Mutex<Arc<Schema>>,
    /// Creates under way. A delete ends them: an `ABORTED` create that is repeated after the delete
    /// would make the sandbox anew.
    creates: Mutex<HashMap<SandboxId, CancellationToken>>,
    calls: AtomicU64,
}

/// A create under way, until dropped.
#[derive(Debug)]
pub(super) struct Create<'a> {
    shared: &'a Shared,
    sandbox_id: SandboxId,
    /// Cancelled by a delete.
    pub(super) ended: CancellationToken,
}

impl Drop for Create<'_> {
    fn drop(&mut self) {
        self.shared.creates().remove(&self.sandbox_id);
    }
}

impl Shared {
    pub(super) fn new(view: DriverView, timing: Timing) -> Self {
        Self {
            name: view.name.clone(),
            timing,
            view: watch::Sender::new(Arc::new(view)),
            link: watch::Sender::new(None),
            config_schema: Mutex::default(),
            creates: Mutex::default(),
            calls: AtomicU64::new(0),
        }
    }

    pub(super) fn view(&self) -> Arc<DriverView> {
        self.view.borrow().clone()
    }

    pub(super) fn views(&self) -> watch::Receiver<Arc<DriverView>> {
        self.view.subscribe()
    }

    pub(super) fn links(&self) -> watch::Receiver<Option<Link>> {
        self.link.subscribe()
    }

    /// Changes the view; wakes those who watch it only if something is different.
    pub(super) fn update(&self, change: impl FnOnce(&mut DriverView)) {
        self.view.send_if_modified(|current| {
            let mut next = DriverView::clone(current);
            change(&mut next);
            let differs = next != **current;
            if differs {
                *current = Arc::new(next);
            }
            differs
        });
    }

    /// Changes what the gateway has noticed.
    pub(super) fn notice(&self, change: impl FnOnce(&mut Notices)) {
        self.update(|view| change(&mut view.notices));
    }

    /// A call of this kind has ended.
    pub(super) fn judge(&self, kind: &str, error: Option<&CallError>) {
        match error {
            Some(error) => self.notice(|notices| notices.failed(kind, error)),
            None if self.view().notices.is_failing(kind) => {
                self.notice(|notices| notices.worked(kind));
            }
            None => {}
        }
    }

    /// A number that no other call of this driver has.
    pub(super) fn number(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Calls work from now on.
    pub(super) fn connect(&self, link: Link) {
        self.link.send_replace(Some(link));
        self.update(|view| {
            view.state = DriverState::Connected;
            view.error.clear();
            view.fix.clear();
        });
    }

    /// Calls wait from now on, or fail if it was `refused`.
    pub(super) fn disconnect(&self, refused: bool, error: &str, fix: &str) {
        self.update(|view| {
            view.state = match refused {
                true => DriverState::Refused,
                false => DriverState::Connecting,
            };
            view.error = view.with_socket(error);
            view.fix = fix.to_owned();
        });
        self.link.send_replace(None);
    }

    pub(super) fn config_schema(&self) -> Arc<Schema> {
        let schema = self.config_schema.lock();
        schema.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_config_schema(&self, schema: Schema) {
        let mut place = (self.config_schema.lock()).unwrap_or_else(PoisonError::into_inner);
        *place = Arc::new(schema);
    }

    pub(super) fn begin_create(&self, sandbox_id: &SandboxId) -> Create<'_> {
        let ended = CancellationToken::new();
        self.creates().insert(sandbox_id.clone(), ended.clone());
        Create {
            shared: self,
            sandbox_id: sandbox_id.clone(),
            ended,
        }
    }

    pub(super) fn end_create(&self, sandbox_id: &SandboxId) {
        if let Some(ended) = self.creates().get(sandbox_id) {
            ended.cancel();
        }
    }

    fn creates(&self) -> MutexGuard<'_, HashMap<SandboxId, CancellationToken>> {
        self.creates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
