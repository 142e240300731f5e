//! Images: looked up, pulled, loaded.

use std::path::Path;

use cofferdam_driver_sdk::proto::RegistryCredentials;
use data_encoding::BASE64URL;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use http::{Method, Request};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;
use zeroize::Zeroizing;

use super::containers::ask;
use super::lines::json_lines;
use super::request::{full, path, segment};
use super::wire::ImageJson;
use super::{Engine, EngineError, QUICK};
use crate::transport::BoxError;

/// Progress of one layer, or a line about all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PullEvent {
    /// The layer; empty for the whole image.
    pub(crate) layer: String,
    /// "Downloading", "Pull complete", "Loaded image: x:latest".
    pub(crate) status: String,
    pub(crate) done_bytes: Option<u64>,
    pub(crate) total_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProgressJson {
    id: String,
    status: String,
    stream: String,
    error: String,
    error_detail: Option<ErrorDetailJson>,
    progress_detail: Option<CountsJson>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorDetailJson {
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CountsJson {
    current: Option<i64>,
    total: Option<i64>,
}

/// `X-Registry-Auth`.
#[derive(Serialize)]
struct AuthJson<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    password: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    identitytoken: &'a str,
    serveraddress: &'a str,
}

impl Engine {
    pub(crate) async fn inspect_image(&self, name: &str) -> Result<ImageJson, EngineError> {
        let ask = ask("inspect image", name, QUICK);
        let target = format!("/images/{}/json", segment(name));
        self.transport.get_json(ask, &target).await
    }

    /// Pulls; the stream ends with the pull. Dropped, the engine stops pulling. `name` is without
    /// its tag or digest, which is in `tag`.
    pub(crate) async fn pull(
        &self,
        registry: &str,
        name: &str,
        tag: &str,
        platform: &str,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<impl Stream<Item = Result<PullEvent, EngineError>> + Send + use<>, EngineError>
    {
        let object = format!("{name}:{tag}");
        let ask = ask("pull image", &object, QUICK);
        let mut query = vec![("fromImage", name), ("tag", tag)];
        if !platform.is_empty() {
            query.push(("platform", platform));
        }
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path("/images/create", &query));
        if let Some(credentials) = credentials {
            request = request.header("X-Registry-Auth", registry_auth(registry, credentials));
        }
        let request = request
            .body(full(Vec::new()))
            .map_err(|error| EngineError::protocol(ask.operation, &object, error))?;
        // The engine begins to answer when the registry has; the caller bounds the whole.
        let answer = self.transport.ask(ask, request).await?;
        Ok(progress("pull image", object.clone(), answer))
    }

    /// Loads an archive as `docker save` writes it, and tells what the engine says about it.
    pub(crate) async fn load(
        &self,
        archive: &Path,
    ) -> Result<impl Stream<Item = Result<PullEvent, EngineError>> + Send + use<>, EngineError>
    {
        let object = archive.display().to_string();
        let ask = ask("load image", &object, QUICK);
        let file = tokio::fs::File::open(archive)
            .await
            .map_err(|error| EngineError::protocol("read image archive", &object, error))?;
        let frames = ReaderStream::new(file).map_ok(Frame::data);
        let body = http_body_util::BodyExt::map_err(StreamBody::new(frames), BoxError::from);
        let request = Request::builder()
            .method(Method::POST)
            .uri("/images/load")
            .header(http::header::CONTENT_TYPE, "application/x-tar")
            .body(body.boxed_unsync())
            .map_err(|error| EngineError::protocol(ask.operation, &object, error))?;
        let answer = self.transport.ask(ask, request).await?;
        Ok(progress("load image", object.clone(), answer))
    }
}

fn progress(
    operation: &'static str,
    object: String,
    answer: http::Response<hyper::body::Incoming>,
) -> impl Stream<Item = Result<PullEvent, EngineError>> + Send {
    let lines = json_lines::<ProgressJson>(operation, object.clone(), answer);
    lines.map(move |line| event(operation, &object, line?))
}

/// A failure in the middle comes as a line like any other.
fn event(
    operation: &'static str,
    object: &str,
    line: ProgressJson,
) -> Result<PullEvent, EngineError> {
    let failed = line.error_detail.map(|detail| detail.message);
    let failed = failed.filter(|message| !message.is_empty());
    if let Some(message) = failed.or(Some(line.error).filter(|error| !error.is_empty())) {
        return Err(EngineError::answered(operation, object, 500, &message));
    }
    let counts = line.progress_detail.unwrap_or_default();
    let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
    Ok(PullEvent {
        layer: line.id,
        status: match line.status.is_empty() {
            true => line.stream.trim().to_owned(),
            false => line.status,
        },
        done_bytes: bytes(counts.current),
        total_bytes: bytes(counts.total).filter(|total| *total > 0),
    })
}

/// In the URL's alphabet: engines take credentials in the other one for none at all.
fn registry_auth(registry: &str, credentials: &RegistryCredentials) -> http::HeaderValue {
    let json = serde_json::to_vec(&AuthJson {
        username: &credentials.username,
        password: &credentials.password,
        identitytoken: &credentials.identity_token,
        serveraddress: registry,
    });
    let json = Zeroizing::new(json.unwrap_or_default());
    let text = BASE64URL.encode(&json);
    let mut value =
        http::HeaderValue::from_str(&text).unwrap_or_else(|_| http::HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<PullEvent, EngineError> {
        event("pull image", "x", serde_json::from_str(line).unwrap())
    }

    #[test]
    fn progress_and_failures_are_lines() {
        let line = r#"{"status":"Downloading","progressDetail":{"current":5,"total":9},"id":"ab"}"#;
        let seen = read(line).unwrap();
        assert_eq!((seen.done_bytes, seen.total_bytes), (Some(5), Some(9)));
        let line = r#"{"errorDetail":{"message":"no space left on device"},"error":"x"}"#;
        assert_eq!(read(line).unwrap_err().kind, super::super::Kind::NoSpace);
        assert!(read(r#"{"error":"denied"}"#).is_err());
        let seen = read(r#"{"stream":"Loaded image: a:b\n"}"#).unwrap();
        assert_eq!(seen.status, "Loaded image: a:b");
    }

    #[test]
    fn credentials_are_in_the_alphabet_of_urls() {
        let credentials = RegistryCredentials {
            username: "u".to_owned(),
            password: "~~~???>>>".to_owned(),
            identity_token: String::new(),
        };
        let value = registry_auth("r.example:5000", &credentials);
        let text = value.to_str().unwrap();
        assert!(!text.contains(['+', '/']), "{text}");
        let json = BASE64URL.decode(text.as_bytes()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["password"], "~~~???>>>");
        assert!(!format!("{value:?}").contains(text));
    }
}
