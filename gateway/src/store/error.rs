//! What can go wrong with the store, by who has to act.

use std::path::{Path, PathBuf};

use super::{KeyUse, migrate};
use crate::model::SandboxName;
use crate::state_dir::Trouble;

/// An operation on the store failed; nothing of it was stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The caller: choose another name.
    #[error("a sandbox named {name} exists already")]
    NameTaken { name: SandboxName },
    /// The caller: a repeated request, or another one under the same key.
    #[error("the idempotency key was used for {}", used.object_id)]
    KeyUsed { used: KeyUse },
    /// An object to be changed is not there.
    #[error("{what} {id} is not in the store")]
    NotFound { what: &'static str, id: String },
    /// The operator: make room.
    #[error("no space left for the store {}", path.display())]
    Full { path: PathBuf },
    /// The operator: permissions or a read-only file system.
    #[error("the store {} cannot be written", path.display())]
    ReadOnly { path: PathBuf },
    /// The operator: the disk.
    #[error("the store {} cannot be read or written: {detail}", path.display())]
    Failing { path: PathBuf, detail: String },
    /// The operator: restore the backup, if there is one.
    #[error("the store {} is damaged: {detail}{}", path.display(), backup_hint(.backup))]
    Corrupt {
        path: PathBuf,
        /// The newest copy that was made before a migration.
        backup: Option<PathBuf>,
        detail: String,
    },
    /// The operator: a newer gateway wrote it, and an older one would damage it.
    #[error(
        "the store {} has schema {found}, made by a newer gateway; this one knows up to {known}: \
         install that version again, or restore the copy made before the upgrade{}",
        path.display(), backup_hint(.backup)
    )]
    TooNew {
        path: PathBuf,
        found: i64,
        known: i64,
        backup: Option<PathBuf>,
    },
    #[error("could not {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A row that this version cannot read.
    #[error("the record of {what} {id} cannot be read")]
    Record {
        what: &'static str,
        id: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("could not {operation} the store")]
    Query {
        operation: &'static str,
        #[source]
        source: sqlx::Error,
    },
    /// It was closed, or its writer died.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// What SQLite says, by who has to act.
    pub(super) fn query(operation: &'static str, path: &Path, source: sqlx::Error) -> Self {
        let path = path.to_owned();
        match (primary_code(&source), &source) {
            (_, sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed) => Self::Closed,
            (Some(SQLITE_FULL), _) => Self::Full { path },
            (Some(SQLITE_READONLY | SQLITE_PERM), _) => Self::ReadOnly { path },
            (Some(SQLITE_IOERR), _) => Self::Failing {
                detail: source.to_string(),
                path,
            },
            (Some(SQLITE_CORRUPT | SQLITE_NOTADB), _) => Self::Corrupt {
                backup: migrate::newest_backup(&path),
                detail: source.to_string(),
                path,
            },
            _ => Self::Query { operation, source },
        }
    }

    /// What the operator can do, where that is not in the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Corrupt {
                backup: Some(_), ..
            } => Some(
                "put the backup in its place and remove the files beside it that end in -wal and -shm",
            ),
            Self::Corrupt { backup: None, .. } => Some(
                "move it away, with the files beside it that end in -wal and -shm, and start again: \
                 records are lost, and sandboxes that still run end at their lifetime",
            ),
            Self::Full { .. } => Some("free space on its file system"),
            Self::ReadOnly { .. } => {
                Some("let the gateway's user write there, or choose another state_dir")
            }
            _ => None,
        }
    }

    /// Something about the machine and not about the change: the same one may be stored later.
    pub fn trouble(&self) -> Option<Trouble> {
        let directory = |path: &Path| path.parent().unwrap_or(path).to_owned();
        match self {
            Self::Full { path } => Some(Trouble::Full {
                path: directory(path),
                left_bytes: None,
            }),
            Self::ReadOnly { path } => Some(Trouble::ReadOnly {
                path: directory(path),
            }),
            Self::Failing { path, detail } => Some(Trouble::Failing {
                path: directory(path),
                detail: detail.clone(),
            }),
            _ => None,
        }
    }

    /// Whether a unique column was to get a value that it has already.
    pub(super) fn violates(&self, column: &str) -> bool {
        match self {
            Self::Query {
                source: sqlx::Error::Database(error),
                ..
            } => error.is_unique_violation() && error.message().contains(column),
            _ => false,
        }
    }
}

// From <https://www.sqlite.org/rescode.html>.
const SQLITE_PERM: u32 = 3;
const SQLITE_READONLY: u32 = 8;
const SQLITE_IOERR: u32 = 10;
const SQLITE_CORRUPT: u32 = 11;
const SQLITE_FULL: u32 = 13;
const SQLITE_NOTADB: u32 = 26;

fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<u32>().ok().map(|extended| extended & 0xff)
}

fn backup_hint(backup: &Option<PathBuf>) -> String {
    match backup {
        Some(path) => format!(" (backup: {})", path.display()),
        None => String::new(),
    }
}
