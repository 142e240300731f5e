//! Answers that are a line of JSON for each thing that happens.

use futures_util::Stream;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::EngineError;
use crate::transport::BoxError;

/// A line is about a kilobyte; one of this length is none.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Everything that the engine says in an answer, until it ends.
pub(super) fn json_lines<T>(
    operation: &'static str,
    object: String,
    answer: Response<Incoming>,
) -> impl Stream<Item = Result<T, EngineError>> + Send + use<T>
where
    T: DeserializeOwned + Send + Sync,
{
    let mut body = answer.into_body();
    async_stream::try_stream! {
        let mut lines = Lines::default();
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|error| EngineError::transport(operation, &object, error.into()))?;
            let data = frame.data_ref().map(|data| &data[..]).unwrap_or_default();
            lines
                .push(data)
                .map_err(|error| EngineError::protocol(operation, &object, error))?;
            while let Some(line) = lines.next() {
                yield parse(operation, &object, &line)?;
            }
        }
        if let Some(line) = lines.last() {
            yield parse(operation, &object, &line)?;
        }
    }
}

fn parse<T: DeserializeOwned>(
    operation: &'static str,
    object: &str,
    line: &[u8],
) -> Result<T, EngineError> {
    serde_json::from_slice(line).map_err(|error| EngineError::protocol(operation, object, error))
}

/// Whole lines out of pieces.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Result<(), BoxError> {
        self.0.extend_from_slice(bytes);
        if self.0.len() > LINE_BYTES_MAX && !self.0.contains(&b'\n') {
            return Err("a line has no end".into());
        }
        Ok(())
    }

    /// What has no end because everything ended.
    fn last(self) -> Option<Vec<u8>> {
        Some(self.0).filter(|line| !line.trim_ascii().is_empty())
    }

    /// Without its end, and not empty.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let end = self.0.iter().position(|byte| *byte == b'\n')?;
            let rest = self.0.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.0, rest);
            line.pop();
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_were_cut() {
        let mut lines = Lines::default();
        lines.push(b"{\"a\"").unwrap();
        assert_eq!(lines.next(), None);
        lines.push(b":1}\n\r\n{}\n{").unwrap();
        assert_eq!(lines.next().unwrap(), b"{\"a\":1}");
        assert_eq!(lines.next().unwrap(), b"{}");
        assert_eq!(lines.next(), None);
    }
}
