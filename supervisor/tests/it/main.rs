//! Plays the gateway against the real supervisor, over a real socket.

mod gateway;
mod hello;
mod lifecycle;
mod output;
mod process;
mod pty;
mod sandbox;
mod stdin;
mod trees;
