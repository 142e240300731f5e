//! Reading the host's `/proc` through a descriptor.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

/// Field 22 of `/proc/PID/stat`, where `proc` is open on a `/proc`.
pub(crate) fn start_time(proc: impl AsFd, pid: i32) -> Result<u64, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let stat = openat(proc, format!("{pid}/stat"), flags, Mode::empty())?;
    let mut text = [0; 1024];
    let length = rustix::io::read(&stat, &mut text)?;
    parse_start_time(&text[..length]).ok_or(Errno::INVAL)
}

/// The command name (field 2) may hold blanks and parentheses, so fields count from the last one.
pub(crate) fn parse_start_time(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|&b| b == b')')? + 2;
    let field = stat.get(after_name..)?.split(|&b| b == b' ').nth(22 - 3)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = b"7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 987654 0 0";
        assert_eq!(parse_start_time(stat), Some(987_654));
        assert_eq!(parse_start_time(b"7 (x"), None);
    }
}
