//! A gateway whose database takes no more: what has happened is told all the same, and is on record
//! as soon as it can be.

use cofferdam_tests::{TestGateway, wait};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};

/// An end is told after so many tries, one a second.
const TRIES: usize = 30;

/// The gateway's own, opened beside it.
async fn database(gateway: &TestGateway) -> SqliteConnection {
    let path = gateway.state_dir().join("gateway.db");
    assert!(path.exists(), "{}", path.display());
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(wait::PATIENCE);
    options.connect().await.expect("open the database")
}

async fn has_end(database: &mut SqliteConnection, id: &str) -> bool {
    let sql = format!("SELECT end_time_unix_ms FROM executions WHERE id = '{id}'");
    let found: Option<i64> = sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(database)
        .await
        .expect("its row");
    found.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_cannot_be_stored_is_tried_again_then_told_and_stored_when_it_can_be() {
    let mut gateway = TestGateway::start();
    let mut database = database(&gateway).await;
    gateway.create(["--name", "one"]);
    let script = "echo on; read line; exit 7";
    let mut call = gateway
        .cli(["exec", "-i", "one", "sh", "-c", script])
        .spawn();
    call.expect("on\n");
    let running = gateway.json(["ps", "--last", "1"]);
    let id = running["execution_id"].as_str().expect("an id").to_owned();
    let broken = "CREATE TRIGGER broken BEFORE UPDATE ON executions \
                  BEGIN SELECT RAISE(ABORT, 'a test has broken this'); END";
    database.execute(broken).await.expect("break it");
    call.type_in("go\n");
    call.wait().exited(7);
    let tries = gateway.log().matches("record was not stored").count();
    assert!(tries >= TRIES, "told after {tries} tries");
    assert!(!has_end(&mut database, &id).await);
    let mend = "DROP TRIGGER broken";
    database.execute(mend).await.expect("mend it");
    let end = std::time::Instant::now() + wait::PATIENCE;
    while !has_end(&mut database, &id).await {
        assert!(std::time::Instant::now() < end, "it is never stored");
        wait::pause();
    }
    drop(database);
    gateway.kill_and_restart();
    let found = gateway.json(["inspect", &id]);
    assert_eq!(
        (&found["state"], &found["exit_code"]),
        (&"FAILED".into(), &7.into())
    );
}
