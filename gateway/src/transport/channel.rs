//! One HTTP/2 connection as a service for generated clients.
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// One connection; it never reconnects. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Channel {}

/// The connection failed or has ended.
#[derive(Debug, thiserror::Error)]
#[error("the connection failed")]
pub struct ChannelError;

impl tower::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = ChannelError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ChannelError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        todo!()
    }

    fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
        todo!()
    }
}
