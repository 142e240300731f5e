//! A scripted supervisor: says what it is told to, with or without the right tokens.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use cofferdam_proto::hello::{self, Frame, Scanner};
use cofferdam_proto::supervisor::v1 as wire;
use http_body_util::StreamBody;
use hyper::body::{Frame as BodyFrame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::model::Token;
use crate::transport::Prefixed;

pub(super) struct Scripted {
    stream: UnixStream,
    scanner: Scanner,
    nonce: Vec<u8>,
    pub(super) boot_id: [u8; 16],
}

impl Scripted {
    pub(super) async fn connect(directory: &Path) -> Self {
        Self {
            stream: UnixStream::connect(directory.join("gateway.sock"))
                .await
                .unwrap(),
            scanner: Scanner::new(),
            nonce: Vec::new(),
            boot_id: [7; 16],
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// `None`: the gateway closed the stream.
    pub(super) async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.scanner.next_frame() {
                return Some(frame);
            }
            let mut buffer = [0; 1024];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.scanner.push(&buffer[..count]),
            }
        }
    }

    /// Waits for the gateway's Hello.
    pub(super) async fn hear_hello(&mut self) -> wire::Hello {
        loop {
            if let Frame::Hello(hello) = self.frame().await.expect("a stream") {
                self.nonce = hello.nonce.to_vec();
                return hello;
            }
        }
    }

    /// As `hear_hello`; `None` when the gateway has no place.
    pub(super) async fn hear_hello_or_end(&mut self) -> Option<()> {
        let Frame::Hello(hello) = self.frame().await? else {
            return None;
        };
        self.nonce = hello.nonce.to_vec();
        Some(())
    }

    pub(super) fn nonce(&self) -> [u8; 32] {
        self.nonce.as_slice().try_into().unwrap()
    }

    pub(super) fn reply(&self, sandbox: &str, token: &Token) -> wire::HelloReply {
        let hmac = hello::reply_mac(&token.0, &self.nonce(), &self.boot_id, sandbox);
        wire::HelloReply {
            nonce: self.nonce.clone().into(),
            sandbox_id: sandbox.to_owned(),
            protocol_min: 1,
            protocol_max: 1,
            boot_id: self.boot_id.to_vec().into(),
            version: "1.2.3".to_owned(),
            hmac: hmac.to_vec().into(),
            processes: 2,
            counts_oom_kills: false,
        }
    }

    pub(super) async fn send_reply(&mut self, reply: wire::HelloReply) {
        let bytes = Frame::HelloReply(reply).encode().unwrap();
        self.send(&bytes).await;
    }

    /// Answers the Hello and takes the next token out of the Welcome.
    pub(super) async fn prove(&mut self, sandbox: &str, token: &Token) -> Token {
        self.hear_hello().await;
        self.send_reply(self.reply(sandbox, token)).await;
        self.hear_welcome(token).await
    }

    pub(super) async fn hear_welcome(&mut self, token: &Token) -> Token {
        loop {
            match self.frame().await.expect("a stream") {
                Frame::Welcome(welcome) => {
                    let masked = welcome.masked_next_token.as_ref().try_into().unwrap();
                    let next = hello::mask(&token.0, &self.nonce(), &masked);
                    let expected = hello::welcome_mac(&token.0, &self.nonce(), &next);
                    assert!(hello::same_mac(&expected, &welcome.hmac));
                    return Token(next);
                }
                Frame::Hello(_) => {}
                other => panic!("instead of a Welcome: {other:?}"),
            }
        }
    }

    pub(super) async fn send_ready(&mut self, next: &Token) {
        let ready = Frame::Ready(wire::Ready {
            nonce: self.nonce.clone().into(),
            hmac: hello::ready_mac(&next.0, &self.nonce()).to_vec().into(),
        });
        self.send(&ready.encode().unwrap()).await;
    }

    /// Proves itself and serves, in the background, until the task is aborted or the stream ends.
    pub(super) async fn serve(
        mut self,
        sandbox: &str,
        token: &Token,
    ) -> (Token, tokio::task::JoinHandle<()>) {
        let next = self.prove(sandbox, token).await;
        self.send_ready(&next).await;
        (next, tokio::spawn(self.answer_pings()))
    }

    pub(super) async fn answer_pings(self) {
        self.answer(usize::MAX, std::future::pending()).await;
    }

    /// Answers so many calls, then none; does nothing at all from `freeze` on.
    pub(super) async fn answer(self, calls: usize, freeze: impl Future<Output = ()>) {
        let count = Arc::new(AtomicUsize::new(0));
        let is_early = move |_: &str| count.fetch_add(1, Ordering::Relaxed) < calls;
        self.answer_if(is_early, freeze).await;
    }

    /// Answers the calls of these methods, and lets the others wait.
    pub(super) async fn answer_if(
        self,
        answers: impl Fn(&str) -> bool + Send + 'static,
        freeze: impl Future<Output = ()>,
    ) {
        let stream = Prefixed::new(self.scanner.into_rest(), self.stream);
        let service = service_fn(move |request: http::Request<Incoming>| {
            let answered = answers(request.uri().path());
            async move {
                if !answered {
                    std::future::pending::<()>().await;
                }
                pong(request).await
            }
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let mut connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            _ = &mut connection => return,
            () = freeze => {}
        }
        // The stream stays open.
        std::future::pending::<()>().await;
    }
}

/// Any unary call is answered with a `PingResponse`.
async fn pong(
    _: http::Request<Incoming>,
) -> Result<
    http::Response<
        StreamBody<
            futures_util::stream::Iter<std::vec::IntoIter<Result<BodyFrame<Bytes>, Infallible>>>,
        >,
    >,
    Infallible,
> {
    let message = wire::PingResponse {
        uptime_ms: 1,
        ..Default::default()
    };
    let message = message.encode_to_vec();
    let mut data = vec![0];
    data.extend_from_slice(&(message.len() as u32).to_be_bytes());
    data.extend_from_slice(&message);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let frames = vec![
        Ok(BodyFrame::data(Bytes::from(data))),
        Ok(BodyFrame::trailers(trailers)),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let response = http::Response::builder().header("content-type", "application/grpc");
    Ok(response.body(body).unwrap())
}
