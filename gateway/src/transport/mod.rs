//! HTTP/2 over one byte stream that somebody else made, and Unix sockets under paths of any length.
//!
//! It knows neither drivers nor supervisors. A [`Channel`] is exactly one connection: it never
//! reconnects behind its user's back, because on both kinds of stream something has to be said
//! first (a handshake, a hello) before calls make sense.

mod channel;
mod prefixed;
mod tap;
mod unix;

pub use channel::{Channel, ChannelOptions, KeepAlive};
pub use prefixed::Prefixed;
pub use tap::PeerKind;
pub use unix::{bind, bind_unnamed, connect};
