//! Files, as the workload's user sees them.
//!
//! Everything here blocks, and runs on threads whose file-system ids are the workload's, so that the
//! kernel itself checks the rights. What those threads share with the supervisor is what the
//! workload must not have: its memory and descriptors, by way of `/proc/self`. Paths therefore never
//! lead through magic links, and no process's own files are read.

mod archive;
mod beneath;
mod error;
mod list;
mod path;
mod read;
mod remove;
mod write;

pub(crate) use self::archive::{pack, unpack};
pub(crate) use self::error::FileError;
pub(crate) use self::list::list;
pub(crate) use self::path::{Workspace, connectable};
pub(crate) use self::read::{Facts, FileKind, Reader, stat};
pub(crate) use self::remove::remove;
pub(crate) use self::write::{Writer, make_directory};
