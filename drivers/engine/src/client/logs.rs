//! What a container printed, as the engine kept it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::Method;
use http_body_util::BodyExt as _;

use super::containers::ask;
use super::frames::Unframed;
use super::request::path;
use super::{Engine, EngineError};

const OPEN: Duration = super::QUICK;

impl Engine {
    /// Everything that is kept, and with `follow` what comes until the container ends.
    pub(crate) async fn logs(
        &self,
        id: &str,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<Bytes, EngineError>> + Send + use<>, EngineError> {
        let id = id.to_owned();
        let ask = ask("read the log of container", &id, OPEN);
        let follow = if follow { "1" } else { "0" };
        let target = path(
            &format!("/containers/{id}/logs"),
            &[("stdout", "1"), ("stderr", "1"), ("follow", follow)],
        );
        let opened = self.transport.open(ask, Method::GET, &target, None);
        let answer = match tokio::time::timeout(OPEN, opened).await {
            Ok(answer) => answer?,
            Err(_) => return Err(EngineError::timeout(ask.operation, &id, OPEN)),
        };
        let mut body = answer.into_body();
        Ok(async_stream::try_stream! {
            let mut unframed = Unframed::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| {
                    EngineError::transport("read the log of container", &id, error.into())
                })?;
                let piece = frame.data_ref().map(|data| &data[..]).unwrap_or_default();
                let payload = unframed.take(piece).map_err(|error| {
                    EngineError::protocol("read the log of container", &id, error)
                })?;
                if !payload.is_empty() {
                    yield payload;
                }
            }
        })
    }
}
