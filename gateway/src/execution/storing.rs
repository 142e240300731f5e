//! What a runner writes to the state directory, and what it does while that takes nothing: it
//! waits, says so to whoever follows, and goes on by itself.
//!
//! Output that cannot be stored holds the process up. Only when the process is being ended anyway
//! is the rest let go of, and counted.

use std::time::Duration;

use tracing::warn;

use super::live::Chunk;
use super::runner::{Final, Runner};
use super::{Kill, ending};
use crate::model::{ExecutionReason, ExecutionState};
use crate::state_dir::Trouble;
use crate::store::StoreError;

/// The state directory may take something again by then.
pub(super) const STORE_RETRY: Duration = Duration::from_secs(1);
/// An end that cannot be stored is told all the same after this many tries.
const FINISH_ATTEMPTS_MAX: u32 = 30;

impl Runner {
    /// How much of the output has come: what is stored, and what was let go of.
    pub(super) fn received(&self) -> u64 {
        self.log.end_offset() + self.discarded
    }

    /// Gives back what could not be stored; the process waits meanwhile.
    pub(super) fn store(&mut self, mut chunk: Chunk) -> Option<Chunk> {
        if self.is_discarding {
            self.discard(&chunk);
            return None;
        }
        let outcome = self.append(&chunk);
        let taken = usize::try_from(self.log.end_offset() - chunk.offset).unwrap_or(usize::MAX);
        let rest = chunk.data.split_off(taken.min(chunk.data.len()));
        let rest_offset = chunk.offset + chunk.data.len() as u64;
        let stream = chunk.stream;
        if !chunk.data.is_empty() {
            self.live.push(chunk);
            self.outbox.acknowledge(rest_offset);
        }
        match outcome {
            Ok(()) => {
                self.goes_on();
                None
            }
            Err(trouble) => {
                self.waits(trouble);
                Some(Chunk {
                    offset: rest_offset,
                    stream,
                    data: rest,
                })
            }
        }
    }

    fn append(&mut self, chunk: &Chunk) -> Result<(), Trouble> {
        let state_dir = &self.shared.state_dir;
        state_dir.room_for(chunk.data.len() as u64)?;
        let appended = self.log.append(chunk.stream, &chunk.data);
        appended.map_err(|error| {
            let trouble = error.trouble(state_dir.path());
            state_dir.failed(&trouble);
            trouble
        })
    }

    /// From now on output is counted and not stored: the process is being ended, and there is no
    /// room for what it has left.
    pub(super) fn let_go(&mut self, unstored: &mut Option<Chunk>) {
        self.is_discarding = true;
        if let Some(chunk) = unstored.take() {
            self.discard(&chunk);
        }
    }

    fn discard(&mut self, chunk: &Chunk) {
        self.discarded += chunk.data.len() as u64;
        self.outbox.acknowledge(self.received());
    }

    fn waits(&mut self, trouble: Trouble) {
        if self.stalled.is_none() {
            self.live.set_waiting(Some(trouble.clone()));
        }
        self.stalled = Some(trouble);
    }

    fn goes_on(&mut self) {
        if self.stalled.take().is_some() {
            self.live.set_waiting(None);
            self.shared.state_dir.wrote();
        }
    }

    pub(super) async fn persist(&self) -> Result<(), StoreError> {
        let stored = self.shared.store.update_execution(&self.facts).await;
        if let Err(error) = &stored
            && error.trouble().is_none()
        {
            warn!(execution.id = %self.facts.id, %error, "the execution's record was not stored");
        }
        stored
    }

    /// Waits until it is on record that something may run: a later gateway has to look.
    pub(super) async fn persist_claim(&mut self) -> Result<(), Final> {
        loop {
            let trouble = match self.persist().await {
                Ok(()) => {
                    self.goes_on();
                    return Ok(());
                }
                Err(error) => match error.trouble() {
                    Some(trouble) => trouble,
                    None => {
                        let message = format!("it could not be recorded, and was not run: {error}");
                        let ending = ending::plain(ExecutionReason::GatewayFault, message);
                        return Err((ExecutionState::Failed, ending));
                    }
                },
            };
            self.waits(trouble);
            self.interruptible(tokio::time::sleep(STORE_RETRY), false)
                .await?;
        }
    }

    /// False: it could not be stored for long, and those who follow have to be told now.
    pub(super) async fn persist_end(&mut self) -> bool {
        for _ in 0..FINISH_ATTEMPTS_MAX {
            match self.persist().await {
                Ok(()) => {
                    self.goes_on();
                    return true;
                }
                Err(error) => {
                    if let Some(trouble) = error.trouble() {
                        self.waits(trouble);
                    }
                }
            }
            tokio::time::sleep(STORE_RETRY).await;
        }
        false
    }

    /// The end was told; a later gateway must not take it for lost.
    pub(super) async fn persist_end_at_last(&mut self) {
        while self.persist().await.is_err() {
            tokio::time::sleep(STORE_RETRY).await;
        }
    }

    pub(super) fn timeout(&self) -> Kill {
        Kill::Timeout {
            after_ms: self.facts.timeout_ms,
            stalled: self.stalled.clone(),
        }
    }
}
