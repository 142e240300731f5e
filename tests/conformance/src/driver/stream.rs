//! A driver's stream of answers.

use std::time::Duration;

use prost::Message;
use tokio::time::timeout;
use tonic::Streaming;

use super::Driver;
use crate::answer::{How, Refused};

/// A stream. Dropped, the RPC is cancelled.
#[derive(Debug)]
pub(crate) struct Answers<R> {
    driver: Driver,
    rpc: &'static str,
    stream: Streaming<R>,
}

impl<R: Message> Answers<R> {
    pub(super) fn new(driver: Driver, rpc: &'static str, stream: Streaming<R>) -> Self {
        Self {
            driver,
            rpc,
            stream,
        }
    }

    /// The next message within so much time; none at the end of the stream.
    pub(crate) async fn next_within(&mut self, patience: Duration) -> Result<Option<R>, Refused> {
        let rpc = self.rpc;
        let suite = self.driver.suite();
        suite.step(format!("waiting for the next message of {rpc}"));
        match timeout(patience, self.stream.message()).await {
            Ok(Ok(Some(message))) => {
                suite.recorder().answer(rpc, &message);
                Ok(Some(message))
            }
            Ok(Ok(None)) => Ok(None),
            Ok(Err(status)) => Err(self.driver.refused(rpc, status).await),
            Err(_) => Err(Refused {
                rpc,
                how: How::Silent(patience),
            }),
        }
    }

    /// As `next_within`, with the suite's patience.
    pub(crate) async fn next(&mut self) -> Result<Option<R>, Refused> {
        let patience = self.driver.suite().patience();
        self.next_within(patience).await
    }

    /// Everything until the stream ends by itself.
    pub(crate) async fn all(mut self) -> Result<Vec<R>, Refused> {
        let mut all = Vec::new();
        while let Some(message) = self.next().await? {
            all.push(message);
        }
        Ok(all)
    }
}
