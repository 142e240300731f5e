//! The unit of a segment file: a header of fixed size, then the bytes.
//!
//! ```text
//! magic u8 │ stream u8 │ 0 u16 │ length u32 │ offset u64 │ crc32 of bytes u32 │ crc32 of header u32
//! ```
//! All numbers are little-endian. Behind the last frame there are zeros instead of a header, or the
//! file ends: what lies further back is from an earlier use of the file.

/// Size of a header.
pub(super) const HEADER_BYTES: u64 = 24;

/// No header: what is behind the last frame.
pub(super) const END: [u8; HEADER_BYTES as usize] = [0; HEADER_BYTES as usize];

/// Longest frame; a longer append becomes several.
pub(super) const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// A frame grows by appends of the same stream up to here, so that many small writes of a workload
/// do not cost a header each.
pub(super) const GROW_BYTES_MAX: usize = 64 * 1024;

const MAGIC: u8 = 0xCD;

/// Where a byte was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputStream {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) stream: OutputStream,
    pub(super) length: u32,
    pub(super) offset: u64,
    pub(super) crc: u32,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut out = [0; HEADER_BYTES as usize];
        out[0] = MAGIC;
        out[1] = match self.stream {
            OutputStream::Stdout => 1,
            OutputStream::Stderr => 2,
        };
        out[4..8].copy_from_slice(&self.length.to_le_bytes());
        out[8..16].copy_from_slice(&self.offset.to_le_bytes());
        out[16..20].copy_from_slice(&self.crc.to_le_bytes());
        let check = crc32fast::hash(&out[..20]);
        out[20..].copy_from_slice(&check.to_le_bytes());
        out
    }

    /// `None`: these bytes are no header.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES as usize] = bytes.try_into().ok()?;
        let (fields, check) = bytes.split_at(20);
        if fields[0] != MAGIC || crc32fast::hash(fields).to_le_bytes() != check {
            return None;
        }
        let stream = match fields[1] {
            1 => OutputStream::Stdout,
            2 => OutputStream::Stderr,
            _ => return None,
        };
        Some(Self {
            stream,
            length: u32::from_le_bytes(fields[4..8].try_into().ok()?),
            offset: u64::from_le_bytes(fields[8..16].try_into().ok()?),
            crc: u32::from_le_bytes(fields[16..20].try_into().ok()?),
        })
    }

    /// Offset of the first byte behind this frame.
    pub(super) fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }

    /// Bytes that header and payload take in the file.
    pub(super) fn size(&self) -> u64 {
        HEADER_BYTES + u64::from(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_any_flipped_bit_is_no_header() {
        let header = Header {
            stream: OutputStream::Stderr,
            length: 77,
            offset: 1 << 40,
            crc: 0xdead_beef,
        };
        let good = header.encode();
        assert_eq!(Header::decode(&good), Some(header));
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bad), None, "bit {bit}");
        }
        assert_eq!(Header::decode(&good[..23]), None);
    }
}
