//! What happens to containers, as the engine tells it.

use futures_util::{Stream, StreamExt as _};
use http::Method;
use serde_json::json;

use super::containers::ask;
use super::lines::json_lines;
use super::request::path;
use super::wire::EventJson;
use super::{Engine, EngineError, Kind, QUICK};

impl Engine {
    /// Events of containers with this label from now on. Subscribed when this returns; the stream
    /// ends when the engine does, always with an error.
    pub(crate) async fn events(
        &self,
        label: &str,
    ) -> Result<impl Stream<Item = Result<EventJson, EngineError>> + Send + use<>, EngineError>
    {
        let ask = ask("watch", "events", QUICK);
        let filters = json!({ "type": ["container"], "label": [label] }).to_string();
        let target = path("/events", &[("filters", &filters)]);
        let opened = self.transport.open(ask, Method::GET, &target, None);
        let answer = match tokio::time::timeout(QUICK, opened).await {
            Ok(answer) => answer?,
            Err(_) => return Err(EngineError::timeout(ask.operation, ask.object, QUICK)),
        };
        let mut events = Box::pin(json_lines(ask.operation, "events".to_owned(), answer));
        Ok(async_stream::try_stream! {
            while let Some(event) = events.next().await {
                yield event?;
            }
            Err(EngineError::new(
                "watch",
                "events",
                Kind::Unreachable,
                "the engine ended the stream",
            ))?;
        })
    }
}
