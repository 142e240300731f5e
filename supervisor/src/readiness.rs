//! Descriptors that the runtime watches.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What keeps its descriptor open, and the same one, for as long as it lives.
pub(crate) trait Owned: AsRawFd {}

impl Owned for OwnedFd {}
impl Owned for Arc<OwnedFd> {}

/// Watches a descriptor, which must not block.
pub(crate) fn watch<T: Owned>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    #[allow(
        unsafe_code,
        reason = "tokio cannot know that a type keeps its descriptor"
    )]
    // SAFETY: `Owned` promises that the descriptor stays open and the same.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    watched.map_err(|error| error.into_parts().1)
}
