//! The hello of one connection, as `supervisor.proto` has it, with every doubt told.

use std::time::Duration;

use cofferdam_gateway::transport::{Channel, ChannelOptions, Prefixed};
use cofferdam_proto::hello::{
    BOOT_ID_BYTES, Frame, KEY_BYTES, PROTOCOLS, Scanner, common_protocol, mask, ready_mac,
    reply_mac, same_mac, welcome_mac,
};
use cofferdam_proto::supervisor::v1::reject::Reason;
use cofferdam_proto::supervisor::v1::{Hello, HelloReply, Reject, Welcome};
use rustix::process::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, interval, timeout_at};

use super::relay::{self, Shape};
use super::{Callback, Session, Token};
use crate::random;

const INTERVAL: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(10);
/// A relay may hold bytes of an earlier boot, but not a book of them.
const NOISE_BYTES_MAX: u64 = 1 << 20;

impl Callback {
    /// From a connection to a session, or why not.
    pub(super) async fn greet(
        &self,
        stream: UnixStream,
        refuses: bool,
        shape: Option<Shape>,
    ) -> Result<(), String> {
        let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let peer = peer.and_then(Pid::from_raw);
        match shape {
            None => self.converse(stream, peer, refuses).await,
            Some(shape) => {
                let cancel = self.0.suite.cancel().child_token();
                let shaped = relay::shaped(stream, shape, self.0.suite.tasks(), cancel);
                self.converse(shaped, peer, refuses).await
            }
        }
    }

    async fn converse<S>(
        &self,
        mut stream: S,
        peer: Option<Pid>,
        refuses: bool,
    ) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let end = Instant::now() + PATIENCE;
        let nonce = random::bytes::<KEY_BYTES>();
        let mut scanner = Scanner::new();
        let reply = await_reply(&mut stream, &mut scanner, &nonce, end).await?;
        if refuses {
            reject(
                &mut stream,
                Reason::SandboxGone,
                "the sandbox was deleted",
                end,
            )
            .await?;
            return Err("it was sent away: the sandbox was deleted".to_owned());
        }
        let (token, boot_id) = match self.verified(&reply, &nonce) {
            Ok(verified) => verified,
            Err((reason, trouble)) => {
                reject(&mut stream, reason, &trouble, end).await?;
                return Err(trouble);
            }
        };
        let next = random::bytes::<KEY_BYTES>();
        let number = {
            let mut inner = self.inner();
            inner.accepted.push(next);
            inner.sessions += 1;
            inner.sessions
        };
        let welcome = Frame::Welcome(Welcome {
            masked_next_token: mask(&token, &nonce, &next).to_vec().into(),
            hmac: welcome_mac(&token, &nonce, &next).to_vec().into(),
            protocol: *PROTOCOLS.end(),
            session: number,
        });
        send(&mut stream, &welcome, end).await?;
        let expected = ready_mac(&next, &nonce);
        loop {
            if let Frame::Ready(ready) = next_frame(&mut stream, &mut scanner, end, "Ready").await?
                && same_mac(&expected, &ready.hmac)
            {
                break;
            }
        }
        let stream = Prefixed::new(scanner.into_rest(), stream);
        let options = ChannelOptions {
            keep_alive: None,
            tasks: self.0.suite.tasks(),
            cancel: self.0.suite.cancel().child_token(),
        };
        let channel = Channel::open(stream, options)
            .await
            .map_err(|error| format!("HTTP/2 did not begin: {error}"))?;
        let session = Session::new(boot_id, reply.version, peer, channel);
        session
            .ping()
            .await
            .map_err(|error| format!("the first Ping failed: {error}"))?;
        self.publish(session, next);
        Ok(())
    }

    /// The token under which the supervisor proves itself, and its boot id.
    fn verified(
        &self,
        reply: &HelloReply,
        nonce: &Token,
    ) -> Result<(Token, [u8; BOOT_ID_BYTES]), (Reason, String)> {
        let own = &self.0.sandbox_id;
        if reply.sandbox_id != *own {
            let whose = &reply.sandbox_id;
            let trouble = format!("the supervisor of {whose:?} called on the socket of {own}");
            return Err((Reason::WrongSandbox, trouble));
        }
        let Ok(boot_id) = <[u8; BOOT_ID_BYTES]>::try_from(reply.boot_id.as_ref()) else {
            return Err((
                Reason::BadToken,
                "boot_id does not have 16 bytes".to_owned(),
            ));
        };
        let theirs = reply.protocol_min..=reply.protocol_max;
        if common_protocol(PROTOCOLS, theirs).is_none() {
            let trouble = format!(
                "the supervisor speaks session protocols {} to {}, the suite {} to {}",
                reply.protocol_min,
                reply.protocol_max,
                PROTOCOLS.start(),
                PROTOCOLS.end()
            );
            return Err((Reason::NoCommonProtocol, trouble));
        }
        let inner = self.inner();
        let proves =
            |token: &&Token| same_mac(&reply_mac(token, nonce, &boot_id, own), &reply.hmac);
        match inner.accepted.iter().find(proves) {
            Some(token) => Ok((*token, boot_id)),
            None => Err((
                Reason::BadToken,
                "the supervisor holds another token than `bootstrap_token`".to_owned(),
            )),
        }
    }

    /// The newest proven session is the sandbox's.
    fn publish(&self, session: Session, token: Token) {
        {
            let mut inner = self.inner();
            inner.accepted.clear();
            inner.accepted.push(token);
            if inner.refuses {
                session.cut();
            }
        }
        self.0.state.send_modify(|state| {
            if let Some(old) = state.session.replace(session) {
                old.cut();
            }
            state.trouble = None;
        });
    }
}

