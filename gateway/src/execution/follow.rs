//! Following an execution's output from any offset: memory first, then the files.

use std::sync::Arc;

use tokio::sync::watch;

use super::Chunk;
use super::live::{Live, PrimaryGuard};
use crate::model::ExecutionFacts;
use crate::output::{OutputError, OutputReader, Piece};

/// Read from files in pieces of at most this.
const PIECE_BYTES_MAX: usize = 256 * 1024;

/// What comes next.
#[derive(Debug)]
pub enum Item {
    Output(Chunk),
    /// Bytes that the record does not hold any more.
    Gap {
        offset: u64,
        length: u64,
    },
    /// A new state, not the last one.
    State(Arc<ExecutionFacts>),
    /// It has ended, and this was all of its output.
    Finished(Arc<ExecutionFacts>),
    /// It has not ended, and there is no more now.
    CaughtUp(Arc<ExecutionFacts>),
}

#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("the gateway is shutting down; the execution goes on")]
    ShuttingDown,
}

/// One follower's position.
#[derive(Debug)]
pub struct Follow {
    offset: u64,
    reader: OutputReader,
    facts: watch::Receiver<Arc<ExecutionFacts>>,
    live: Option<Arc<Live>>,
    end: Option<watch::Receiver<u64>>,
    primary: Option<PrimaryGuard>,
    told: Option<crate::model::ExecutionState>,
}

impl Follow {
    /// Of an execution with a runner.
    pub(super) fn live(
        live: Arc<Live>,
        reader: OutputReader,
        facts: watch::Receiver<Arc<ExecutionFacts>>,
        offset: u64,
        primary: bool,
    ) -> Self {
        let end = live.end();
        let primary = primary.then(|| live.become_primary(offset));
        Self {
            offset,
            reader,
            facts,
            live: Some(live),
            end: Some(end),
            primary,
            told: None,
        }
    }

    /// Of an execution that has ended.
    pub(super) fn ended(facts: ExecutionFacts, reader: OutputReader, offset: u64) -> Self {
        let (_, facts) = watch::channel(Arc::new(facts));
        Self {
            offset,
            reader,
            facts,
            live: None,
            end: None,
            primary: None,
            told: None,
        }
    }

    /// The next item. Cancelling it loses nothing.
    pub async fn next(&mut self, wait: bool) -> Result<Item, FollowError> {
        loop {
            // The facts are looked at before the output: what they say is final includes it.
            let facts = self.facts.borrow_and_update().clone();
            if let Some(item) = self.output()? {
                return Ok(item);
            }
            if facts.state.is_final() {
                return Ok(Item::Finished(facts));
            }
            if self.told != Some(facts.state) {
                self.told = Some(facts.state);
                return Ok(Item::State(facts));
            }
            if !wait {
                return Ok(Item::CaughtUp(facts));
            }
            self.changed().await?;
        }
    }

    fn output(&mut self) -> Result<Option<Item>, FollowError> {
        if let Some(end) = &mut self.end {
            end.borrow_and_update();
        }
        // Asking for more means that what came before was passed on.
        if let Some(primary) = &self.primary {
            primary.consumed(self.offset);
        }
        let live = self.live.as_ref().and_then(|live| live.get(self.offset));
        let chunk = match live {
            Some(chunk) => chunk,
            None => match self.reader.next(self.offset, PIECE_BYTES_MAX)? {
                Piece::Chunk {
                    offset,
                    stream,
                    bytes,
                } => Chunk {
                    offset,
                    stream,
                    data: bytes,
                },
                Piece::Gap { offset, length } => {
                    self.offset = offset + length;
                    return Ok(Some(Item::Gap { offset, length }));
                }
                Piece::End => return Ok(None),
            },
        };
        self.offset = chunk.offset + chunk.data.len() as u64;
        Ok(Some(Item::Output(chunk)))
    }

    async fn changed(&mut self) -> Result<(), FollowError> {
        let Some(end) = &mut self.end else {
            return Err(FollowError::ShuttingDown);
        };
        tokio::select! {
            _ = end.changed() => Ok(()),
            changed = self.facts.changed() => changed.map_err(|_| FollowError::ShuttingDown),
        }
    }
}
