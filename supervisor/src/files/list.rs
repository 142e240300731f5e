//! Listing a directory by pages, in the order of names, with memory for one page only.

use std::collections::BTreeSet;

use rustix::fs::{AtFlags, Dir, FileType, OFlags, readlinkat, statat};
use rustix::io::Errno;

use super::error::FileError;
use super::path::{Workspace, open_path, printable};
use super::read::{Facts, facts};

const PAGE_DEFAULT: usize = 1_000;
const PAGE_MAX: usize = 10_000;

/// Some entries, by name.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Facts>,
    pub(crate) more: bool,
}

/// The entries after the name `after`.
pub(crate) fn list(
    workspace: &Workspace,
    path: &str,
    page_size: u32,
    after: &str,
) -> Result<Page, FileError> {
    let size = match page_size as usize {
        0 => PAGE_DEFAULT,
        size => size.min(PAGE_MAX),
    };
    let full = workspace.path(path)?;
    let failed = FileError::system("list", &full);
    let directory = open_path(&full, OFlags::RDONLY | OFlags::DIRECTORY).map_err(&failed)?;
    let mut names = first_names(&directory, after.as_bytes(), size + 1).map_err(&failed)?;
    let more = names.len() > size;
    if more {
        names.pop_last();
    }
    let mut entries = Vec::with_capacity(names.len());
    for name in names {
        match entry(&directory, &name) {
            Ok(facts) => entries.push(facts),
            // Removed since it was seen.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(Page { entries, more })
}

fn first_names(
    directory: &rustix::fd::OwnedFd,
    after: &[u8],
    count: usize,
) -> Result<BTreeSet<Vec<u8>>, Errno> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." || name <= after {
            continue;
        }
        let is_full = names.len() == count;
        if is_full
            && names
                .last()
                .is_some_and(|last: &Vec<u8>| last.as_slice() <= name)
        {
            continue;
        }
        names.insert(name.to_vec());
        if is_full {
            names.pop_last();
        }
    }
    Ok(names)
}

fn entry(directory: &rustix::fd::OwnedFd, name: &[u8]) -> Result<Facts, Errno> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            readlinkat(directory, name, Vec::new()).map(|target| printable(target.as_bytes()))
        }
        _ => Ok(String::new()),
    };
    Ok(facts(printable(name), &stat, target.unwrap_or_default()))
}
