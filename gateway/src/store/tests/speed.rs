//! How long a write takes.

use super::*;

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
            .insert_one_shot(&facts, (&token, &Token::generate()), &run, None)
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

/// An embedded gateway makes a store each time.
#[tokio::test(flavor = "multi_thread")]
#[allow(
    clippy::print_stderr,
    reason = "figures are for the person who runs the test"
)]
async fn opening_is_measured() {
    let home = tempfile::tempdir().unwrap();
    let cases = [
        ("a new store", "store.db", Durability::Lasting),
        ("it again", "store.db", Durability::Lasting),
        ("a temporary one", "temporary.db", Durability::Temporary),
    ];
    for (what, name, durability) in cases {
        let path = home.path().join(name);
        let start = std::time::Instant::now();
        let store = Store::open_as(
            &path,
            durability,
            crate::state_dir::StateDir::temporary(home.path()),
        )
        .await
        .unwrap();
        let opened = start.elapsed();
        let start = std::time::Instant::now();
        store.close().await;
        eprintln!("{what}: open {opened:?}, close {:?}", start.elapsed());
    }
}
