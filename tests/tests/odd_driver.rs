//! Something behind a driver's socket that speaks gRPC and agrees with nobody.

use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::path::Path;
use std::task::{Context, Poll};

use bytes::{BufMut as _, BytesMut};
use cofferdam_proto::compute::v1::{HandshakeResponse, VersionRange};
use prost::Message as _;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;

/// Answers every call with a handshake of these revisions, until it is dropped.
pub(crate) fn serve(path: &Path, revisions: RangeInclusive<u32>) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let answer = HandshakeResponse {
        contract: Some(VersionRange {
            min: *revisions.start(),
            max: *revisions.end(),
        }),
        chosen: *revisions.end(),
        name: "odd".to_owned(),
        version: "9.0.0".to_owned(),
        incarnation: "odd-incarnation".to_owned(),
        ..HandshakeResponse::default()
    };
    let listener = {
        let _entered = runtime.enter();
        UnixListener::bind(path).expect("bind")
    };
    let server = tonic::transport::Server::builder()
        .add_service(Odd(answer))
        .serve_with_incoming(UnixListenerStream::new(listener));
    runtime.spawn(server);
    runtime
}

#[derive(Debug, Clone)]
struct Odd(HandshakeResponse);

impl tonic::server::NamedService for Odd {
    const NAME: &'static str = "cofferdam.compute.v1.ComputeDriver";
}

type Answer = http::Response<tonic::body::Body>;

impl tower::Service<http::Request<tonic::body::Body>> for Odd {
    type Response = Answer;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
        std::future::ready(Ok(response(&self.0)))
    }
}

/// One message, as gRPC frames it; the status comes after it.
fn response(message: &HandshakeResponse) -> Answer {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).expect("a small message"));
    message.encode(&mut frame).expect("room");
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let frames = [
        Ok::<_, Infallible>(http_body::Frame::data(frame.freeze())),
        Ok(http_body::Frame::trailers(trailers)),
    ];
    let body = http_body_util::StreamBody::new(tokio_stream::iter(frames));
    http::Response::builder()
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(body))
        .expect("a response")
}
