use std::path::PathBuf;

use super::*;
use crate::model::*;

fn driver() -> DriverName {
    DriverName::parse("one").unwrap()
}

fn spec() -> SandboxSpec {
    SandboxSpec {
        image: ImageSpec {
            source: ImageSource::Host,
            pull: PullPolicy::Missing,
            credentials: None,
            platform: String::new(),
        },
        uid: 1000,
        gid: 1000,
        limits: ResourceLimits {
            memory_bytes: 512 << 20,
            cpu_millis: 1000,
            pids: 256,
            disk_bytes: 512 << 20,
            tmp_bytes: 100 << 20,
            required: LimitSet::default(),
        },
        network: NetworkSpec {
            class: NetworkClass::None,
            allow: Vec::new(),
        },
        mounts: Vec::new(),
        labels: Default::default(),
        expire_time: UnixMillis(2_000_000_000_000),
        gpus: 0,
        driver_config: Default::default(),
        isolation_min: None,
        root_writable: false,
        workspace: "/workspace".to_owned(),
        hostname: "sandbox".to_owned(),
    }
}

pub(super) fn sandbox(name: Option<&str>) -> SandboxFacts {
    SandboxFacts {
        id: SandboxId::generate(),
        name: name.map(|name| SandboxName::parse(name).unwrap()),
        driver: driver(),
        owner_uid: 1000,
        execution_id: None,
        spec: spec(),
        state: SandboxState::Provisioning,
        reason: String::new(),
        message: String::new(),
        handle: None,
        observed: None,
        create_time: UnixMillis(1_700_000_000_000),
        ready_time: UnixMillis(0),
        state_time: UnixMillis(1_700_000_000_000),
        idle_timeout_ms: 0,
        weaknesses: Vec::new(),
        environment_names: Vec::new(),
    }
}

pub(super) fn execution(sandbox: &SandboxFacts) -> ExecutionFacts {
    ExecutionFacts {
        id: ExecutionId::generate(),
        sandbox_id: sandbox.id.clone(),
        driver: driver(),
        one_shot: true,
        detachable: false,
        owner_uid: 1000,
        argv: vec![b"true".to_vec()],
        cwd: String::new(),
        user: None,
        pty: None,
        stdin: false,
        timeout_ms: 300_000,
        output_cap_bytes: 64 << 20,
        labels: Default::default(),
        environment_names: Vec::new(),
        state: ExecutionState::Claiming,
        ending: None,
        create_time: UnixMillis(1_700_000_000_000),
        start_time: UnixMillis(0),
        end_time: UnixMillis(0),
        stages: StageTimes::default(),
        output: OutputTotals::default(),
        cpu_user_us: None,
        cpu_system_us: None,
        max_rss_bytes: None,
    }
}

fn ended(mut facts: ExecutionFacts, end: u64) -> ExecutionFacts {
    facts.state = ExecutionState::Succeeded;
    facts.end_time = UnixMillis(end);
    facts
}

fn key(text: &str, digest: u8) -> IdempotencyKey {
    IdempotencyKey {
        caller_uid: 1000,
        key: text.to_owned(),
        digest: [digest; 32],
    }
}

struct Fixture {
    home: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("state/store.db"))
            .await
            .unwrap();
        Self { home, store }
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("state/store.db")
    }

    async fn reopen(self) -> Self {
        let path = self.path();
        self.store.close().await;
        let store = Store::open(&path).await.unwrap();
        Self { store, ..self }
    }
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let id = store.gateway_id().to_owned();
    let mut facts = sandbox(Some("mine"));
    let (first, second) = (Token::generate(), Token::generate());
    store.insert_sandbox(&facts, &first, None).await.unwrap();
    store
        .rotate_token(&facts.id, &first, &second)
        .await
        .unwrap();
    facts.state = SandboxState::Ready;
    facts.handle = Some(Handle {
        version: 3,
        data: vec![0, 255, 7],
    });
    store.update_sandbox(&facts).await.unwrap();
    let run = execution(&facts);
    store.insert_execution(&run, None).await.unwrap();

    let fixture = fixture.reopen().await;
    let store = &fixture.store;
    assert_eq!(store.gateway_id(), id);
    assert!(id.starts_with("gw-"), "{id}");
    let stored = StoredSandbox {
        facts: facts.clone(),
        current: first,
        next: Some(second.clone()),
    };
    assert_eq!(store.sandboxes().await.unwrap(), [stored]);
    assert_eq!(store.execution(&run.id).await.unwrap(), Some(run));

    store.set_token(&facts.id, &second).await.unwrap();
    let stored = store.sandboxes().await.unwrap().remove(0);
    assert_eq!((stored.current, stored.next), (second, None));
    store.remove_sandbox(&facts.id).await.unwrap();
    store.remove_sandbox(&facts.id).await.unwrap();
    assert_eq!(store.sandboxes().await.unwrap(), []);
}