async fn await_reply<S>(
    stream: &mut S,
    scanner: &mut Scanner,
    nonce: &Token,
    end: Instant,
) -> Result<HelloReply, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = Frame::Hello(Hello {
        nonce: nonce.to_vec().into(),
        gateway_id: "conformance".to_owned(),
        protocol_min: *PROTOCOLS.start(),
        protocol_max: *PROTOCOLS.end(),
    });
    let mut again = interval(INTERVAL);
    loop {
        tokio::select! {
            _ = again.tick() => send(stream, &hello, end).await?,
            // Safe to drop: what was read is in the scanner.
            frame = next_frame(stream, scanner, end, "HelloReply") => match frame? {
                Frame::HelloReply(reply) if reply.nonce == nonce.as_slice() => return Ok(reply),
                _ => {}
            },
        }
    }
}

async fn reject<S>(
    stream: &mut S,
    reason: Reason,
    message: &str,
    end: Instant,
) -> Result<(), String>
where
    S: AsyncWrite + Unpin,
{
    let reject = Frame::Reject(Reject {
        reason: reason.into(),
        message: message.to_owned(),
    });
    send(stream, &reject, end).await
}

async fn send<S>(stream: &mut S, frame: &Frame, end: Instant) -> Result<(), String>
where
    S: AsyncWrite + Unpin,
{
    let bytes = frame.encode().ok_or("a frame of the suite's is too long")?;
    let written = timeout_at(end, async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    });
    match written.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the stream ended in the hello: {error}")),
        Err(_) => Err("the stream takes no bytes".to_owned()),
    }
}

async fn next_frame<S>(
    stream: &mut S,
    scanner: &mut Scanner,
    end: Instant,
    wanted: &str,
) -> Result<Frame, String>
where
    S: AsyncRead + Unpin,
{
    loop {
        if let Some(frame) = scanner.next_frame() {
            return Ok(frame);
        }
        if scanner.skipped_bytes() > NOISE_BYTES_MAX {
            return Err(format!("only bytes that belong to no {wanted} come"));
        }
        let mut buffer = [0; 4096];
        match timeout_at(end, stream.read(&mut buffer)).await {
            Ok(Ok(0)) => return Err(format!("the stream ended before the {wanted}")),
            Ok(Ok(count)) => scanner.push(&buffer[..count]),
            Ok(Err(error)) => return Err(format!("the stream ended before the {wanted}: {error}")),
            Err(_) => return Err(format!("no {wanted} within {} s", PATIENCE.as_secs())),
        }
    }
}
