//! A local directory → tar. Blocking.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::Copied;
use super::exact::Exact;

/// Writes a directory's content, sorted, with names relative to it. Links are stored as links;
/// devices, sockets and pipes are counted and left out.
pub(super) fn pack(directory: &Path, output: impl Write) -> Result<Copied, PackError> {
    let mut packer = Packer {
        builder: Builder::new(output),
        copied: Copied {
            entries: Some(0),
            ..Copied::default()
        },
    };
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| PackError { path, error }
    };
    let metadata = fs::metadata(directory).map_err(at(directory))?;
    packer
        .directory(Path::new("./"), &metadata)
        .map_err(at(directory))?;
    // Directories whose content is still to come, the next one last.
    let mut pending = vec![PathBuf::new()];
    while let Some(inside) = pending.pop() {
        for name in sorted(&directory.join(&inside)).map_err(at(&inside))? {
            let relative = inside.join(name);
            let path = directory.join(&relative);
            if packer.entry(&path, &relative).map_err(at(&path))? {
                pending.push(relative);
            }
        }
    }
    let mut output = packer.builder.into_inner().map_err(at(directory))?;
    output.flush().map_err(at(directory))?;
    Ok(packer.copied)
}

#[derive(Debug)]
pub(super) struct PackError {
    pub(super) path: PathBuf,
    pub(super) error: io::Error,
}

struct Packer<W: Write> {
    builder: Builder<W>,
    copied: Copied,
}

impl<W: Write> Packer<W> {
    /// True for a directory, whose content is to follow.
    fn entry(&mut self, path: &Path, relative: &Path) -> io::Result<bool> {
        let metadata = fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.directory(relative, &metadata)?;
            return Ok(true);
        }
        if kind.is_symlink() {
            let mut header = header(&metadata, EntryType::Symlink);
            let target = fs::read_link(path)?;
            self.builder.append_link(&mut header, relative, target)?;
        } else if kind.is_file() {
            self.file(path, relative)?;
        } else {
            self.copied.skipped += 1;
            return Ok(false);
        }
        self.count();
        Ok(false)
    }

    fn directory(&mut self, relative: &Path, metadata: &Metadata) -> io::Result<()> {
        let mut header = header(metadata, EntryType::Directory);
        self.builder
            .append_data(&mut header, relative, io::empty())?;
        self.count();
        Ok(())
    }

    fn file(&mut self, path: &Path, relative: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        // Of the open file: the name may mean another one by now.
        let metadata = file.metadata()?;
        let length = metadata.len();
        let mut header = header(&metadata, EntryType::Regular);
        header.set_size(length);
        self.builder
            .append_data(&mut header, relative, Exact::new(file, length))?;
        self.copied.bytes += length;
        Ok(())
    }

    fn count(&mut self) {
        self.copied.entries = self.copied.entries.map(|entries| entries + 1);
    }
}

fn header(metadata: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_entry_type(kind);
    header.set_size(0);
    header
}

fn sorted(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}