#[tokio::test]
async fn a_name_is_taken_until_its_sandbox_is_gone() {
    let Fixture { store, home: _home } = Fixture::new().await;
    let token = Token::generate();
    let mut first = sandbox(Some("db"));
    store.insert_sandbox(&first, &token, None).await.unwrap();
    let second = sandbox(Some("db"));
    let error = store
        .insert_sandbox(&second, &token, None)
        .await
        .unwrap_err();
    assert!(matches!(&error, StoreError::NameTaken { name } if name.as_str() == "db"));
    let one_shot = execution(&second);
    let error = store
        .insert_one_shot(&second, &token, &one_shot, None)
        .await;
    assert!(matches!(error, Err(StoreError::NameTaken { .. })));
    assert_eq!(store.execution(&one_shot.id).await.unwrap(), None);

    first.state = SandboxState::Deleted;
    store.update_sandbox(&first).await.unwrap();
    store.insert_sandbox(&second, &token, None).await.unwrap();
    let third = sandbox(None);
    store.insert_sandbox(&third, &token, None).await.unwrap();
    store
        .insert_sandbox(&sandbox(None), &token, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_used_key_names_its_object_and_digest_and_stores_nothing() {
    let Fixture { store, home: _home } = Fixture::new().await;
    let token = Token::generate();
    let first = sandbox(Some("db"));
    let once = key("k", 1);
    store
        .insert_sandbox(&first, &token, Some(&once))
        .await
        .unwrap();
    // The same request again: its name is taken as well, but that is not the news.
    let again = sandbox(Some("db"));
    let error = store
        .insert_sandbox(&again, &token, Some(&key("k", 2)))
        .await
        .unwrap_err();
    let used = KeyUse {
        digest: [1; 32],
        object_id: first.id.to_string(),
    };
    assert!(
        matches!(&error, StoreError::KeyUsed { used: found } if *found == used),
        "{error}"
    );
    assert_eq!(store.find_idempotent(1000, "k").await.unwrap(), Some(used));
    assert_eq!(store.find_idempotent(1001, "k").await.unwrap(), None);

    let other = sandbox(None);
    let run = execution(&other);
    let error = store
        .insert_one_shot(&other, &token, &run, Some(&once))
        .await;
    assert!(matches!(error, Err(StoreError::KeyUsed { .. })));
    let error = store.insert_execution(&run, Some(&once)).await;
    assert!(matches!(error, Err(StoreError::KeyUsed { .. })));
    assert_eq!(store.execution(&run.id).await.unwrap(), None);
    assert_eq!(store.sandboxes().await.unwrap().len(), 1);

    store
        .forget_keys_before(UnixMillis::now().after(std::time::Duration::from_secs(1)))
        .await
        .unwrap();
    store
        .insert_one_shot(&other, &token, &run, Some(&once))
        .await
        .unwrap();
    let used = store.find_idempotent(1000, "k").await.unwrap().unwrap();
    assert_eq!(used.object_id, run.id.as_str());
}

#[tokio::test]
async fn changes_are_made_together_or_not_at_all() {
    let Fixture { store, home: _home } = Fixture::new().await;
    let facts = sandbox(None);
    store
        .insert_sandbox(&facts, &Token::generate(), None)
        .await
        .unwrap();
    let operation = OperationId::generate();
    let missing = execution(&facts);
    let error = store
        .apply(&[
            Change::BeginOperation(&operation, &facts.id, "delete"),
            Change::UpdateExecution(&missing),
            Change::RemoveSandbox(&facts.id),
        ])
        .await
        .unwrap_err();
    assert!(matches!(&error, StoreError::NotFound { id, .. } if *id == missing.id.as_str()));
    assert_eq!(store.open_operations().await.unwrap(), []);
    assert_eq!(store.sandboxes().await.unwrap().len(), 1);

    store
        .apply(&[
            Change::InsertExecution(&missing),
            Change::UpdateExecution(&missing),
            Change::RemoveSandbox(&facts.id),
        ])
        .await
        .unwrap();
    assert_eq!(store.sandboxes().await.unwrap(), []);
    assert!(store.execution(&missing.id).await.unwrap().is_some());
    store.apply(&[]).await.unwrap();
}

#[tokio::test]
async fn of_many_writes_at_once_only_the_wrong_ones_fail() {
    let Fixture { store, home: _home } = Fixture::new().await;
    let token = Token::generate();
    let writes = (0..200).map(|n| {
        let (store, token) = (store.clone(), token.clone());
        // Ten names for two hundred sandboxes.
        async move {
            let facts = sandbox((n % 2 == 0).then(|| format!("name-{}", n % 20)).as_deref());
            store.insert_sandbox(&facts, &token, None).await
        }
    });
    let outcomes = futures_util::future::join_all(writes).await;
    let taken =
        |outcome: &&Result<(), StoreError>| matches!(outcome, Err(StoreError::NameTaken { .. }));
    assert_eq!(outcomes.iter().filter(taken).count(), 90);
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
        110
    );
    assert_eq!(store.sandboxes().await.unwrap().len(), 110);
}

#[tokio::test]
async fn operations_that_were_not_finished_are_found_again() {
    let fixture = Fixture::new().await;
    let facts = sandbox(None);
    let (one, two) = (OperationId::generate(), OperationId::generate());
    fixture
        .store
        .begin_operation(&one, &facts.id, "create")
        .await
        .unwrap();
    fixture
        .store
        .begin_operation(&two, &facts.id, "delete")
        .await
        .unwrap();
    fixture.store.finish_operation(&one).await.unwrap();
    fixture.store.finish_operation(&one).await.unwrap();
    let fixture = fixture.reopen().await;
    let open = fixture.store.open_operations().await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(
        (&open[0].id, &open[0].sandbox_id, open[0].kind.as_str()),
        (&two, &facts.id, "delete")
    );
}

#[tokio::test]
async fn executions_are_listed_newest_first_in_pages() {
    let Fixture { store, home: _home } = Fixture::new().await;
    let (one, two) = (sandbox(None), sandbox(None));
    let mut runs = Vec::new();
    for n in 0..10_u64 {
        let mut facts = execution(if n % 2 == 0 { &one } else { &two });
        facts.id = ExecutionId::parse(&format!("exec-{n:04}")).unwrap();
        facts.owner_uid = n as u32 / 5;
        let facts = if n < 4 { ended(facts, 100 + n) } else { facts };
        store.insert_execution(&facts, None).await.unwrap();
        runs.push(facts);
    }
    let ids = |page: &ExecutionPage| -> Vec<String> {
        page.executions
            .iter()
            .map(|facts| facts.id.to_string()[5..].to_owned())
            .collect()
    };
    let all = ExecutionFilter::default();
    let page = store.executions(&all, 4, None).await.unwrap();
    assert_eq!(ids(&page), ["0009", "0008", "0007", "0006"]);
    let page = store.executions(&all, 4, page.next.as_ref()).await.unwrap();
    let page = store.executions(&all, 4, page.next.as_ref()).await.unwrap();
    assert_eq!(
        (ids(&page), page.next),
        (vec!["0001".to_owned(), "0000".to_owned()], None)
    );
    let exact = store.executions(&all, 10, None).await.unwrap();
    assert_eq!((exact.executions.len(), exact.next), (10, None));

    let filter = ExecutionFilter {
        sandbox: Some(one.id.clone()),
        running_only: true,
        owner_uid: Some(1),
    };
    let page = store.executions(&filter, 10, None).await.unwrap();
    assert_eq!(ids(&page), ["0008", "0006"]);
    assert_eq!(page.executions[0], runs[8]);

    let unfinished = store.unfinished_executions().await.unwrap();
    assert_eq!(unfinished, runs[4..]);
    let old = store
        .executions_ended_before(UnixMillis(103), 2)
        .await
        .unwrap();
    assert_eq!(old, [runs[0].id.clone(), runs[1].id.clone()]);
    store.remove_execution(&old[0]).await.unwrap();
    let old = store
        .executions_ended_before(UnixMillis(103), 5)
        .await
        .unwrap();
    assert_eq!(old, [runs[1].id.clone(), runs[2].id.clone()]);
}

#[tokio::test]
async fn the_files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new().await;
    let facts = sandbox(None);
    fixture
        .store
        .insert_sandbox(&facts, &Token::generate(), None)
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
    use sqlx::{ConnectOptions as _, Connection as _};
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
    use sqlx::{ConnectOptions as _, Connection as _};
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
    use sqlx::ConnectOptions as _;
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
async fn a_closed_store_says_so() {
    let Fixture { store, home: _home } = Fixture::new().await;
    let other = store.clone();
    store.close().await;
    let error = other.update_sandbox(&sandbox(None)).await;
    assert!(matches!(error, Err(StoreError::Closed)));
    let error = other.sandboxes().await;
    assert!(matches!(error, Err(StoreError::Closed)));
    other.close().await;
}

#[tokio::test]
async fn an_update_of_what_is_not_there_is_not_found() {
    let Fixture { store, home: _home } = Fixture::new().await;
    let facts = sandbox(None);
    let token = Token::generate();
    let errors = [
        store.update_sandbox(&facts).await,
        store.update_execution(&execution(&facts)).await,
        store.rotate_token(&facts.id, &token, &token).await,
    ];
    for error in errors {
        assert!(
            matches!(error, Err(StoreError::NotFound { .. })),
            "{error:?}"
        );
    }
}

/// Prints what the machine gives; run it in release with `--nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[allow(
    clippy::print_stderr,
    reason = "figures are for the person who runs the test"
)]
async fn write_latency_is_measured() {
    let Fixture { store, home: _home } = Fixture::new().await;
    let rounds = if cfg!(debug_assertions) { 50 } else { 3000 };
    let mut times: std::collections::BTreeMap<&str, Vec<u128>> = Default::default();
    for _ in 0..rounds {
        let mut facts = sandbox(None);
        let mut run = execution(&facts);
        let operation = OperationId::generate();
        let token = Token::generate();
        let mut step = |name, start: std::time::Instant| {
            times
                .entry(name)
                .or_default()
                .push(start.elapsed().as_nanos() / 1000);
        };
        let now = std::time::Instant::now;
        let start = now();
        store
            .insert_one_shot(&facts, &token, &run, None)
            .await
            .unwrap();
        step("1 insert_one_shot", start);
        let start = now();
        store
            .begin_operation(&operation, &facts.id, "create")
            .await
            .unwrap();
        step("2 begin_operation", start);
        facts.state = SandboxState::Ready;
        let start = now();
        store
            .apply(&[
                Change::UpdateSandbox(&facts),
                Change::FinishOperation(&operation),
            ])
            .await
            .unwrap();
        step("3 update_sandbox+finish", start);
        let start = now();
        store.rotate_token(&facts.id, &token, &token).await.unwrap();
        step("4 rotate_token", start);
        run.state = ExecutionState::Running;
        let start = now();
        store.update_execution(&run).await.unwrap();
        step("5 update_execution", start);
        let run = ended(run, 1);
        let start = now();
        store
            .apply(&[
                Change::UpdateExecution(&run),
                Change::RemoveSandbox(&facts.id),
            ])
            .await
            .unwrap();
        step("6 finish+remove", start);
    }
    for (name, mut times) in times {
        times.sort_unstable();
        let at = |p: usize| times[(times.len() - 1) * p / 1000];
        eprintln!(
            "{name}: p50 {} µs, p99 {} µs, p99.9 {} µs",
            at(500),
            at(990),
            at(999)
        );
    }
}
