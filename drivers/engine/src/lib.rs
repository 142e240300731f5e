//! Sandboxes as containers of an engine that speaks Docker's API: all that such drivers have in
//! common. A driver adds its engine's [`Flavor`] and a `main`.
//!
//! ```text
//!             driver        the contract: make, boot, life, recover, reach
//!               │
//!      ┌────────┼──────────┬───────────┬──────────┐
//!      ▼        ▼          ▼           ▼          ▼
//!    plan     image     prepare     monitor     relay
//!   (pure)   fetched    volumes     events,     stdin, stdout
//!      │                            stock        to the socket
//!      ▼                               │
//!   labels, naming ◄── what is remembered, on the engine ── sandbox (look, describe: pure)
//!                                      │
//!                     client ─► transport ─► unix · tcp · TLS · ssh
//! ```
//!
//! It keeps nothing on a disk of its own. A sandbox is a container with labels; what changes in its
//! life is in the container's name.

mod capabilities;
mod client;
mod console;
pub mod discover;
pub mod driver;
mod driver_config;
pub mod endpoint;
mod error;
mod facts;
mod fingerprint;
pub mod flavor;
mod health;
mod image;
mod labels;
mod monitor;
mod naming;
mod plan;
mod prepare;
mod prepare_image;
mod relay;
mod sandbox;
pub mod settings;
mod stats;
mod transport;

pub use driver::EngineDriver;
pub use flavor::Flavor;
