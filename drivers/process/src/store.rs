//! What this driver remembers of each sandbox: one small file, written before the sandbox is made
//! and removed after it is gone. With it, a driver that was killed at any moment finds everything.
//!
//! ```text
//! <state dir>/            0700
//!   records/<id>.json       this
//!   sandboxes/<id>/         what the launcher and the shim keep, see crate::sandbox::layout
//! ```
//!
//! Nothing is synced: no sandbox outlives the kernel that would lose the record.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;

const SUFFIX: &str = ".json";

/// A sandbox as it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) version: u32,
    pub(crate) sandbox_id: String,
    pub(crate) gateway_id: String,
    /// Of the spec, in hexadecimal digits.
    pub(crate) spec_digest: String,
    pub(crate) create_time_unix_ms: u64,
    /// What of the spec does not hold, each a sentence.
    pub(crate) weaknesses: Vec<String>,
    /// Inner user and group of the workload, and when it must be dead, for later boots.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) expire_time_unix_ms: u64,
    /// Device and inode of the callback directory, of which the supervisor holds a descriptor.
    pub(crate) callback: Option<(u64, u64)>,
}

impl Stored {
    pub(crate) const VERSION: u32 = VERSION;
}

/// What tells a callback directory from one that was made anew in its place.
pub(crate) fn callback_identity(directory: &Path) -> Option<(u64, u64)> {
    let meta = fs::metadata(directory).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// The records of one state directory.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// What was found in it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) records: Vec<Stored>,
    /// Files that are there and cannot be read: damaged, or of a newer driver.
    pub(crate) unreadable: Vec<PathBuf>,
}

impl Store {
    /// Makes the directory when it is missing.
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        let dir = state_dir.join("records");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)?;
        Ok(Self { dir })
    }

    /// Where the records are, for messages.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a record, whole or not at all.
    pub(crate) fn put(&self, record: &Stored) -> io::Result<()> {
        let temporary = self.dir.join(format!(".{}.new", record.sandbox_id));
        fs::write(&temporary, serde_json::to_vec(record)?)?;
        fs::rename(temporary, self.path(&record.sandbox_id))
    }

    /// One record; `None` when there is none.
    pub(crate) fn get(&self, sandbox_id: &str) -> io::Result<Option<Stored>> {
        match fs::read(self.path(sandbox_id)) {
            Ok(text) => parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a record; one that is not there is removed.
    pub(crate) fn remove(&self, sandbox_id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(sandbox_id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// All records.
    pub(crate) fn list(&self) -> io::Result<Found> {
        let mut found = Found::default();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else {
                continue;
            };
            match self.get(id) {
                Ok(record) => found.records.extend(record),
                Err(_) => found.unreadable.push(self.path(id)),
            }
        }
        Ok(found)
    }

    fn path(&self, sandbox_id: &str) -> PathBuf {
        self.dir.join(format!("{sandbox_id}{SUFFIX}"))
    }
}

fn parse(text: &[u8]) -> io::Result<Stored> {
    let record: Stored = serde_json::from_slice(text)?;
    if record.version == VERSION {
        Ok(record)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "the record has version {}, and this driver reads {VERSION}",
                record.version
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Stored {
        Stored {
            version: VERSION,
            sandbox_id: id.to_owned(),
            gateway_id: "gw".to_owned(),
            spec_digest: "ab".to_owned(),
            create_time_unix_ms: 1,
            weaknesses: Vec::new(),
            uid: 1000,
            gid: 1000,
            expire_time_unix_ms: 2,
            callback: Some((1, 2)),
        }
    }

    #[test]
    fn records_come_back_and_damage_is_told_from_absence() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.put(&record("sbx-1")).unwrap();
        assert_eq!(store.get("sbx-1").unwrap(), Some(record("sbx-1")));
        assert_eq!(store.get("sbx-2").unwrap(), None);
        fs::write(store.path("sbx-3"), "").unwrap();
        fs::write(store.dir.join(".sbx-4.new"), "torn").unwrap();
        let newer = Stored {
            version: 2,
            ..record("sbx-5")
        };
        store.put(&newer).unwrap();
        let mut found = store.list().unwrap();
        found.unreadable.sort();
        assert_eq!(found.records, [record("sbx-1")]);
        assert_eq!(found.unreadable, [store.path("sbx-3"), store.path("sbx-5")]);
        store.remove("sbx-1").unwrap();
        store.remove("sbx-1").unwrap();
    }
}
