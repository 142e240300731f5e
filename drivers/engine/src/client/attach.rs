//! A container's own stdin and stdout, as one byte stream.

use http::{Method, Request};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use super::containers::ask;
use super::request::{full, path};
use super::{Engine, EngineError, QUICK};

/// The raw connection: what is written goes to stdin; what is read are frames of stdout and stderr,
/// if they were asked for.
pub(crate) type Attached = TokioIo<Upgraded>;

impl Engine {
    /// Attaches to a container, which need not run yet. With `outputs`, its stdout and stderr come
    /// back in the engine's frames.
    pub(crate) async fn attach(&self, id: &str, outputs: bool) -> Result<Attached, EngineError> {
        let ask = ask("attach to container", id, QUICK);
        let mut query = vec![("stream", "1"), ("stdin", "1")];
        if outputs {
            query.extend([("stdout", "1"), ("stderr", "1")]);
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(path(&format!("/containers/{id}/attach"), &query))
            .header(http::header::CONNECTION, "Upgrade")
            .header(http::header::UPGRADE, "tcp")
            .body(full(Vec::new()))
            .map_err(|error| EngineError::protocol(ask.operation, id, error))?;
        let upgraded = async {
            let answer = self.transport.ask(ask, request).await?;
            hyper::upgrade::on(answer)
                .await
                .map_err(|error| EngineError::protocol(ask.operation, id, error))
        };
        match tokio::time::timeout(QUICK, upgraded).await {
            Ok(upgraded) => Ok(TokioIo::new(upgraded?)),
            Err(_) => Err(EngineError::timeout(ask.operation, id, QUICK)),
        }
    }
}
