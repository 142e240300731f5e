//! Sandboxes, their tokens, and what callers' keys stand for.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::changes::{statement, time};
use super::writer::{Statement, Urgency};
use super::{Change, IdempotencyKey, KeyUse, Store, StoreError, StoredSandbox, Storing, records};
use crate::model::{ExecutionFacts, SandboxFacts, SandboxId, Token, UnixMillis};

impl Store {
    /// Makes all changes, in order, or none.
    pub async fn apply(&self, changes: &[Change<'_>]) -> Result<(), StoreError> {
        self.write("apply changes to", changes).await
    }

    /// A new sandbox, the first two tokens of its supervisor, and what its caller's key stands for.
    pub async fn insert_sandbox(
        &self,
        facts: &SandboxFacts,
        (token, next): (&Token, &Token),
        key: Option<&IdempotencyKey>,
    ) -> Result<(), StoreError> {
        let mut changes = Vec::with_capacity(2);
        // The key first: a repeated request is one, even if its name is taken (by itself).
        changes.extend(key.map(|key| Change::UseKey(key, facts.id.as_str())));
        changes.push(Change::InsertSandbox(facts, token, next));
        let outcome = self.write("insert a sandbox into", &changes).await;
        self.explain(outcome, facts, key).await
    }

    /// An execution with a sandbox of its own. The key stands for the execution.
    pub async fn insert_one_shot(
        &self,
        sandbox: &SandboxFacts,
        (token, next): (&Token, &Token),
        execution: &ExecutionFacts,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), StoreError> {
        let mut changes = Vec::with_capacity(3);
        changes.extend(key.map(|key| Change::UseKey(key, execution.id.as_str())));
        changes.push(Change::InsertSandbox(sandbox, token, next));
        changes.push(Change::InsertExecution(execution));
        let outcome = self.write("insert an execution into", &changes).await;
        self.explain(outcome, sandbox, key).await
    }

    /// The sandbox as it is now.
    pub async fn update_sandbox(&self, facts: &SandboxFacts) -> Result<(), StoreError> {
        self.write("update a sandbox in", &[Change::UpdateSandbox(facts)])
            .await
    }

    /// The same, without waiting until it is stored. What is stored later is stored after it.
    pub async fn post_sandbox(&self, facts: &SandboxFacts) -> Result<Storing, StoreError> {
        let change = vec![statement(&Change::UpdateSandbox(facts))?];
        self.writer()
            .submit("update a sandbox in", Urgency::OfWhatRuns, change)
            .await
    }

    /// It is gone for good. One that is not there is fine.
    pub async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), StoreError> {
        self.write("remove a sandbox from", &[Change::RemoveSandbox(id)])
            .await
    }

    /// The supervisor may know either of the two from now on.
    pub async fn rotate_token(
        &self,
        id: &SandboxId,
        current: &Token,
        next: &Token,
    ) -> Result<(), StoreError> {
        let change = Change::SetTokens(id, current, Some(next));
        self.write("store a token in", &[change]).await
    }

    /// A new boot knows this one only.
    pub async fn set_token(&self, id: &SandboxId, token: &Token) -> Result<(), StoreError> {
        let change = Change::SetTokens(id, token, None);
        self.write("store a token in", &[change]).await
    }

    /// Every sandbox that was not removed, in the order in which they were made.
    pub async fn sandboxes(&self) -> Result<Vec<StoredSandbox>, StoreError> {
        let failed = self.failed("read the sandboxes from");
        let rows = sqlx::query("SELECT id, token, token_next, record FROM sandboxes ORDER BY id")
            .fetch_all(self.readers())
            .await
            .map_err(&failed)?;
        rows.iter().map(|row| sandbox(row, &failed)).collect()
    }

    /// What a caller's key stands for.
    pub async fn find_idempotent(
        &self,
        caller_uid: u32,
        key: &str,
    ) -> Result<Option<KeyUse>, StoreError> {
        let failed = self.failed("look up a key in");
        let row = sqlx::query(
            "SELECT digest, object_id FROM idempotency_keys WHERE caller_uid = ? AND key = ?",
        )
        .bind(caller_uid)
        .bind(key)
        .fetch_optional(self.readers())
        .await
        .map_err(&failed)?;
        let Some(row) = row else {
            return Ok(None);
        };
        let digest: Vec<u8> = row.try_get(0).map_err(&failed)?;
        Ok(Some(KeyUse {
            // One of another length is nobody's digest: it differs from all.
            digest: digest.try_into().unwrap_or_default(),
            object_id: row.try_get(1).map_err(&failed)?,
        }))
    }

    /// Keys that were first used before this time mean nothing any more.
    pub async fn forget_keys_before(&self, limit: UnixMillis) -> Result<(), StoreError> {
        let statement = Statement {
            sql: "DELETE FROM idempotency_keys WHERE create_time_unix_ms < ?",
            values: vec![time(limit)],
            must_change: None,
        };
        self.writer()
            .write("remove old keys from", Urgency::OfWhatRuns, vec![statement])
            .await
    }

    pub(super) async fn write(
        &self,
        operation: &'static str,
        changes: &[Change<'_>],
    ) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let statements = changes.iter().map(statement).collect::<Result<_, _>>()?;
        let urgency = match changes.iter().any(is_new_work) {
            true => Urgency::NewWork,
            false => Urgency::OfWhatRuns,
        };
        self.writer().write(operation, urgency, statements).await
    }

    /// Puts the caller's name and key into the errors that are about them.
    pub(super) async fn explain(
        &self,
        outcome: Result<(), StoreError>,
        sandbox: &SandboxFacts,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), StoreError> {
        let outcome = self.explain_key(outcome, key).await;
        match (outcome, &sandbox.name) {
            (Err(error), Some(name)) if error.violates("sandboxes.name") => {
                Err(StoreError::NameTaken { name: name.clone() })
            }
            (outcome, _) => outcome,
        }
    }

    pub(super) async fn explain_key(
        &self,
        outcome: Result<(), StoreError>,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), StoreError> {
        match (outcome, key) {
            (Err(error), Some(key)) if error.violates("idempotency_keys.key") => {
                let used = self.find_idempotent(key.caller_uid, &key.key).await?;
                // None: it was forgotten between the two. The caller's next try will do.
                Err(used.map_or(error, |used| StoreError::KeyUsed { used }))
            }
            (outcome, _) => outcome,
        }
    }
}

fn is_new_work(change: &Change<'_>) -> bool {
    matches!(
        change,
        Change::InsertSandbox(..) | Change::InsertExecution(_) | Change::UseKey(..)
    )
}

fn sandbox(
    row: &SqliteRow,
    failed: impl Fn(sqlx::Error) -> StoreError,
) -> Result<StoredSandbox, StoreError> {
    let id: String = row.try_get(0).map_err(&failed)?;
    let current: Vec<u8> = row.try_get(1).map_err(&failed)?;
    let next: Option<Vec<u8>> = row.try_get(2).map_err(&failed)?;
    let record: &str = row.try_get(3).map_err(&failed)?;
    let token = |bytes: Vec<u8>| match <[u8; 32]>::try_from(bytes) {
        Ok(bytes) => Ok(Token(bytes)),
        Err(_) => Err(failed(sqlx::Error::Decode("a token has 32 bytes".into()))),
    };
    let facts = records::read_sandbox(record).map_err(|source| StoreError::Record {
        what: "sandbox",
        id,
        source,
    })?;
    Ok(StoredSandbox {
        facts,
        current: token(current)?,
        next: next.map(token).transpose()?,
    })
}
