//! Images: what a spec names, made to be on the engine, and what of it matters to a sandbox.
//!
//! ```text
//!   reference ─► on the engine? ─ policy ─► pull ──╮
//!   archive ───► loaded already? ─────────► load ──┴─► examine ─► ImageFacts (by id and digest)
//! ```

mod error;
mod facts;
mod fetch;
mod progress;
mod reference;

pub(crate) use error::{ImageError, Problem};
pub(crate) use facts::ImageFacts;
pub(crate) use fetch::Images;
pub(crate) use progress::Progress;
pub(crate) use reference::Reference;
