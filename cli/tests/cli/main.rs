//! Drives the real `cofferdam` binary against a scripted gateway on a real Unix socket.

mod execution;
mod reconnect;
mod signals;
mod support;
mod terminal;
