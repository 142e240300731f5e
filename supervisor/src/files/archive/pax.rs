//! Tar headers: ustar, with pax records for what does not fit.

use std::io::{self, Write};

use tar::{EntryType, Header};

const BLOCK_BYTES: usize = 512;
/// Of names and link targets in a ustar header.
const NAME_BYTES_MAX: usize = 100;
/// Eleven octal digits.
const SIZE_MAX: u64 = (1 << 33) - 1;

/// What a header says.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// A directory's ends with a slash.
    pub(super) path: &'a [u8],
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u64,
    pub(super) size_bytes: u64,
    pub(super) link: &'a [u8],
}

/// Writes the header, and before it one with pax records if it needs them.
pub(super) fn write_header(out: &mut impl Write, entry: &Entry<'_>) -> io::Result<()> {
    let mut records = Vec::new();
    if entry.path.len() > NAME_BYTES_MAX || !entry.path.is_ascii() {
        record(&mut records, "path", entry.path);
    }
    if entry.link.len() > NAME_BYTES_MAX || !entry.link.is_ascii() {
        record(&mut records, "linkpath", entry.link);
    }
    if entry.size_bytes > SIZE_MAX {
        record(
            &mut records,
            "size",
            entry.size_bytes.to_string().as_bytes(),
        );
    }
    if !records.is_empty() {
        let mut header = Header::new_ustar();
        set_name(&mut header, b"PaxHeaders/entry");
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_size(records.len() as u64);
        header.set_cksum();
        out.write_all(header.as_bytes())?;
        out.write_all(&records)?;
        write_padding(out, records.len() as u64)?;
    }
    let mut header = Header::new_ustar();
    set_name(&mut header, entry.path);
    header.set_entry_type(entry.kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(entry.mtime);
    header.set_size(entry.size_bytes);
    let link = &mut header.as_old_mut().linkname;
    let length = entry.link.len().min(link.len());
    link[..length].copy_from_slice(&entry.link[..length]);
    header.set_cksum();
    out.write_all(header.as_bytes())
}

/// Fills the last block of contents of this length.
pub(super) fn write_padding(out: &mut impl Write, length: u64) -> io::Result<()> {
    let over = (length % BLOCK_BYTES as u64) as usize;
    if over == 0 {
        Ok(())
    } else {
        out.write_all(&[0; BLOCK_BYTES][over..])
    }
}

/// The end of an archive.
pub(super) fn write_end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK_BYTES])
}

fn set_name(header: &mut Header, name: &[u8]) {
    let field = &mut header.as_old_mut().name;
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name[..length]);
}

/// `<length> <key>=<value>\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for value_bytes in [
            1, 80, 81, 82, 88, 89, 90, 91, 92, 93, 980, 981, 982, 983, 984, 985,
        ] {
            let mut records = Vec::new();
            record(&mut records, "path", &vec![b'x'; value_bytes]);
            let text = String::from_utf8(records).expect("plain");
            let (length, _) = text.split_once(' ').expect("a length");
            assert_eq!(length.parse(), Ok(text.len()), "{value_bytes}");
        }
    }
}
