//! The frames that gateway and supervisor exchange before HTTP/2 begins, as `supervisor.proto` states them.
//!
//! Pure: bytes in, frames out, and the authenticators over them. It owns no stream, no clock and no
//! token; who sends what and when is decided by each side for itself.
//!
//! ```text
//! frame = magic(8) type(1) length(4, big endian) body(length) crc32(4, big endian, over type‖length‖body)
//! ```

use std::ops::RangeInclusive;

use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::Sha256;

use crate::supervisor::v1::{Hello, HelloReply, Ready, Reject, Welcome};

/// The first bytes of each frame.
pub const MAGIC: [u8; 8] = *b"\x00CDHELO1";
/// No frame has a longer body.
pub const BODY_BYTES_MAX: usize = 4096;
/// Length of nonces, tokens and authenticators.
pub const KEY_BYTES: usize = 32;
/// Length of a supervisor's boot id.
pub const BOOT_ID_BYTES: usize = 16;
/// Session protocols that this crate's messages can speak.
pub const PROTOCOLS: RangeInclusive<u32> = 1..=1;

const HEAD_BYTES: usize = MAGIC.len() + 1 + 4;
const CRC_BYTES: usize = 4;

/// One frame of the hello exchange.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Type 1, gateway to supervisor.
    Hello(Hello),
    /// Type 2, supervisor to gateway.
    HelloReply(HelloReply),
    /// Type 3, gateway to supervisor.
    Welcome(Welcome),
    /// Type 4, supervisor to gateway; the next byte is HTTP/2.
    Ready(Ready),
    /// Type 5, gateway to supervisor.
    Reject(Reject),
}

impl Frame {
    /// The frame's bytes, or `None` if its body is longer than [`BODY_BYTES_MAX`].
    pub fn encode(&self) -> Option<Vec<u8>> {
        let (kind, body) = match self {
            Self::Hello(message) => (1u8, message.encode_to_vec()),
            Self::HelloReply(message) => (2, message.encode_to_vec()),
            Self::Welcome(message) => (3, message.encode_to_vec()),
            Self::Ready(message) => (4, message.encode_to_vec()),
            Self::Reject(message) => (5, message.encode_to_vec()),
        };
        if body.len() > BODY_BYTES_MAX {
            return None;
        }
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len() + CRC_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(kind);
        bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&body);
        let crc = crc32fast::hash(&bytes[MAGIC.len()..]);
        bytes.extend_from_slice(&crc.to_be_bytes());
        Some(bytes)
    }

    fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        match kind {
            1 => Hello::decode(body).ok().map(Self::Hello),
            2 => HelloReply::decode(body).ok().map(Self::HelloReply),
            3 => Welcome::decode(body).ok().map(Self::Welcome),
            4 => Ready::decode(body).ok().map(Self::Ready),
            5 => Reject::decode(body).ok().map(Self::Reject),
            _ => None,
        }
    }
}

/// Finds frames in a byte stream that may hold stale, lost or foreign bytes.
///
/// A damaged frame hides no later one: what follows it is found as soon as it is whole. The buffer
/// never holds more than one longest frame beyond what was pushed last.
#[derive(Debug, Default)]
pub struct Scanner {
    buffer: Vec<u8>,
    skipped_bytes: u64,
}

impl Scanner {
    /// An empty scanner.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes that came from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame that checks; everything before it is dropped.
    pub fn next_frame(&mut self) -> Option<Frame> {
        let mut from = 0;
        let mut first_incomplete = None;
        while let Some(at) = find_magic(&self.buffer, from) {
            match parse(&self.buffer[at..]) {
                Parsed::Frame(frame, length) => {
                    self.skip(at);
                    self.buffer.drain(..length);
                    return Some(frame);
                }
                Parsed::Incomplete => {
                    first_incomplete.get_or_insert(at);
                }
                Parsed::Invalid => {}
            }
            from = at + 1;
        }
        // What cannot become a frame any more goes; a tail that may be the head of one stays.
        self.skip(first_incomplete.unwrap_or_else(|| magic_prefix_at_end(&self.buffer)));
        None
    }

