//! The gateway's side of the hello: finding the supervisor on a stream, proof in both directions.
//!
//! ```text
//!  Hello every 250 ms ──► HelloReply? ──► under an accepted token? ──► store next ──► Welcome ──► Ready?
//!        ▲   │ noise, old frames                 │ no
//!        └───┘                                   └─► Reject, close
//! ```

use std::sync::Arc;
use std::time::Duration;

use cofferdam_proto::hello::{self, Frame, Scanner};
use cofferdam_proto::supervisor::v1 as wire;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, interval, timeout_at};
use wire::reject::Reason;

use super::TokenStoreError;
use super::tokens::{Offer, TokenBook};
use crate::model::SandboxId;

/// Between repetitions of the Hello: a relay may lose the first ones.
const HELLO_INTERVAL: Duration = Duration::from_millis(250);
/// For the first valid reply. A relayed stream can be there before the supervisor is: a machine may
/// have to boot first.
const REPLY_DEADLINE: Duration = Duration::from_secs(30);
/// For Welcome and Ready.
const READY_DEADLINE: Duration = Duration::from_secs(10);
/// Stale bytes that a relay may hold are some kilobytes; more is no supervisor.
const NOISE_BYTES_MAX: u64 = 1024 * 1024;
const READ_BYTES: usize = 8 * 1024;

/// Who the gateway says it is, and whom it expects.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) sandbox_id: SandboxId,
    pub(super) gateway_id: String,
    pub(super) book: Arc<TokenBook>,
}

/// What a hello has proved.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) offer: Offer,
    pub(super) boot_id: [u8; 16],
    pub(super) supervisor_version: String,
    pub(super) protocol: u32,
    pub(super) processes: u32,
    pub(super) counts_oom_kills: bool,
    /// Bytes of HTTP/2 that were read already.
    pub(super) rest: Vec<u8>,
    /// Bytes that belonged to no frame.
    pub(super) noise_bytes: u64,
}

