//! Plays the gateway against the real supervisor, over a real socket.

mod archives;
mod files;
mod gateway;
mod hello;
mod lifecycle;
mod load;
mod output;
mod process;
mod pty;
mod sandbox;
mod stdin;
mod trees;
mod tunnels;
