//! What a driver writes to stdout and stderr, line by line, in the gateway's own log.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

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
            if let Some(last_words) = &last_words {
                last_words.set(&line);
            }
            tracing::info!(driver.name = %driver, "{line}");
        }
        if ended {
            return;
        }
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
        assert_eq!(words.get(), " [31mno engine");
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