/// The other side did not prove to be this sandbox's supervisor.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelloError {
    #[error("the stream failed")]
    Stream(#[from] std::io::Error),
    #[error("the stream ended before the {0}")]
    Ended(&'static str),
    #[error("there was no {0} in time")]
    Deadline(&'static str),
    #[error("the stream holds only noise")]
    Noise,
    #[error("rejected: {0:?}: {1}")]
    Rejected(Reason, String),
    #[error("cannot store the next token")]
    Store(#[source] TokenStoreError),
}

/// Runs the exchange. `trusted` is called once the supervisor has proved itself.
pub(super) async fn exchange<S>(
    stream: &mut S,
    host: &Host,
    session: u64,
    trusted: impl FnOnce(),
) -> Result<Proof, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let nonce: [u8; hello::KEY_BYTES] = rand::random();
    let mut reader = FrameReader::default();
    let reply = await_reply(stream, &mut reader, host, &nonce).await?;
    let verified = verify(host, &nonce, &reply);
    let (under, boot_id, protocol) = match verified {
        Ok(verified) => verified,
        Err((reason, message)) => {
            let reject = Frame::Reject(wire::Reject {
                reason: reason as i32,
                message: message.clone(),
            });
            // Best effort: the stream is closed whatever comes of it.
            let _ = send(stream, &reject, Instant::now() + HELLO_INTERVAL).await;
            return Err(HelloError::Rejected(reason, message));
        }
    };
    trusted();
    let offer = host.book.offer(under).await.map_err(HelloError::Store)?;
    let end = Instant::now() + READY_DEADLINE;
    let welcome = Frame::Welcome(wire::Welcome {
        masked_next_token: hello::mask(&offer.under.0, &nonce, &offer.next.0)
            .to_vec()
            .into(),
        hmac: hello::welcome_mac(&offer.under.0, &nonce, &offer.next.0)
            .to_vec()
            .into(),
        protocol,
        session,
    });
    send(stream, &welcome, end).await?;
    loop {
        let frame = timeout_at(end, reader.next(stream, "Ready")).await;
        match frame.map_err(|_| HelloError::Deadline("Ready"))?? {
            Frame::Ready(ready) if is_ready(&ready, &nonce, &offer) => break,
            // A reply to a Hello that was repeated.
            _ => {}
        }
    }
    Ok(Proof {
        offer,
        boot_id,
        supervisor_version: reply.version.chars().take(64).collect(),
        protocol,
        processes: reply.processes,
        counts_oom_kills: reply.counts_oom_kills,
        noise_bytes: reader.scanner.skipped_bytes(),
        rest: reader.scanner.into_rest(),
    })
}

/// Says Hello until somebody answers this very Hello.
async fn await_reply<S>(
    stream: &mut S,
    reader: &mut FrameReader,
    host: &Host,
    nonce: &[u8; hello::KEY_BYTES],
) -> Result<wire::HelloReply, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = Frame::Hello(wire::Hello {
        nonce: nonce.to_vec().into(),
        gateway_id: host.gateway_id.clone(),
        protocol_min: *hello::PROTOCOLS.start(),
        protocol_max: *hello::PROTOCOLS.end(),
    });
    let end = Instant::now() + REPLY_DEADLINE;
    let mut again = interval(HELLO_INTERVAL);
    loop {
        tokio::select! {
            _ = again.tick() => send(stream, &hello, end).await?,
            // Reading is safe to drop: what was read is in the scanner.
            frame = reader.next(stream, "HelloReply") => match frame? {
                Frame::HelloReply(reply) if reply.nonce == nonce.as_slice() => return Ok(reply),
                _ => {}
            },
            () = tokio::time::sleep_until(end) => return Err(HelloError::Deadline("HelloReply")),
        }
    }
}

type Verified = (crate::model::Token, [u8; hello::BOOT_ID_BYTES], u32);

fn verify(
    host: &Host,
    nonce: &[u8; hello::KEY_BYTES],
    reply: &wire::HelloReply,
) -> Result<Verified, (Reason, String)> {
    if reply.sandbox_id != host.sandbox_id.as_str() {
        let message = format!("this is the socket of {}", host.sandbox_id);
        return Err((Reason::WrongSandbox, message));
    }
    let bad_token = || (Reason::BadToken, "no token proves this reply".to_owned());
    let boot_id = reply.boot_id.as_ref().try_into().map_err(|_| bad_token())?;
    let under = host
        .book
        .verify(nonce, &boot_id, &reply.hmac)
        .ok_or_else(bad_token)?;
    let theirs = reply.protocol_min..=reply.protocol_max;
    let protocol = hello::common_protocol(hello::PROTOCOLS, theirs).ok_or_else(|| {
        let message = format!(
            "the supervisor speaks session protocols {} to {}, the gateway {} to {}",
            reply.protocol_min,
            reply.protocol_max,
            hello::PROTOCOLS.start(),
            hello::PROTOCOLS.end()
        );
        (Reason::NoCommonProtocol, message)
    })?;
    Ok((under, boot_id, protocol))
}

fn is_ready(ready: &wire::Ready, nonce: &[u8; hello::KEY_BYTES], offer: &Offer) -> bool {
    let expected = hello::ready_mac(&offer.next.0, nonce);
    ready.nonce == nonce.as_slice() && hello::same_mac(&expected, &ready.hmac)
}

async fn send<S>(stream: &mut S, frame: &Frame, end: Instant) -> Result<(), HelloError>
where
    S: AsyncWrite + Unpin,
{
    // Our frames are far below the bound.
    let bytes = frame.encode().unwrap_or_default();
    let written = timeout_at(end, async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    });
    written
        .await
        .map_err(|_| HelloError::Deadline("room for a frame"))??;
    Ok(())
}

/// Frames out of a stream with noise in it.
#[derive(Default)]
struct FrameReader {
    scanner: Scanner,
}

impl FrameReader {
    async fn next<S>(&mut self, stream: &mut S, wanted: &'static str) -> Result<Frame, HelloError>
    where
        S: AsyncRead + Unpin,
    {
        loop {
            if let Some(frame) = self.scanner.next_frame() {
                return Ok(frame);
            }
            if self.scanner.skipped_bytes() > NOISE_BYTES_MAX {
                return Err(HelloError::Noise);
            }
            let mut buffer = [0; READ_BYTES];
            match stream.read(&mut buffer).await? {
                0 => return Err(HelloError::Ended(wanted)),
                count => self.scanner.push(&buffer[..count]),
            }
        }
    }
}