    /// What came after the last frame. On the side that has just read the peer's last frame of the
    /// exchange, these are the first bytes of HTTP/2.
    pub fn into_rest(self) -> Vec<u8> {
        self.buffer
    }

    /// How many bytes belonged to no frame; for logs.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped_bytes
    }

    fn skip(&mut self, count: usize) {
        self.buffer.drain(..count);
        self.skipped_bytes += count as u64;
    }
}

enum Parsed {
    Frame(Frame, usize),
    Incomplete,
    Invalid,
}

/// Parses what starts with the magic.
fn parse(bytes: &[u8]) -> Parsed {
    let Some(head) = bytes.get(..HEAD_BYTES) else {
        return Parsed::Incomplete;
    };
    let length = u32::from_be_bytes([head[9], head[10], head[11], head[12]]) as usize;
    if length > BODY_BYTES_MAX {
        return Parsed::Invalid;
    }
    let end = HEAD_BYTES + length;
    let Some(crc) = bytes.get(end..end + CRC_BYTES) else {
        return Parsed::Incomplete;
    };
    if crc32fast::hash(&bytes[MAGIC.len()..end]).to_be_bytes() != crc {
        return Parsed::Invalid;
    }
    match Frame::decode(head[8], &bytes[HEAD_BYTES..end]) {
        Some(frame) => Parsed::Frame(frame, end + CRC_BYTES),
        None => Parsed::Invalid,
    }
}

fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let tail = bytes.get(from..)?;
    tail.windows(MAGIC.len())
        .position(|window| window == MAGIC)
        .map(|at| from + at)
}

/// Where a magic may begin that the buffer's end cuts off; the buffer's length if nowhere.
fn magic_prefix_at_end(bytes: &[u8]) -> usize {
    let earliest = bytes.len().saturating_sub(MAGIC.len() - 1);
    (earliest..bytes.len())
        .find(|&at| MAGIC.starts_with(&bytes[at..]))
        .unwrap_or(bytes.len())
}

/// `HelloReply.hmac`: the supervisor holds the token.
pub fn reply_mac(
    token: &[u8; KEY_BYTES],
    nonce: &[u8; KEY_BYTES],
    boot_id: &[u8; BOOT_ID_BYTES],
    sandbox_id: &str,
) -> [u8; KEY_BYTES] {
    mac(
        token,
        &[b"cofferdam-hello-v1", nonce, boot_id, sandbox_id.as_bytes()],
    )
}

/// `Welcome.hmac`: the gateway holds the token, and chose this next one.
pub fn welcome_mac(
    token: &[u8; KEY_BYTES],
    nonce: &[u8; KEY_BYTES],
    next_token: &[u8; KEY_BYTES],
) -> [u8; KEY_BYTES] {
    mac(token, &[b"cofferdam-welcome-v1", nonce, next_token])
}

/// `Ready.hmac`: the supervisor has taken the next token.
pub fn ready_mac(next_token: &[u8; KEY_BYTES], nonce: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
    mac(next_token, &[b"cofferdam-ready-v1", nonce])
}

/// Hides the next token from whoever relays the stream; the same call reveals it again.
pub fn mask(
    token: &[u8; KEY_BYTES],
    nonce: &[u8; KEY_BYTES],
    next_token: &[u8; KEY_BYTES],
) -> [u8; KEY_BYTES] {
    let mut masked = mac(token, &[b"cofferdam-mask-v1", nonce]);
    for (byte, other) in masked.iter_mut().zip(next_token) {
        *byte ^= other;
    }
    masked
}

/// Compares an authenticator that came over the stream, in constant time.
pub fn same_mac(expected: &[u8; KEY_BYTES], given: &[u8]) -> bool {
    subtle::ConstantTimeEq::ct_eq(expected.as_slice(), given).into()
}

/// The highest protocol that both ranges hold.
pub fn common_protocol(ours: RangeInclusive<u32>, theirs: RangeInclusive<u32>) -> Option<u32> {
    let highest = *ours.end().min(theirs.end());
    (highest >= *ours.start() && highest >= *theirs.start()).then_some(highest)
}

fn mac(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    // HMAC fills a key that is shorter than the hash's block with zeros.
    let mut block = [0; 64];
    block[..KEY_BYTES].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests;
