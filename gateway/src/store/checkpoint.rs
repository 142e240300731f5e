//! Moves what was written from the write-ahead log into the database, beside the writer.
//!
//! A checkpoint waits for the disk. Left to SQLite it would be made by whichever write comes last,
//! which then takes milliseconds; a connection of its own does it without holding anybody up.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Executor as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Writes after which a checkpoint is made: the log stays around four megabytes.
const WRITES_MAX: u64 = 300;

/// How long a write waits for a checkpoint at most; a power cut takes no more than this.
const AGE_MAX: Duration = Duration::from_secs(5);

/// Counts the writes since the last checkpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    shared: Arc<Counter>,
}

#[derive(Debug, Default)]
struct Counter {
    writes: AtomicU64,
    /// Told of the first write and of the one that makes it enough.
    news: Notify,
}

impl Pending {
    pub(super) fn add(&self, writes: u64) {
        let before = self.shared.writes.fetch_add(writes, Ordering::Relaxed);
        let after = before + writes;
        if before == 0 || (before < WRITES_MAX && after >= WRITES_MAX) {
            self.shared.news.notify_one();
        }
    }

    fn count(&self) -> u64 {
        self.shared.writes.load(Ordering::Relaxed)
    }

    async fn is_due(&self) {
        while self.count() == 0 {
            self.shared.news.notified().await;
        }
        let enough = async {
            while self.count() < WRITES_MAX {
                self.shared.news.notified().await;
            }
        };
        // An error says that the time is over: due as well.
        let _ = tokio::time::timeout(AGE_MAX, enough).await;
    }
}

pub(super) async fn run(
    mut connection: SqliteConnection,
    path: PathBuf,
    pending: Pending,
    cancel: CancellationToken,
) {
    while cancel.run_until_cancelled(pending.is_due()).await.is_some() {
        pending.shared.writes.store(0, Ordering::Relaxed);
        if let Err(error) = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").await {
            // The next one takes these writes along, and closing makes one in any case.
            tracing::warn!(store = %path.display(), %error, "no checkpoint could be made");
        }
    }
    // Nothing depends on how this one is closed.
    let _ = connection.close().await;
}
