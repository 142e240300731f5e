//! HTTP/2 over one byte stream that somebody else made, and Unix sockets under long paths.
//!
//! It knows neither drivers nor supervisors.

mod channel;

pub use channel::{Channel, ChannelError};
