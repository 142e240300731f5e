//! Performing the effects that `step` asks for: the store first, then the driver.

use std::time::Duration;

use cofferdam_proto::supervisor::v1::ShutdownRequest;
use tokio::time::Instant;
use tracing::warn;

use super::calls::{self, CallContext};
use super::state::{Effect, Event};
use super::task::{Outcome, Task};
use super::wishes;
use crate::driver::DriverState;
use crate::model::{OperationId, SandboxState, Token, UnixMillis};
use crate::store::{Change, StoreError};

/// The store may work again by then.
pub(super) const STORE_RETRY: Duration = Duration::from_secs(1);

/// A supervisor answers at once.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

impl Task {
    pub(super) async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist => self.persist().await,
            Effect::Create | Effect::Settle | Effect::Start | Effect::Stop | Effect::Delete => {
                self.call_driver(&effect).await;
            }
            Effect::Configure => self.configure(),
            Effect::Remove => self.remove().await,
            Effect::RetryAfter(delay) => self.retry_at = Some(Instant::now() + delay),
            Effect::ArmReadyTimer => {
                let patience = if self.facts.ready_time == UnixMillis::default() {
                    self.shared.create_timeout
                } else {
                    self.shared.session_timeout
                };
                self.ready_deadline = Some(Instant::now() + patience);
                self.look.begin();
            }
            Effect::DisarmReadyTimer => {
                self.ready_deadline = None;
                self.look.end();
            }
        }
    }

    pub(super) fn is_driver_away(&self) -> bool {
        let driver = self.shared.drivers.get(&self.facts.driver);
        driver.is_none_or(|driver| driver.view().state != DriverState::Connected)
    }

    /// For an error: its operator has to find it.
    pub(super) fn describe_driver(&self) -> String {
        let name = self.facts.driver.as_str();
        match self.shared.drivers.get(&self.facts.driver) {
            Some(driver) => format!("driver {name:?} at {}", driver.view().socket.display()),
            None => format!("driver {name:?}, which is not configured any more"),
        }
    }

    async fn call_driver(&mut self, effect: &Effect) {
        if let Some(earlier) = self.driver_call.take() {
            // The driver sees the cancellation; a delete makes sure of the rest.
            earlier.abort();
        }
        self.retry_at = None;
        if *effect == Effect::Create {
            self.booted_here = true;
        }
        if *effect == Effect::Start {
            self.booted_here = true;
            if !self.rotate_boot_token().await {
                // A supervisor whose token is not stored could never come back.
                self.retry_at = Some(Instant::now() + STORE_RETRY);
                return;
            }
        }
        let Some(operation) = self.begin_operation(effect).await else {
            self.retry_at = Some(Instant::now() + STORE_RETRY);
            return;
        };
        let context = CallContext {
            driver: self.shared.drivers.get(&self.facts.driver),
            driver_name: self.facts.driver.clone(),
            id: self.facts.id.clone(),
            operation,
        };
        let directory = self.callback_directory();
        let handle = match effect {
            Effect::Create => self.calls.spawn(calls::create(
                context,
                self.facts.spec.clone(),
                directory,
                self.token.clone(),
            )),
            Effect::Settle => {
                self.calls
                    .spawn(calls::settle(context, self.facts.handle.clone(), directory))
            }
            Effect::Start => self.calls.spawn(calls::start(context, self.token.clone())),
            Effect::Stop => self.calls.spawn(calls::stop(context, self.grace)),
            _ => self.calls.spawn(calls::delete(context)),
        };
        self.driver_call = Some(handle);
    }

    /// The intent is in the store before the driver hears of it. `None`: it is not.
    async fn begin_operation(&mut self, effect: &Effect) -> Option<OperationId> {
        let Some(kind) = wishes::kind(effect) else {
            return Some(OperationId::generate());
        };
        if let Some(begun) = self.begun.take_if(|begun| begun.kind == kind) {
            self.operation = Some(begun.id.clone());
            return Some(begun.id);
        }
        let operation = OperationId::generate();
        let begun = self
            .shared
            .store
            .begin_operation(&operation, &self.facts.id, kind)
            .await;
        if let Err(error) = begun {
            self.not_stored(&error, "the intent");
            if self.shared.state_dir.is_lasting() {
                return None;
            }
        }
        self.operation = Some(operation.clone());
        Some(operation)
    }

    pub(super) async fn end_operation(&mut self) {
        let Some(operation) = self.operation.take() else {
            return;
        };
        if let Err(error) = self.shared.store.finish_operation(&operation).await {
            self.not_stored(&error, "the end of an operation");
        }
    }

    /// False: it is not stored, and nothing has changed.
    async fn rotate_boot_token(&mut self) -> bool {
        let token = Token::generate();
        let stored = self
            .shared
            .token_store
            .rotate(&self.facts.id, &self.token, &token)
            .await;
        if let Err(error) = stored {
            warn!(sandbox.id = %self.facts.id, %error, "the new token was not stored");
            return false;
        }
        self.token = token;
        if let Some(callback) = &self.callback {
            callback.set_token(self.token.clone());
        }
        true
    }

    fn configure(&mut self) {
        self.abort_configure();
        let is_lost = self.environment.0.is_empty() && !self.facts.environment_names.is_empty();
        let call = if is_lost && self.needs_binding() {
            let message = "the values of its environment were in the memory of the gateway that ran \
                           before, and are nowhere else; create it anew";
            let event = Event::Configured(Err(message.to_owned()));
            self.calls.spawn(async { Outcome::event(event) })
        } else if self.environment.0.is_empty() {
            // Nothing to bind: the bootstrap has said everything else. Or the supervisor knows it
            // from the gateway that ran before.
            self.calls
                .spawn(async { Outcome::event(Event::Configured(Ok(()))) })
        } else if let Some(session) = self.session.clone() {
            self.calls
                .spawn(calls::configure(session, self.environment.clone()))
        } else {
            return;
        };
        self.configure_call = Some(call);
    }

    /// What was bound to an earlier session counts no more.
    pub(super) fn abort_configure(&mut self) {
        if let Some(earlier) = self.configure_call.take() {
            earlier.abort();
        }
    }

    /// This boot's supervisor has not been told its environment by an earlier gateway.
    fn needs_binding(&self) -> bool {
        self.booted_here || self.facts.ready_time == UnixMillis::default()
    }

    /// A driver that has forgotten a sandbox deletes nothing of it, and says that all is well. Whoever
    /// still has a session to its supervisor can end it.
    async fn end_workload(&mut self) {
        let Some(session) = self.session.take().filter(|session| !session.is_closed()) else {
            return;
        };
        let mut client = session.client();
        let end = client.shutdown(ShutdownRequest { grace_ms: 0 });
        // Most often the session is just ending, because the driver has done its work.
        if let Ok(Ok(_)) = tokio::time::timeout(SHUTDOWN_TIMEOUT, end).await {
            let id = &self.facts.id;
            warn!(sandbox.id = %id, "its supervisor lived on after the delete, and was ended");
        }
    }

    /// When it is published as deleted, nothing of it is left and its name is free. Before that,
    /// nobody may hear that it is: its record would come back with the next start.
    async fn remove(&mut self) {
        self.end_workload().await;
        if let Some(callback) = self.callback.take() {
            callback.close().await;
        }
        let operation = self.operation.take();
        let id = self.facts.id.clone();
        let mut changes = vec![Change::RemoveSandbox(&id)];
        changes.extend(operation.as_ref().map(Change::FinishOperation));
        while let Err(error) = self.shared.store.apply(&changes).await {
            self.not_stored(&error, "the removal");
            if !self.shared.state_dir.is_lasting() {
                break;
            }
            self.facts.state = SandboxState::Deleting;
            self.facts.message = format!("nothing of it is left but its record: {error}");
            self.publish();
            let cancel = self.shared.cancel.clone();
            tokio::select! {
                // The next start finds the record, and deletes what is not there.
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(STORE_RETRY) => {}
            }
        }
        self.facts.state = SandboxState::Deleted;
        self.shared.forget(&self.facts.id, self.facts.name.as_ref());
    }

    /// What is wrong with the machine is said once, and not by each sandbox.
    pub(super) fn not_stored(&self, error: &StoreError, what: &str) {
        if error.trouble().is_none() {
            warn!(sandbox.id = %self.facts.id, %error, "{what} was not stored");
        }
    }
}
