//! Following an execution's output from any offset: memory first, then the files.

use std::sync::Arc;

use cofferdam_proto::PIECE_BYTES_MAX;
use tokio::sync::watch;

use super::Chunk;
use super::live::{Live, PrimaryGuard};
use crate::model::ExecutionFacts;
use crate::output::{OutputError, OutputReader, Piece};
use crate::state_dir::Trouble;

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
    /// Nothing can be stored now, and so it is held up.
    Waiting(Trouble),
    /// That is over.
    Resumed,
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
    waiting: Option<watch::Receiver<Option<Trouble>>>,
    told_to_wait: bool,
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
        let (end, waiting) = (live.end(), live.waiting());
        let primary = primary.then(|| live.become_primary(offset));
        Self {
            offset,
            reader,
            facts,
            live: Some(live),
            end: Some(end),
            primary,
            waiting: Some(waiting),
            told_to_wait: false,
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
            waiting: None,
            told_to_wait: false,
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
                return Ok(self.missing_end(&facts).unwrap_or(Item::Finished(facts)));
            }
            if self.told != Some(facts.state) {
                self.told = Some(facts.state);
                return Ok(Item::State(facts));
            }
            if let Some(item) = self.notice() {
                return Ok(item);
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

    /// What was let go of when it was ended: the record counts it and does not hold it.
    fn missing_end(&mut self, facts: &ExecutionFacts) -> Option<Item> {
        let length = facts.output.bytes.checked_sub(self.offset)?;
        let offset = self.offset;
        self.offset += length;
        (length > 0).then_some(Item::Gap { offset, length })
    }

    fn notice(&mut self) -> Option<Item> {
        let waiting = self.waiting.as_mut()?.borrow_and_update().clone();
        if waiting.is_some() == self.told_to_wait {
            return None;
        }
        self.told_to_wait = waiting.is_some();
        Some(waiting.map_or(Item::Resumed, Item::Waiting))
    }

    async fn changed(&mut self) -> Result<(), FollowError> {
        let (Some(end), Some(waiting)) = (&mut self.end, &mut self.waiting) else {
            return Err(FollowError::ShuttingDown);
        };
        tokio::select! {
            _ = end.changed() => Ok(()),
            _ = waiting.changed() => Ok(()),
            changed = self.facts.changed() => changed.map_err(|_| FollowError::ShuttingDown),
        }
    }
}
