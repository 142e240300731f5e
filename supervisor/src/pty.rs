//! Pseudo-terminals: opening a pair, its size, its end-of-file character, its foreground group.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Winsize, tcgetattr, tcsetattr,
    tcsetwinsize,
};

use crate::process::User;

/// Both ends of a new terminal.
#[derive(Debug)]
pub(crate) struct Pty {
    /// Ours, not blocking.
    pub(crate) master: OwnedFd,
    /// The workload's.
    pub(crate) slave: OwnedFd,
}

/// Opens a terminal that belongs to the user, so that it can be reopened by name.
pub(crate) fn open(size: Winsize, user: User) -> rustix::io::Result<Pty> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let master = openpt(flags | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags | OpenptFlags::CLOEXEC)?;
    fcntl_setfd(&slave, FdFlags::CLOEXEC)?;
    if user.differs {
        // In this order: the mode of what belongs to somebody else could not be set any more.
        fchmod(&slave, Mode::from_raw_mode(0o600))?;
        fchown(&slave, Some(Uid::from_raw(user.uid)), None::<Gid>)?;
    }
    let mut modes = tcgetattr(&slave)?;
    modes.input_modes |= InputModes::IUTF8;
    tcsetattr(&slave, OptionalActions::Now, &modes)?;
    tcsetwinsize(&master, size)?;
    fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
    Ok(Pty { master, slave })
}

/// Rows and columns as the kernel wants them; what does not fit is the largest.
pub(crate) fn size(rows: u32, columns: u32) -> Winsize {
    let cut = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    Winsize {
        ws_row: cut(rows),
        ws_col: cut(columns),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// The bytes that mean "end of file" to the terminal in its present mode.
///
/// In canonical mode the character ends a line without being part of it: after an unfinished line
/// the first one hands over that line, and the second one the end.
pub(crate) fn end_of_file(master: impl AsFd, line_is_open: bool) -> Result<Vec<u8>, Errno> {
    let modes = tcgetattr(&master)?;
    let character = modes.special_codes[SpecialCodeIndex::VEOF];
    let canonical = modes.local_modes.contains(LocalModes::ICANON);
    Ok(vec![
        character;
        if canonical && line_is_open { 2 } else { 1 }
    ])
}
