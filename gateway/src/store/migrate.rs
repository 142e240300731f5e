//! The schema, as numbered steps. A released step never changes; the next one is added.

use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::StoreError;
use crate::model::UnixMillis;

/// Step N takes the schema from version N to N + 1.
const STEPS: &[&str] = &[include_str!("migrations/1.sql")];

/// How many copies made before migrations are kept.
const BACKUPS_MAX: usize = 3;

/// The newest schema that this gateway knows.
#[cfg(test)]
pub(super) const KNOWN: i64 = STEPS.len() as i64;

/// Brings the schema up to date, after a copy of what was there.
pub(super) async fn run(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    run_steps(connection, path, STEPS).await
}

/// Refuses what a newer gateway has written, and changes nothing.
pub(super) async fn check_known(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<(), StoreError> {
    let known = STEPS.len() as i64;
    version(connection, path, known).await.map(|_found| ())
}

/// The schema that is there: at most the one that is known.
async fn version(
    connection: &mut SqliteConnection,
    path: &Path,
    known: i64,
) -> Result<i64, StoreError> {
    let failed = |source| StoreError::query("read the schema version", path, source);
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(connection)
        .await
        .map_err(failed)?;
    if found <= known {
        return Ok(found);
    }
    Err(StoreError::TooNew {
        path: path.to_owned(),
        found,
        known,
        backup: newest_backup(path),
    })
}

pub(super) async fn run_steps(
    connection: &mut SqliteConnection,
    path: &Path,
    steps: &[&'static str],
) -> Result<(), StoreError> {
    let known = steps.len() as i64;
    let found = version(connection, path, known).await?;
    if found > 0 && found < known {
        back_up(connection, path, found).await?;
    }
    let done = usize::try_from(found).unwrap_or_default();
    for (version, step) in steps.iter().enumerate().skip(done) {
        apply(connection, version + 1, step)
            .await
            .map_err(|source| StoreError::query("migrate", path, source))?;
        if found > 0 {
            tracing::info!(store = %path.display(), schema = version + 1, "the store was migrated");
        }
    }
    Ok(())
}

/// A step and its number, together or not at all.
async fn apply(
    connection: &mut SqliteConnection,
    version: usize,
    step: &'static str,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(step).execute(&mut *transaction).await?;
    let number = format!("PRAGMA user_version = {version}");
    sqlx::raw_sql(AssertSqlSafe(number))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

async fn back_up(
    connection: &mut SqliteConnection,
    path: &Path,
    version: i64,
) -> Result<(), StoreError> {
    let mut name = backup_prefix(path);
    name.push(format!("{version}-{}", UnixMillis::now().0));
    let copy = PathBuf::from(name);
    sqlx::query("VACUUM INTO ?")
        .bind(copy.display().to_string())
        .execute(connection)
        .await
        .map_err(|source| StoreError::query("copy the store before migrating", path, source))?;
    super::open::make_private(&copy)?;
    tracing::info!(backup = %copy.display(), "the store was copied before its migration");
    let mut backups = backups(path);
    while backups.len() > BACKUPS_MAX {
        let oldest = backups.remove(0);
        if let Err(error) = std::fs::remove_file(&oldest) {
            tracing::warn!(backup = %oldest.display(), %error, "an old backup cannot be removed");
        }
    }
    Ok(())
}

/// The newest copy that was made before a migration.
pub(super) fn newest_backup(path: &Path) -> Option<PathBuf> {
    backups(path).pop()
}

fn backup_prefix(path: &Path) -> std::ffi::OsString {
    let mut name = path.as_os_str().to_owned();
    name.push(".backup-");
    name
}

/// All copies, oldest first.
fn backups(path: &Path) -> Vec<PathBuf> {
    let prefix = backup_prefix(path);
    let Some(entries) = path
        .parent()
        .and_then(|parent| std::fs::read_dir(parent).ok())
    else {
        return Vec::new();
    };
    let time = |path: &Path| {
        let rest = path.as_os_str().as_encoded_bytes();
        let rest = rest.strip_prefix(prefix.as_encoded_bytes())?;
        let (_, time) = std::str::from_utf8(rest).ok()?.split_once('-')?;
        time.parse::<u64>().ok()
    };
    let mut found: Vec<(u64, PathBuf)> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter_map(|path| Some((time(&path)?, path)))
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}
