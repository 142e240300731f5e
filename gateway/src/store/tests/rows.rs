//! What is stored, changed, listed and refused.

use super::*;

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let id = store.gateway_id().to_owned();
    let mut facts = sandbox(Some("mine"));
    let (first, second) = (Token::generate(), Token::generate());
    store
        .insert_sandbox(&facts, (&first, &Token::generate()), None)
        .await
        .unwrap();
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
    store
        .insert_sandbox(&first, (&token, &Token::generate()), None)
        .await
        .unwrap();
    let second = sandbox(Some("db"));
    let error = store
        .insert_sandbox(&second, (&token, &Token::generate()), None)
        .await
        .unwrap_err();
    assert!(matches!(&error, StoreError::NameTaken { name } if name.as_str() == "db"));
    let one_shot = execution(&second);
    let error = store
        .insert_one_shot(&second, (&token, &Token::generate()), &one_shot, None)
        .await;
    assert!(matches!(error, Err(StoreError::NameTaken { .. })));
    assert_eq!(store.execution(&one_shot.id).await.unwrap(), None);

    first.state = SandboxState::Deleted;
    store.update_sandbox(&first).await.unwrap();
    store
        .insert_sandbox(&second, (&token, &Token::generate()), None)
        .await
        .unwrap();
    let third = sandbox(None);
    store
        .insert_sandbox(&third, (&token, &Token::generate()), None)
        .await
        .unwrap();
    store
        .insert_sandbox(&sandbox(None), (&token, &Token::generate()), None)
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
        .insert_sandbox(&first, (&token, &Token::generate()), Some(&once))
        .await
        .unwrap();
    // The same request again: its name is taken as well, but that is not the news.
    let again = sandbox(Some("db"));
    let error = store
        .insert_sandbox(&again, (&token, &Token::generate()), Some(&key("k", 2)))
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
        .insert_one_shot(&other, (&token, &Token::generate()), &run, Some(&once))
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
        .insert_one_shot(&other, (&token, &Token::generate()), &run, Some(&once))
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
        .insert_sandbox(&facts, (&Token::generate(), &Token::generate()), None)
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
            store
                .insert_sandbox(&facts, (&token, &Token::generate()), None)
                .await
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
