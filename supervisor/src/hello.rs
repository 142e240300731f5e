//! The supervisor's side of the exchange that comes before HTTP/2.
//!
//! ```text
//!            Hello (any nonce)              Welcome that checks
//!  Waiting ───────────────────► Answered ──────────────────────► Ready sent: HTTP/2
//!                  ▲  └─Hello: answer again─┘  └─anything else is passed over
//! ```
//!
//! What does not check is passed over, not an error: a relayed stream may hold frames of an earlier
//! session.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_proto::hello::{
    BOOT_ID_BYTES, Frame, KEY_BYTES, PROTOCOLS, Scanner, mask, ready_mac, reply_mac, same_mac,
    welcome_mac,
};
use cofferdam_proto::supervisor::v1::{Hello, HelloReply, Ready, Reject, Welcome};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::token::{Token, Tokens};

/// The gateway repeats itself every 250 ms, and may have done so before we came to read.
const ANSWER_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Who we say we are.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) sandbox_id: String,
    pub(crate) boot_id: [u8; BOOT_ID_BYTES],
    pub(crate) counts_oom_kills: bool,
}

/// What the two sides agreed on.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) protocol: u32,
    pub(crate) session: u64,
    /// Bytes that came behind the Welcome.
    pub(crate) rest: Bytes,
}

/// Why there is no session.
#[derive(Debug, Error)]
pub(crate) enum HelloError {
    #[error("the stream failed during the hello")]
    Io(#[from] io::Error),
    #[error("the gateway closed the stream during the hello")]
    Closed,
    #[error("the gateway rejected this supervisor ({:?}): {}", .0.reason(), .0.message)]
    Rejected(Reject),
}

struct Answered {
    nonce: [u8; KEY_BYTES],
    at: Instant,
}

/// Runs the exchange on a fresh stream, or on one that may hold anything.
pub(crate) async fn exchange<S>(
    stream: &mut S,
    identity: &Identity,
    tokens: &Mutex<Tokens>,
    processes: u32,
) -> Result<Agreed, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut scanner = Scanner::new();
    let mut answered: Option<Answered> = None;
    let mut buffer = [0; 4096];
    loop {
        while let Some(frame) = scanner.next_frame() {
            match frame {
                Frame::Hello(hello) => {
                    if let Some(nonce) = to_answer(&hello, answered.as_ref()) {
                        let reply = reply(&nonce, identity, &lock(tokens), processes);
                        send(stream, reply).await?;
                        answered = Some(Answered {
                            nonce,
                            at: Instant::now(),
                        });
                    }
                }
                Frame::Welcome(welcome) => {
                    let Some(answered) = &answered else { continue };
                    let Some(ready) = accept(&welcome, &answered.nonce, &mut lock(tokens)) else {
                        continue;
                    };
                    send(stream, ready).await?;
                    let (protocol, session) = (welcome.protocol, welcome.session);
                    return Ok(Agreed {
                        protocol,
                        session,
                        rest: scanner.into_rest().into(),
                    });
                }
                Frame::Reject(reject) if answered.is_some() => {
                    return Err(HelloError::Rejected(reject));
                }
                Frame::Reject(_) | Frame::HelloReply(_) | Frame::Ready(_) => {}
            }
        }
        match stream.read(&mut buffer).await? {
            0 => return Err(HelloError::Closed),
            count => scanner.push(&buffer[..count]),
        }
    }
}

/// The nonce, if this Hello wants an answer: a new one always, a repeated one when the answer may
/// have been lost.
fn to_answer(hello: &Hello, answered: Option<&Answered>) -> Option<[u8; KEY_BYTES]> {
    let nonce: [u8; KEY_BYTES] = hello.nonce.as_ref().try_into().ok()?;
    let again = answered.is_some_and(|answered| {
        answered.nonce == nonce && answered.at.elapsed() < ANSWER_AGAIN_AFTER
    });
    (!again).then_some(nonce)
}

fn reply(nonce: &[u8; KEY_BYTES], identity: &Identity, tokens: &Tokens, processes: u32) -> Frame {
    let token = tokens.offered().bytes();
    let hmac = reply_mac(token, nonce, &identity.boot_id, &identity.sandbox_id);
    Frame::HelloReply(HelloReply {
        nonce: Bytes::copy_from_slice(nonce),
        sandbox_id: identity.sandbox_id.clone(),
        protocol_min: *PROTOCOLS.start(),
        protocol_max: *PROTOCOLS.end(),
        boot_id: Bytes::copy_from_slice(&identity.boot_id),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hmac: Bytes::copy_from_slice(&hmac),
        processes,
        counts_oom_kills: identity.counts_oom_kills,
    })
}

/// Takes the next token, if the Welcome checks. Before Ready is sent, since a gateway that got that
/// must find us with the next token, whatever happens in between.
fn accept(welcome: &Welcome, nonce: &[u8; KEY_BYTES], tokens: &mut Tokens) -> Option<Frame> {
    let next = verified(welcome, nonce, tokens)?;
    let ready = ready(&next, nonce);
    tokens.rotate(next);
    Some(ready)
}

/// The next token, if the gateway proves that it holds the one we offered.
fn verified(welcome: &Welcome, nonce: &[u8; KEY_BYTES], tokens: &Tokens) -> Option<Token> {
    let token = tokens.offered().bytes();
    let masked = Zeroizing::new(<[u8; KEY_BYTES]>::try_from(&welcome.masked_next_token[..]).ok()?);
    let next = Token::take(&mut mask(token, nonce, &masked));
    let proven = same_mac(&welcome_mac(token, nonce, next.bytes()), &welcome.hmac);
    (proven && PROTOCOLS.contains(&welcome.protocol)).then_some(next)
}

fn ready(next: &Token, nonce: &[u8; KEY_BYTES]) -> Frame {
    Frame::Ready(Ready {
        nonce: Bytes::copy_from_slice(nonce),
        hmac: Bytes::copy_from_slice(&ready_mac(next.bytes(), nonce)),
    })
}

fn lock(tokens: &Mutex<Tokens>) -> MutexGuard<'_, Tokens> {
    tokens.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, frame: Frame) -> io::Result<()> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "the frame is too long");
    stream
        .write_all(&frame.encode().ok_or_else(too_long)?)
        .await?;
    stream.flush().await
}
