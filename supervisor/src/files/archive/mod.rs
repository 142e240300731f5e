//! Tar archives (POSIX pax), streamed: a tree out of the sandbox, or a tree into it.

mod draft;
mod pack;
mod pax;
mod unpack;

pub(crate) use self::pack::pack;
pub(crate) use self::unpack::unpack;
