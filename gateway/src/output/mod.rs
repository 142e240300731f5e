//! What an execution wrote, in append-only files: its head, and a tail that rolls.
//!
//! All streams of an execution together are one sequence of bytes with one offset. A log with a
//! cap of C bytes keeps the first C/2 and the last C − C/2 of them, to the byte; what lies between
//! is counted as dropped, and a reader is told of it as a gap.
//!
//! ```text
//!   0 ──────── head ────────► C/2 ┈┈┈┈ dropped ┈┈┈┈ ◄──── tail ────► end
//!   h-0 h-…                                     t-…  t-…  t-… (segment files)
//! ```
//!
//! A segment that falls out of the tail gives its file to the next one: bytes that nobody will read
//! again cost a copy and no pages. A reader that was in it looks again when it has read.
//!
//! Writes go to the page cache in the calling task, with plain `write` calls: an append that has
//! returned survives the death of the gateway, not that of the machine. Readers open the files
//! themselves and never hold the writer up; they fall into the gap instead.
//!
//! A directory that does not exist is an empty log: nothing is made before the first byte.

mod error;
mod frame;
mod log;
mod reader;
mod segment;
mod shared;
#[cfg(test)]
mod tests;

pub use error::OutputError;
pub use frame::OutputStream;
pub use log::OutputLog;
pub use reader::{OutputReader, Piece};

use std::path::Path;

/// Removes a log and all its files. One that does not exist is fine.
pub fn remove(directory: &Path) -> Result<(), OutputError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(OutputError::io("remove", directory, error))
        }
        _ => Ok(()),
    }
}
