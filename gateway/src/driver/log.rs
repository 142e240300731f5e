//! What a driver writes to stdout and stderr, line by line, in the gateway's own log.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tracing::Level;

use crate::model::DriverName;

/// Longer lines are cut into pieces.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// The last line that a process wrote to stderr: most often the reason why it ended.
#[derive(Debug, Clone, Default)]
pub(super) struct LastWords(Arc<Mutex<String>>);

impl LastWords {
    pub(super) fn get(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, line: &str) {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *words = line.chars().take(500).collect();
    }
}

/// Logs every line until the end of the stream.
pub(super) async fn forward(
    mut stream: impl AsyncRead + Unpin,
    driver: DriverName,
    last_words: Option<LastWords>,
) {
    let mut buffer = BytesMut::new();
    loop {
        let ended = !matches!(stream.read_buf(&mut buffer).await, Ok(1..));
        while let Some(line) = next_line(&mut buffer, ended) {
            if line.trim().is_empty() {
                continue;
            }
            let (level, text) = level_of(&line);
            // What a driver says of its ordinary work is no reason why it ended.
            if level <= Level::WARN
                && let Some(last_words) = &last_words
            {
                last_words.set(text);
            }
            log(level, &driver, text);
        }
        if ended {
            return;
        }
    }
}

/// The level that a driver gave to a line in the SDK's way, and the rest. A line without one was
/// meant for people: it may be a warning.
fn level_of(line: &str) -> (Level, &str) {
    let line = line.trim_start();
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    let level = match first {
        "ERROR" => Level::ERROR,
        "WARN" => Level::WARN,
        "INFO" => Level::INFO,
        "DEBUG" => Level::DEBUG,
        "TRACE" => Level::TRACE,
        _ => return (Level::WARN, line),
    };
    (level, rest.trim_start())
}

fn log(level: Level, driver: &DriverName, text: &str) {
    match level {
        Level::ERROR => tracing::error!(driver.name = %driver, "{text}"),
        Level::WARN => tracing::warn!(driver.name = %driver, "{text}"),
        Level::INFO => tracing::info!(driver.name = %driver, "{text}"),
        Level::DEBUG => tracing::debug!(driver.name = %driver, "{text}"),
        _ => tracing::trace!(driver.name = %driver, "{text}"),
    }
}

/// Takes a whole line, or what is there if it is too long or the last one. Control characters do
/// not reach the gateway's terminal.
fn next_line(buffer: &mut BytesMut, ended: bool) -> Option<String> {
    let newline = buffer.iter().take(LINE_BYTES_MAX).position(|b| *b == b'\n');
    let length = match newline {
        Some(at) => at,
        None if buffer.len() >= LINE_BYTES_MAX => LINE_BYTES_MAX,
        None if ended && !buffer.is_empty() => buffer.len(),
        None => return None,
    };
    let line = buffer.split_to(length);
    if newline.is_some() {
        buffer.advance(1);
    }
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = String::from_utf8_lossy(&line).chars().map(plain).collect();
    Some(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_line_is_remembered_without_control_characters() {
        let words = LastWords::default();
        let text: &[u8] = b"starting\n\x1b[31mno engine\x07\n\n";
        forward(text, DriverName::parse("d").unwrap(), Some(words.clone())).await;
        assert_eq!(words.get(), "[31mno engine");
    }

    #[tokio::test]
    async fn ordinary_work_is_no_reason_for_an_end() {
        let words = LastWords::default();
        let text: &[u8] = b"ERROR no engine\n INFO a b: the driver is up\n";
        forward(text, DriverName::parse("d").unwrap(), Some(words.clone())).await;
        assert_eq!(words.get(), "no engine");
    }

    #[test]
    fn levels_are_taken_from_the_line() {
        assert_eq!(level_of(" WARN x: y"), (Level::WARN, "x: y"));
        assert_eq!(level_of("DEBUG z"), (Level::DEBUG, "z"));
        assert_eq!(
            level_of("Traceback (most"),
            (Level::WARN, "Traceback (most")
        );
    }

    #[test]
    fn lines_are_taken_whole_and_long_ones_in_pieces() {
        let mut buffer = BytesMut::from(&b"a\nb"[..]);
        assert_eq!(next_line(&mut buffer, false).as_deref(), Some("a"));
        assert_eq!(next_line(&mut buffer, false), None);
        assert_eq!(next_line(&mut buffer, true).as_deref(), Some("b"));
        assert_eq!(next_line(&mut buffer, true), None);

        let mut buffer = BytesMut::from(&[b'x'; LINE_BYTES_MAX + 1][..]);
        assert_eq!(next_line(&mut buffer, false).unwrap().len(), LINE_BYTES_MAX);
        assert_eq!(next_line(&mut buffer, false), None);
    }
}
