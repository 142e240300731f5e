//! Plays the gateway against the real supervisor, over a real socket.

mod gateway;
mod hello;
mod process;
mod sandbox;
