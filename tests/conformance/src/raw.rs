//! Calls whose bytes are the suite's own: what a gateway of a later revision might send.

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

use crate::answer::Refused;
use crate::driver::Driver;

/// A field that no revision of the contract has.
pub(crate) const UNKNOWN_FIELD: u32 = 19_999;

/// Calls an RPC with these bytes, and decodes the answer.
pub(crate) async fn call<R>(
    driver: &Driver,
    rpc: &'static str,
    path: &'static str,
    bytes: Vec<u8>,
) -> Result<R, Refused>
where
    R: Message + Default + Clone + Send + 'static,
{
    driver
        .custom(
            rpc,
            bytes,
            |channel, request: Request<Vec<u8>>| async move {
                let mut grpc = Grpc::new(channel);
                let ready = grpc.ready().await;
                ready.map_err(|error| Status::unavailable(error.to_string()))?;
                let path = PathAndQuery::from_static(path);
                grpc.unary(request, path, BytesCodec::<R>::default()).await
            },
        )
        .await
}

/// The message with a text field that nobody knows.
pub(crate) fn with_unknown_field(message: &impl Message) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    prost::encoding::string::encode(UNKNOWN_FIELD, &"from the future".to_owned(), &mut bytes);
    prost::encoding::uint64::encode(UNKNOWN_FIELD + 1, &42, &mut bytes);
    bytes
}

/// Sends bytes as they are.
struct BytesCodec<R>(std::marker::PhantomData<R>);

impl<R> Default for BytesCodec<R> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<R: Message + Default + Send + 'static> Codec for BytesCodec<R> {
    type Encode = Vec<u8>;
    type Decode = R;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<R> Encoder for BytesCodec<R> {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl<R: Message + Default> Decoder for BytesCodec<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        R::decode(bytes)
            .map(Some)
            .map_err(|error| Status::internal(format!("the answer is no such message: {error}")))
    }
}
