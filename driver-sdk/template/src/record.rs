//! What is remembered of each sandbox, on disk: a driver that is killed at any moment loses nothing.
//!
//! ```text
//! <state_dir>/
//!   records/<id>.json         0700; what was accepted: written before anything is made, removed last
//!   sandboxes/<id>/           0711; what is made
//!     workspace/
//!     console.log             what the supervisor printed
//!     order.json              what the keeper is to do            written by the driver
//!     boot.json, end.json     that it runs, and how that ended    written by the keeper
//! ```
//!
//! Files appear whole, by rename. No secret is ever in one.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use cofferdam_driver_sdk::handle::{self, HandleError, HandleRecord};
use cofferdam_driver_sdk::proto::Handle;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// Goes up when an older driver could not work with what this one writes.
pub(crate) const VERSION: u32 = 1;

/// A sandbox as it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) sandbox_id: String,
    /// A driver shows and touches only the sandboxes of the gateway that asks.
    pub(crate) gateway_id: String,
    /// What "the same spec" is measured by.
    pub(crate) spec_digest: String,
    pub(crate) create_time_unix_ms: u64,
    pub(crate) callback_directory: PathBuf,
    pub(crate) plan: Plan,
}

/// The handle: what this driver wants back after a restart. The gateway keeps it and never looks
/// inside. Everything is under the state directory; so the handle says which one that was, and a
/// driver that is started with another one does not take its sandboxes for gone.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxHandle {
    pub(crate) state_dir: PathBuf,
}

impl HandleRecord for SandboxHandle {
    const VERSION: u32 = 1;
}

pub(crate) fn seal_handle(state_dir: &Path) -> Result<Handle, HandleError> {
    handle::seal(&SandboxHandle {
        state_dir: state_dir.to_owned(),
    })
}

/// All records of a state directory.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    state_dir: PathBuf,
}

/// What was found in it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) records: Vec<Record>,
    /// Damaged, or of a newer driver. While there are any, no list is complete, and the gateway
    /// takes nothing for gone.
    pub(crate) unreadable: Vec<PathBuf>,
}

impl Records {
    /// Makes the directories where they are missing.
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        for (name, mode) in [("sandboxes", 0o711), ("records", 0o700)] {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(mode);
            builder.create(state_dir.join(name))?;
        }
        Ok(Self {
            state_dir: state_dir.to_owned(),
        })
    }

    /// Where a sandbox is made.
    pub(crate) fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.state_dir.join("sandboxes").join(id)
    }

    fn path(&self, id: &str) -> PathBuf {
        self.state_dir.join("records").join(format!("{id}.json"))
    }

    pub(crate) fn put(&self, record: &Record) -> io::Result<()> {
        write(&self.path(&record.sandbox_id), record)
    }

    pub(crate) fn get(&self, id: &str) -> io::Result<Option<Record>> {
        let record: Option<Record> = read(&self.path(id))?;
        match record {
            Some(record) if record.version != VERSION => Err(io::Error::other(format!(
                "the record of {id} has version {}, and this driver reads {VERSION}",
                record.version
            ))),
            record => Ok(record),
        }
    }

    /// A record that is not there is removed.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    pub(crate) fn all(&self) -> io::Result<Found> {
        let mut found = Found::default();
        for entry in fs::read_dir(self.state_dir.join("records"))? {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".json"));
            // Anything else is a file that was being written when the driver died.
            let Some(id) = id else { continue };
            match self.get(id) {
                Ok(record) => found.records.extend(record),
                Err(_) => found.unreadable.push(self.path(id)),
            }
        }
        Ok(found)
    }
}

/// A file's content; none if there is no such file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whole or not at all.
pub(crate) fn write<T: Serialize>(path: &Path, content: &T) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, serde_json::to_vec(content)?)?;
    fs::rename(fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record {
            version: VERSION,
            sandbox_id: id.to_owned(),
            gateway_id: "gw".to_owned(),
            spec_digest: "ab".to_owned(),
            create_time_unix_ms: 1,
            callback_directory: "/run/callback".into(),
            plan: Plan {
                uid: 1,
                gid: 2,
                nice: 0,
                expire_time_unix_ms: 3,
                weaknesses: Vec::new(),
            },
        }
    }

    #[test]
    fn what_was_remembered_comes_back_and_damage_is_told_from_absence() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        records.put(&record("sbx-1")).unwrap();
        let newer = Record {
            version: VERSION + 1,
            ..record("sbx-2")
        };
        records.put(&newer).unwrap();
        fs::write(records.path("sbx-3"), "{").unwrap();
        fs::write(dir.path().join("records/sbx-4.new"), "{").unwrap();
        assert_eq!(records.get("sbx-1").unwrap(), Some(record("sbx-1")));
        assert_eq!(records.get("sbx-9").unwrap(), None);
        let mut found = records.all().unwrap();
        found.unreadable.sort();
        assert_eq!(found.records, [record("sbx-1")]);
        let unreadable = [records.path("sbx-2"), records.path("sbx-3")];
        assert_eq!(found.unreadable, unreadable);
        records.remove("sbx-1").unwrap();
        records.remove("sbx-1").unwrap();
        assert_eq!(records.get("sbx-1").unwrap(), None);
    }

    #[test]
    fn a_handle_comes_back_and_one_of_a_newer_driver_is_no_guess() {
        let sealed = seal_handle(Path::new("/state")).unwrap();
        let opened: SandboxHandle = handle::open(&sealed).unwrap();
        assert_eq!(opened.state_dir, Path::new("/state"));
        let newer = Handle {
            version: SandboxHandle::VERSION + 1,
            ..sealed
        };
        assert!(handle::open::<SandboxHandle>(&newer).is_err());
    }
}
