//! Answers that no gRPC library would give, made by hand.

use std::convert::Infallible;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::http::{HeaderMap, HeaderValue, Response, StatusCode};
use tonic::body::Body;

/// Before each message: whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// Five bytes that no message begins with: field number 0.
const NONSENSE: [u8; 5] = [0x07, 0xff, 0xff, 0xff, 0xff];

/// A field that nobody knows, with a length in four bytes after it.
const UNKNOWN_FIELD: [u8; 2] = [0x82, 0x7d];

/// A message without any field.
pub(super) fn empty() -> Response<Body> {
    message(&[])
}

/// A message that cannot be decoded.
pub(super) fn garbage() -> Response<Body> {
    message(&NONSENSE)
}

/// A message of about so many bytes, all of them in a field that is to be ignored.
pub(super) fn huge(bytes: usize) -> Response<Body> {
    let length = u32::try_from(bytes).unwrap_or(u32::MAX) & 0x0fff_ffff;
    let mut encoded = Vec::with_capacity(bytes + 8);
    encoded.extend(UNKNOWN_FIELD);
    encoded.extend([0, 7, 14, 21].map(|shift| {
        let last = if shift == 21 { 0 } else { 0x80 };
        u8::try_from((length >> shift) & 0x7f).unwrap_or(0) | last
    }));
    encoded.resize(encoded.len() + length as usize, 0);
    message(&encoded)
}

/// Something that is not gRPC.
pub(super) fn http(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::new("<html>not a driver</html>".to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let html = HeaderValue::from_static("text/html");
    response.headers_mut().insert("content-type", html);
    response
}

/// One message and the status OK.
fn message(encoded: &[u8]) -> Response<Body> {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + encoded.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
    framed.put_slice(encoded);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames: [Result<Frame<Bytes>, Infallible>; 2] = [
        Ok(Frame::data(framed.freeze())),
        Ok(Frame::trailers(trailers)),
    ];
    let mut response = Response::new(Body::new(StreamBody::new(stream::iter(frames))));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use prost::Message as _;

    use super::*;
    use crate::proto::Sandbox;

    async fn first_message(response: Response<Body>) -> Bytes {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        body.slice(PREFIX_BYTES..)
    }

    #[tokio::test]
    async fn what_is_huge_is_ignored_and_what_is_garbage_is_not_read() {
        let huge = first_message(huge(5_000_000)).await;
        assert!(huge.len() > 5_000_000);
        assert_eq!(Sandbox::decode(huge).unwrap(), Sandbox::default());
        assert!(Sandbox::decode(first_message(garbage()).await).is_err());
        let empty = first_message(empty()).await;
        assert_eq!(Sandbox::decode(empty).unwrap(), Sandbox::default());
    }
}
