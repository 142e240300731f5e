//! What somebody wants of a sandbox: on record first, done then.
//!
//! A caller whose wish cannot be stored is refused, and nothing has changed. What the gateway itself
//! wants, since a lifetime has passed for instance, is postponed until it can be stored.

use tokio::time::Instant;

use super::effects::STORE_RETRY;
use super::state::{Effect, Event, Wanted, step};
use super::task::Task;
use super::{Command, Wish};
use crate::model::OperationId;
use crate::store::{Change, StoreError};

/// A driver call that is on record and has not been made yet.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) kind: &'static str,
    pub(super) id: OperationId,
}

/// A wish that could not be stored.
#[derive(Debug)]
pub(super) struct Postponed {
    wish: Wish,
    pub(super) until: Instant,
}

impl From<&Wish> for Event {
    fn from(wish: &Wish) -> Self {
        match wish {
            Wish::Stop { .. } => Self::Stop,
            Wish::Start => Self::Start,
            Wish::Delete { reason, message } => Self::Delete {
                reason,
                message: message.clone(),
            },
        }
    }
}

impl Task {
    pub(super) async fn command(&mut self, command: Command) {
        let Command { wish, reply } = command;
        let stored = self.intend(&wish).await;
        match (stored, reply) {
            // A caller who has left may hear it from whoever asks next.
            (stored, Some(reply)) => drop(reply.send(stored)),
            (Ok(()), None) => {}
            (Err(error), None) => {
                self.not_stored(&error, "the intent");
                let until = Instant::now() + STORE_RETRY;
                self.postponed = Some(Postponed { wish, until });
            }
        }
    }

    pub(super) async fn postponed_is_due(&mut self) {
        if let Some(Postponed { wish, .. }) = self.postponed.take()
            && self.state.wanted != Wanted::Gone
        {
            self.command(Command { wish, reply: None }).await;
        }
    }

    pub(super) async fn expired(&mut self) {
        self.leave("DEADLINE", "its lifetime has passed".to_owned())
            .await;
    }

    pub(super) async fn idle(&mut self) {
        let message = format!("unused for {} ms", self.facts.idle_timeout_ms);
        self.leave("IDLE_TIMEOUT", message).await;
    }

    async fn leave(&mut self, reason: &'static str, message: String) {
        let wish = Wish::Delete { reason, message };
        self.command(Command { wish, reply: None }).await;
    }

    /// After an error nothing has changed.
    async fn intend(&mut self, wish: &Wish) -> Result<(), StoreError> {
        let earlier = (self.state.clone(), self.facts.clone());
        let before = self.state.phase;
        let mut effects = step(&mut self.state, wish.into());
        self.sync_facts(before);
        if effects.contains(&Effect::Persist) {
            let begun = effects.iter().find_map(kind).map(|kind| Begun {
                kind,
                id: OperationId::generate(),
            });
            let mut changes = vec![Change::UpdateSandbox(&self.facts)];
            if let Some(Begun { kind, id }) = &begun {
                changes.push(Change::BeginOperation(id, &self.facts.id, kind));
            }
            let stored = self.shared.store.apply(&changes).await;
            match stored {
                Ok(()) => {
                    self.storing = None;
                    self.store_again_at = None;
                    self.begun = begun;
                }
                Err(error) if self.shared.state_dir.is_lasting() => {
                    (self.state, self.facts) = earlier;
                    return Err(error);
                }
                // Records that are gone with the gateway bind nobody.
                Err(error) => self.not_stored(&error, "the intent"),
            }
            effects.retain(|effect| *effect != Effect::Persist);
        }
        if let Wish::Stop { grace } = wish {
            self.grace = *grace;
        }
        self.log_change(before);
        if self.state.phase != before {
            // Whoever sees what comes of it has been told before that it was asked for.
            self.publish();
        }
        self.carry_out(effects).await;
        Ok(())
    }
}

/// How a change of the platform is called on record.
pub(super) fn kind(effect: &Effect) -> Option<&'static str> {
    match effect {
        Effect::Start => Some("start"),
        Effect::Stop => Some("stop"),
        Effect::Delete => Some("delete"),
        // A create's intent is the stored record itself; looking changes nothing.
        _ => None,
    }
}
