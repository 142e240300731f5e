//! Opening and closing the store.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::checkpoint::{self, Pending};
use super::writer::Writer;
use super::{StoreError, migrate};
use crate::state_dir::StateDir;

/// Another process, a backup tool for instance, may lock the file for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads at the same time. Each costs a thread.
const READERS_MAX: u32 = 2;

/// Statements that are kept prepared: all of ours, alone and in the usual combinations.
const PREPARED_MAX: usize = 200;

/// What a store has to survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The death of the gateway always, and a power cut but for the last few seconds.
    #[default]
    Lasting,
    /// Nothing beyond this process: its directory is removed with it. Never waits for the disk.
    Temporary,
}

/// The gateway's memory. A handle; all clones mean the same one.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    gateway_id: String,
    writer: Writer,
    readers: SqlitePool,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer ends when its last caller is gone; the checkpoints have to be told.
        self.cancel.cancel();
    }
}

impl Store {
    /// Opens the store, making it if it is not there, and brings its schema up to date.
    ///
    /// A damaged store and one that a newer gateway has written are refused and left as they are.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let directory = path.parent().unwrap_or(path);
        Self::open_as(path, Durability::Lasting, StateDir::temporary(directory)).await
    }

    /// As [`Self::open`], for what it has to survive, in a directory that is watched.
    pub async fn open_as(
        path: &Path,
        durability: Durability,
        state_dir: StateDir,
    ) -> Result<Self, StoreError> {
        let is_new = prepare_files(path)?;
        let wanted = match durability {
            Durability::Lasting => SqliteSynchronous::Normal,
            Durability::Temporary => SqliteSynchronous::Off,
        };
        // Nothing is lost with a store that was not there, and waiting for the disk at every step
        // of making one takes fifty milliseconds. The first checkpoint brings it to the disk.
        let making = match is_new {
            true => SqliteSynchronous::Off,
            false => wanted,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .synchronous(wanted)
            .busy_timeout(BUSY_TIMEOUT)
            .statement_cache_capacity(PREPARED_MAX)
            // Checkpoints are made beside the writer; this is for when that does not keep up.
            .pragma("wal_autocheckpoint", "16384")
            .disable_statement_logging();
        let opening = |source| StoreError::query("open", path, source);
        let making = options.clone().synchronous(making);
        let mut connection = making.connect().await.map_err(opening)?;
        // Not among the options, which would be set in an order that waits for the disk.
        let wal = "PRAGMA journal_mode = WAL";
        connection.execute(wal).await.map_err(opening)?;
        let options = options.journal_mode(SqliteJournalMode::Wal);
        check(&mut connection, path).await?;
        migrate::run(&mut connection, path).await?;
        let gateway_id = gateway_id(&mut connection).await.map_err(opening)?;
        if is_new && durability == Durability::Lasting {
            let normal = "PRAGMA synchronous = NORMAL";
            connection.execute(normal).await.map_err(opening)?;
        }
        let beside = options.connect().await.map_err(opening)?;
        let readers = SqlitePoolOptions::new()
            .min_connections(1)
            .max_connections(READERS_MAX)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.create_if_missing(false).read_only(true))
            .await
            .map_err(opening)?;
        let cancel = CancellationToken::new();
        let pending = Pending::default();
        pending.add(u64::from(is_new));
        let checkpoints = checkpoint::run(
            beside,
            path.to_owned(),
            pending.clone(),
            cancel.child_token(),
        );
        let tasks = TaskTracker::new();
        tasks.spawn(checkpoints);
        let writer = Writer::start(connection, path.to_owned(), state_dir, pending, &tasks);
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                gateway_id,
                writer,
                readers,
                cancel,
                tasks,
            }),
        })
    }

    /// Looks at a store without changing it, for somebody who does not run it. False: there is none.
    pub async fn examine(path: &Path) -> Result<bool, StoreError> {
        match path.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Ok(about) if about.is_file() && about.len() == 0 => return Ok(false),
            Ok(_) => {}
            Err(source) => return Err(unreadable(path, source)),
        }
        // SQLite has one answer for whatever keeps it from opening a file.
        std::fs::File::open(path).map_err(|source| unreadable(path, source))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let opening = |source| StoreError::query("open", path, source);
        let mut connection = options.connect().await.map_err(opening)?;
        check(&mut connection, path).await?;
        migrate::check_known(&mut connection, path).await?;
        connection.close().await.map_err(opening)?;
        Ok(true)
    }

    /// Writes what is queued and closes the files. Every other handle gets `Closed` from then on.
    pub async fn close(self) {
        self.inner.readers.close().await;
        self.inner.writer.close().await;
        self.inner.cancel.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// This gateway's identity: `gw-…`, made once with the store.
    pub fn gateway_id(&self) -> &str {
        &self.inner.gateway_id
    }

    pub(super) fn writer(&self) -> &Writer {
        &self.inner.writer
    }

    pub(super) fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }

    /// An error of a read.
    pub(super) fn failed(&self, operation: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
        move |source| StoreError::query(operation, &self.inner.path, source)
    }
}

fn unreadable(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Io {
        operation: "read",
        path: path.to_owned(),
        source,
    }
}

/// Directory and file for the owner only: SQLite gives its other files the mode of the first.
/// Returns whether there was nothing.
fn prepare_files(path: &Path) -> Result<bool, StoreError> {
    let is_new = !path.metadata().is_ok_and(|metadata| metadata.len() > 0);
    if let Some(directory) = path.parent().filter(|parent| !parent.exists()) {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(directory).map_err(|source| StoreError::Io {
            operation: "create",
            path: directory.to_owned(),
            source,
        })?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
            StoreError::ReadOnly {
                path: path.to_owned(),
            }
        }
        _ => StoreError::Io {
            operation: "open",
            path: path.to_owned(),
            source,
        },
    })?;
    make_private(path)?;
    Ok(is_new)
}

/// Takes everybody else's rights away.
pub(super) fn make_private(path: &Path) -> Result<(), StoreError> {
    let change = || {
        let mode = std::fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        }
        Ok(())
    };
    change().map_err(|source| StoreError::Io {
        operation: "change the mode of",
        path: path.to_owned(),
        source,
    })
}

/// Looks for damage before anything is built on it.
async fn check(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let detail: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(connection)
        .await
        .map_err(|source| StoreError::query("check", path, source))?;
    match detail.as_str() {
        "ok" => Ok(()),
        _ => Err(StoreError::Corrupt {
            path: path.to_owned(),
            backup: migrate::newest_backup(path),
            detail,
        }),
    }
}

async fn gateway_id(connection: &mut SqliteConnection) -> Result<String, sqlx::Error> {
    let text = data_encoding::BASE32HEX_NOPAD.encode(&rand::random::<[u8; 10]>());
    let fresh = format!("gw-{}", text.to_ascii_lowercase());
    let mut transaction = connection.begin().await?;
    sqlx::query("INSERT INTO meta (key, value) VALUES ('gateway_id', ?) ON CONFLICT DO NOTHING")
        .bind(fresh)
        .execute(&mut *transaction)
        .await?;
    let id = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'gateway_id'")
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(id)
}
