//! What the server promises for every driver, asked over a real socket.

mod ending;
mod handshake;
mod observing;
mod operations;
mod support;
