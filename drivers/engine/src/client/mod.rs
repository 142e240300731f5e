//! One engine, as far as this driver uses it. Every request has a deadline and a name.

mod attach;
mod containers;
mod error;
mod events;
mod frames;
mod images;
mod lines;
mod logs;
mod negotiate;
mod request;
mod volumes;
pub(crate) mod wire;

use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::facts::EngineFacts;
use crate::transport::Transport;

pub(crate) use attach::Attached;
pub(crate) use containers::label_filter;
pub(crate) use error::EngineError;
pub(crate) use error::{Kind, gone_is_fine};
pub(crate) use frames::StdioStream;
pub(crate) use images::PullEvent;
pub(crate) use negotiate::ConnectError;

/// Answers that an engine gives from memory.
pub(crate) const QUICK: Duration = Duration::from_secs(15);

/// Making, starting and removing things on a busy host.
pub(crate) const SLOW: Duration = Duration::from_secs(120);

/// An engine that has answered. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    transport: Transport,
    pub(crate) facts: Arc<EngineFacts>,
}

impl Engine {
    /// Connects, agrees on a version, and asks what the engine is. `client` is the program that
    /// speaks for it on another host.
    pub(crate) async fn connect(endpoint: &Endpoint, client: &str) -> Result<Self, ConnectError> {
        let transport = Transport::new(endpoint, client)?;
        let (version, info) = negotiate::agree(&transport).await?;
        Ok(Self {
            transport,
            facts: Arc::new(EngineFacts::new(endpoint, &version, &info)),
        })
    }
}
