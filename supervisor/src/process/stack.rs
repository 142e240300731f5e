//! Memory for the stacks of a shim and, until it execs, of its child.
#![allow(unsafe_code, reason = "maps memory")]

use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// Below everything: an overflow faults instead of writing to somebody else's memory.
const GUARD_BYTES: usize = 4096;
const CHILD_BYTES: usize = 64 * 1024;
const SHIM_BYTES: usize = 32 * 1024;
const ALL_BYTES: usize = GUARD_BYTES + CHILD_BYTES + SHIM_BYTES;

/// Two stacks that grow down, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Stacks {
    base: NonNull<u8>,
}

// SAFETY: this is memory without an owner thread; access to it is by those who run on it.
unsafe impl Send for Stacks {}

impl Stacks {
    pub(super) fn new() -> rustix::io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK;
        // SAFETY: a new mapping where the kernel likes; its lowest page is then made inaccessible.
        let base = unsafe {
            let base = mmap_anonymous(ptr::null_mut(), ALL_BYTES, protection, flags)?;
            mprotect(base, GUARD_BYTES, MprotectFlags::empty())?;
            base
        };
        let base = NonNull::new(base.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { base })
    }

    pub(super) fn child_top(&self) -> *mut u8 {
        // SAFETY: within the mapping.
        unsafe { self.base.as_ptr().add(GUARD_BYTES + CHILD_BYTES) }
    }

    pub(super) fn shim_top(&self) -> *mut u8 {
        // SAFETY: one past the mapping's last byte.
        unsafe { self.base.as_ptr().add(ALL_BYTES) }
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        // SAFETY: our own mapping; whoever ran on it has ended or left, as the owner has seen to.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), ALL_BYTES) };
        debug_assert!(unmapped.is_ok());
    }
}
