//! How plan and bootstrap reach the shim: one frame on a socket pair that is its standard input. In
//! the same way its first half hands them on to its second, with what it has opened for it.
//!
//! ```text
//! magic u32 | plan length u32 | bootstrap length u32   (native order; one machine)
//! plan JSON | bootstrap JSON
//! ```
//!
//! Descriptors travel with the header. The first is the supervisor's executable, so that what is
//! executed is what was hashed. The answer is one JSON line.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use zeroize::Zeroizing;

use super::control::BOOTSTRAP_BYTES_MAX;

const MAGIC: u32 = 0xC0FF_DA01;
const HEADER_BYTES: usize = 12;
/// Longest plan.
pub const PLAN_BYTES_MAX: usize = 128 * 1024;
/// Most descriptors.
pub const DESCRIPTORS_MAX: usize = 32;
/// Longest answer line.
pub const REPORT_BYTES_MAX: usize = 64 * 1024;

/// What the shim received.
#[derive(Debug)]
pub struct Received {
    /// The plan, still JSON.
    pub plan: Vec<u8>,
    /// The supervisor's bootstrap JSON.
    pub bootstrap: Zeroizing<Vec<u8>>,
    /// The supervisor's executable, and what else was sent.
    pub descriptors: Vec<OwnedFd>,
}

/// Sends the header with the descriptors. The caller sends plan and bootstrap after it.
pub fn send_header(
    socket: BorrowedFd<'_>,
    plan_len: usize,
    bootstrap_len: usize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if plan_len > PLAN_BYTES_MAX
        || bootstrap_len > BOOTSTRAP_BYTES_MAX
        || descriptors.len() > DESCRIPTORS_MAX
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "plan or bootstrap is too long, or there are too many descriptors",
        ));
    }
    let mut header = [0; HEADER_BYTES];
    for (slot, word) in
        header
            .chunks_exact_mut(4)
            .zip([MAGIC, plan_len as u32, bootstrap_len as u32])
    {
        slot.copy_from_slice(&word.to_ne_bytes());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors)),
        "their number was checked"
    );
    let sent = sendmsg(
        socket,
        &[IoSlice::new(&header)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    if sent == HEADER_BYTES {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Receives the whole frame.
pub fn receive(socket: &mut UnixStream) -> io::Result<Received> {
    let malformed = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut header = [0; HEADER_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(
        &*socket,
        &mut [IoSliceMut::new(&mut header)],
        &mut ancillary,
        flags,
    )?;
    if got.bytes != HEADER_BYTES {
        return Err(malformed("the launch socket closed before a whole header"));
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    if descriptors.is_empty() {
        return Err(malformed("no supervisor descriptor"));
    }
    let word = |at: usize| {
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (plan_len, bootstrap_len) = (word(4) as usize, word(8) as usize);
    if word(0) != MAGIC || plan_len > PLAN_BYTES_MAX || bootstrap_len > BOOTSTRAP_BYTES_MAX {
        return Err(malformed("not a plan of this release's driver"));
    }
    let mut plan = vec![0; plan_len];
    socket.read_exact(&mut plan)?;
    let mut bootstrap = Zeroizing::new(vec![0; bootstrap_len]);
    socket.read_exact(&mut bootstrap)?;
    Ok(Received {
        plan,
        bootstrap,
        descriptors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn a_frame_carries_plan_bootstrap_and_descriptors() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let descriptors = [file.as_fd(); DESCRIPTORS_MAX];
        send_header(near.as_fd(), 4, 3, &descriptors).unwrap();
        near.write_all(b"plantok").unwrap();
        let received = receive(&mut far).unwrap();
        assert_eq!(received.descriptors.len(), DESCRIPTORS_MAX);
        assert_eq!(received.plan, b"plan");
        assert_eq!(*received.bootstrap, b"tok");
    }

    #[test]
    fn a_frame_without_a_descriptor_is_refused() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        near.write_all(&[0; 64]).unwrap();
        assert_eq!(
            receive(&mut far).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
