//! The files: modes, migrations, damage.

use sqlx::{ConnectOptions as _, Connection as _};

use super::*;
use crate::store::migrate;

#[tokio::test]
async fn the_files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new().await;
    let facts = sandbox(None);
    fixture
        .store
        .insert_sandbox(&facts, (&Token::generate(), &Token::generate()), None)
        .await
        .unwrap();
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    let directory = fixture.home.path().join("state");
    assert_eq!(mode(directory.clone()), 0o700);
    let files: Vec<_> = std::fs::read_dir(&directory).unwrap().collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let path = file.unwrap().path();
        assert_eq!(mode(path.clone()), 0o600, "{}", path.display());
    }
    std::fs::set_permissions(fixture.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let fixture = fixture.reopen().await;
    assert_eq!(mode(fixture.path()), 0o600);
}

#[tokio::test]
async fn a_store_of_a_newer_gateway_is_refused_and_left_alone() {
    let fixture = Fixture::new().await;
    let path = fixture.path();
    fixture.store.close().await;
    set_schema(&path, migrate::KNOWN + 1).await;
    let before = std::fs::read(&path).unwrap();
    let error = Store::open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("newer gateway") && text.contains("install that version"),
        "{text}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

async fn set_schema(path: &std::path::Path, version: i64) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await.unwrap();
    let sql = format!("PRAGMA user_version = {version}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn an_older_store_is_copied_before_it_is_migrated() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE old (a); INSERT INTO old VALUES (42); PRAGMA user_version = 1")
        .execute(&mut connection)
        .await
        .unwrap();
    let steps = ["never run", "ALTER TABLE old ADD COLUMN b DEFAULT 7"];
    migrate::run_steps(&mut connection, &path, &steps)
        .await
        .unwrap();
    let row: (i64, i64) = sqlx::query_as("SELECT a, b FROM old")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(row, (42, 7));
    connection.close().await.unwrap();

    let backup = migrate::newest_backup(&path).unwrap();
    let mut copy = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&backup)
        .connect()
        .await
        .unwrap();
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut copy)
        .await
        .unwrap();
    let columns: Vec<(i64,)> = sqlx::query_as("SELECT * FROM old")
        .fetch_all(&mut copy)
        .await
        .unwrap();
    assert_eq!((version, columns), (1, vec![(42,)]));
}

#[tokio::test]
async fn a_migration_that_fails_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    let steps = [
        "CREATE TABLE one (a)",
        "CREATE TABLE two (a); SELECT no_such_column FROM one",
    ];
    migrate::run_steps(&mut connection, &path, &steps)
        .await
        .unwrap_err();
    let version: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!((version, tables), (1, 1));
}

#[tokio::test]
async fn damage_is_found_when_the_store_is_opened() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    std::fs::write(
        &path,
        b"this is no database, it only looks long enough to be one",
    )
    .unwrap();
    std::fs::write(home.path().join("store.db.backup-1-1700000000000"), b"").unwrap();
    let error = Store::open(&path).await.unwrap_err();
    let StoreError::Corrupt {
        backup: Some(backup),
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert!(backup.ends_with("store.db.backup-1-1700000000000"));
    assert!(error.to_string().contains("backup-1-"), "{error}");
}

#[tokio::test]
async fn what_sqlite_says_is_told_by_who_has_to_act() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE t (a); PRAGMA max_page_count = 3")
        .execute(&mut connection)
        .await
        .unwrap();
    let fill = "INSERT INTO t VALUES (zeroblob(100000))";
    let error = sqlx::query(fill)
        .execute(&mut connection)
        .await
        .unwrap_err();
    let error = StoreError::query("fill", &path, error);
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");

    sqlx::raw_sql("PRAGMA query_only = 1")
        .execute(&mut connection)
        .await
        .unwrap();
    let error = sqlx::query(fill)
        .execute(&mut connection)
        .await
        .unwrap_err();
    let error = StoreError::query("fill", &path, error);
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
}

#[tokio::test]
async fn a_store_that_is_closed_leaves_one_file_and_everything_in_it() {
    let fixture = Fixture::new().await;
    let facts = sandbox(None);
    let token = Token::generate();
    fixture
        .store
        .insert_sandbox(&facts, (&token, &Token::generate()), None)
        .await
        .unwrap();
    let path = fixture.path();
    fixture.store.close().await;
    let files: Vec<_> = std::fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(files, ["store.db"]);
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.sandboxes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_look_from_outside_changes_nothing_and_finds_damage() {
    let fixture = Fixture::new().await;
    let path = fixture.path();
    // Beside a gateway that has it open, too.
    assert!(Store::examine(&path).await.unwrap());
    fixture.store.close().await;
    let missing = path.with_file_name("missing.db");
    assert!(!Store::examine(&missing).await.unwrap());
    assert!(!missing.exists());

    set_schema(&path, migrate::KNOWN + 1).await;
    let error = Store::examine(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { .. }), "{error}");

    let damaged = b"not a store".repeat(1000);
    std::fs::write(&path, &damaged).unwrap();
    let error = Store::examine(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.hint().unwrap().contains("move it away"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), damaged);

    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(Store::examine(&path).await.is_err());
}
