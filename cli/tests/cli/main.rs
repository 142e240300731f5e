//! Drives the real `cofferdam` binary against a scripted gateway on a real Unix socket.

mod copies;
mod drivers;
mod execution;
mod forwards;
mod objects;
mod reconnect;
mod signals;
mod support;
mod terminal;
mod typing;
