//! Requests in the forms that engines take, and answers read whole.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::EngineError;
use crate::transport::{Body, Transport};

/// An inventory of some thousand containers is a few megabytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is asked, and how it is called in an error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) operation: &'static str,
    pub(crate) object: &'a str,
    pub(crate) limit: Duration,
}

/// A path with its query, escaped.
pub(crate) fn path(path: &str, query: &[(&str, &str)]) -> String {
    if query.is_empty() {
        return path.to_owned();
    }
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    pairs.extend_pairs(query);
    format!("{path}?{}", pairs.finish())
}

/// A segment of a path: names of images have slashes, which stay.
pub(crate) fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' | b'/' | b'@' => {
                escaped.push(char::from(byte));
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

impl Transport {
    /// GET, and the answer as JSON.
    pub(crate) async fn get_json<T: DeserializeOwned>(
        &self,
        ask: Ask<'_>,
        path: &str,
    ) -> Result<T, EngineError> {
        let body = self.exchange(ask, Method::GET, path, None).await?;
        serde_json::from_slice(&body)
            .map_err(|error| EngineError::protocol(ask.operation, ask.object, error))
    }

    /// POST of JSON, and the answer as JSON.
    pub(crate) async fn post_json<T: DeserializeOwned>(
        &self,
        ask: Ask<'_>,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, EngineError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| EngineError::protocol(ask.operation, ask.object, error))?;
        let body = self.exchange(ask, Method::POST, path, Some(body)).await?;
        serde_json::from_slice(&body)
            .map_err(|error| EngineError::protocol(ask.operation, ask.object, error))
    }

    /// A request whose answer says nothing. 304 ("it is so already") is fine.
    pub(crate) async fn perform(
        &self,
        ask: Ask<'_>,
        method: Method,
        path: &str,
    ) -> Result<(), EngineError> {
        self.exchange(ask, method, path, None).await.map(drop)
    }

    /// PUT of a tar archive.
    pub(crate) async fn put_archive(
        &self,
        ask: Ask<'_>,
        path: &str,
        archive: Vec<u8>,
    ) -> Result<(), EngineError> {
        let put = async {
            let request = Request::builder()
                .method(Method::PUT)
                .uri(path)
                .header(http::header::CONTENT_TYPE, "application/x-tar")
                .body(full(archive))
                .map_err(|error| EngineError::protocol(ask.operation, ask.object, error))?;
            let answer = self.ask(ask, request).await?;
            collect(ask, answer).await.map(drop)
        };
        match tokio::time::timeout(ask.limit, put).await {
            Ok(done) => done,
            Err(_) => Err(EngineError::timeout(ask.operation, ask.object, ask.limit)),
        }
    }

    async fn exchange(
        &self,
        ask: Ask<'_>,
        method: Method,
        path: &str,
        json: Option<Vec<u8>>,
    ) -> Result<Bytes, EngineError> {
        let asked = async {
            let answer = self.open(ask, method, path, json).await?;
            collect(ask, answer).await
        };
        match tokio::time::timeout(ask.limit, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(EngineError::timeout(ask.operation, ask.object, ask.limit)),
        }
    }

    /// Sends, and returns the answer unread if it is a good one. Without a deadline.
    pub(crate) async fn open(
        &self,
        ask: Ask<'_>,
        method: Method,
        path: &str,
        json: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, EngineError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(full(json.unwrap_or_default()))
            .map_err(|error| EngineError::protocol(ask.operation, ask.object, error))?;
        self.ask(ask, request).await
    }

    /// As [`open`](Self::open), with a request made elsewhere.
    pub(crate) async fn ask(
        &self,
        ask: Ask<'_>,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, EngineError> {
        let answer = self
            .send(request)
            .await
            .map_err(|error| EngineError::transport(ask.operation, ask.object, error))?;
        let status = answer.status();
        let is_good = status.is_success()
            || status == StatusCode::NOT_MODIFIED
            || status == StatusCode::SWITCHING_PROTOCOLS;
        if is_good {
            return Ok(answer);
        }
        let text = collect(ask, answer).await?;
        Err(EngineError::answered(
            ask.operation,
            ask.object,
            status.as_u16(),
            &message(&text),
        ))
    }
}

pub(crate) fn full(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes))
        .map_err(|never| match never {})
        .boxed_unsync()
}

async fn collect(ask: Ask<'_>, answer: Response<Incoming>) -> Result<Bytes, EngineError> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(EngineError::transport(ask.operation, ask.object, error)),
    }
}

/// Engines wrap what they have to say in an object; some proxies before them do not.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Wrapped {
        message: String,
    }
    match serde_json::from_slice::<Wrapped>(body) {
        Ok(wrapped) => wrapped.message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_names_are_escaped() {
        assert_eq!(
            path("/a", &[("filters", r#"{"label":["a=b"]}"#)]),
            "/a?filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D"
        );
        assert_eq!(
            segment("r.example:5000/a/b@sha256:c"),
            "r.example:5000/a/b@sha256:c"
        );
        assert_eq!(segment("a b?c"), "a%20b%3Fc");
    }
}
