//! Landlock, as a second wall where the kernel has it.
//!
//! It says again what the mounts already say, by another mechanism: nothing is written outside
//! the writable directories, whatever becomes of the mount table; and, where the ABI can, no
//! abstract socket and no signal reaches out of the sandbox (the first matters when the sandbox
//! shares the host's network namespace). A process in a domain can also no longer change mounts.

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use std::os::fd::AsFd;

use super::sys::{self, LandlockRuleset};

const WRITE_FILE: u64 = 1 << 1;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_BLOCK: u64 = 1 << 11;
const MAKE_SYM: u64 = 1 << 12;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;

const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
const SCOPE_SIGNAL: u64 = 2;

/// Without `REFER` (ABI 2) every rename across directories would fail.
const ABI_MIN: u32 = 2;

/// Where a sandbox may write.
pub(crate) const WRITABLE: [&str; 5] = ["/workspace", "/tmp", "/run", "/dev", "/proc"];

/// Enters the domain and returns its ABI; 0 when this kernel offers nothing usable.
pub(crate) fn enter() -> Result<u32, Errno> {
    let abi = usable_abi();
    if abi == 0 {
        return Ok(0);
    }
    let (attr, size) = ruleset(abi);
    let ruleset = sys::landlock_create(&attr, size)?;
    for path in WRITABLE {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, path, flags, Mode::empty())?;
        sys::landlock_add_path(ruleset.as_fd(), dir.as_fd(), attr.handled_access_fs)?;
    }
    sys::landlock_restrict(ruleset.as_fd())?;
    Ok(abi)
}

/// The kernel's ABI, or 0 when it is absent, disabled, or too old to be used.
pub(crate) fn usable_abi() -> u32 {
    sys::landlock_abi()
        .ok()
        .filter(|&abi| abi >= ABI_MIN)
        .unwrap_or(0)
}

fn ruleset(abi: u32) -> (LandlockRuleset, usize) {
    let mut attr = LandlockRuleset {
        handled_access_fs: WRITE_FILE
            | REMOVE_DIR
            | REMOVE_FILE
            | MAKE_CHAR
            | MAKE_DIR
            | MAKE_REG
            | MAKE_SOCK
            | MAKE_FIFO
            | MAKE_BLOCK
            | MAKE_SYM
            | REFER,
        ..LandlockRuleset::default()
    };
    if abi >= 3 {
        attr.handled_access_fs |= TRUNCATE;
    }
    if abi >= 6 {
        attr.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
        return (attr, size_of::<LandlockRuleset>());
    }
    (attr, size_of::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_abi_is_asked_only_for_what_it_knows() {
        assert_eq!(ruleset(2).0.handled_access_fs & TRUNCATE, 0);
        assert_eq!(ruleset(2).1, 8);
        assert_ne!(ruleset(3).0.handled_access_fs & TRUNCATE, 0);
        assert_eq!(ruleset(5).0.scoped, 0);
        assert_eq!(ruleset(6).1, 24);
    }
}
