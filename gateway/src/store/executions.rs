//! Executions.

use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{QueryBuilder, Row as _};

use super::changes::statement;
use super::writer::Urgency;
use super::{Change, ExecutionFilter, ExecutionPage, IdempotencyKey, Store, StoreError, records};
use crate::model::{ExecutionFacts, ExecutionId, UnixMillis};

impl Store {
    /// A new execution in a sandbox that exists, and what its caller's key stands for.
    pub async fn insert_execution(
        &self,
        facts: &ExecutionFacts,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), StoreError> {
        let mut changes = Vec::with_capacity(2);
        changes.extend(key.map(|key| Change::UseKey(key, facts.id.as_str())));
        changes.push(Change::InsertExecution(facts));
        let outcome = self.write("insert an execution into", &changes).await;
        self.explain_key(outcome, key).await
    }

    /// The execution as it is now.
    pub async fn update_execution(&self, facts: &ExecutionFacts) -> Result<(), StoreError> {
        self.write("update an execution in", &[Change::UpdateExecution(facts)])
            .await
    }

    /// The same, without waiting until it is stored. What is stored later is stored after it.
    pub async fn post_execution(&self, facts: &ExecutionFacts) -> Result<(), StoreError> {
        let change = [statement(&Change::UpdateExecution(facts))?];
        self.writer()
            .post("update an execution in", Urgency::OfWhatRuns, change.into())
            .await
    }

    /// Forgets an execution. One that is not there is fine.
    pub async fn remove_execution(&self, id: &ExecutionId) -> Result<(), StoreError> {
        self.write("remove an execution from", &[Change::RemoveExecution(id)])
            .await
    }

    /// One execution, if it is known.
    pub async fn execution(&self, id: &ExecutionId) -> Result<Option<ExecutionFacts>, StoreError> {
        let failed = self.failed("read an execution from");
        let row = sqlx::query("SELECT id, record FROM executions WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(self.readers())
            .await
            .map_err(&failed)?;
        row.map(|row| execution(&row, &failed)).transpose()
    }

    /// The newest ones (before `before`, if that is given) that match.
    pub async fn executions(
        &self,
        filter: &ExecutionFilter,
        page_size: usize,
        before: Option<&ExecutionId>,
    ) -> Result<ExecutionPage, StoreError> {
        let failed = self.failed("list the executions in");
        let mut query = QueryBuilder::<Sqlite>::new("SELECT id, record FROM executions WHERE 1");
        if let Some(sandbox) = &filter.sandbox {
            query.push(" AND sandbox_id = ").push_bind(sandbox.as_str());
        }
        if filter.running_only {
            query.push(" AND end_time_unix_ms IS NULL");
        }
        if let Some(owner) = filter.owner_uid {
            query.push(" AND owner_uid = ").push_bind(owner);
        }
        if let Some(before) = before {
            query.push(" AND id < ").push_bind(before.as_str());
        }
        // One more than asked for tells whether there is a next page.
        let limit = i64::try_from(page_size.saturating_add(1)).unwrap_or(i64::MAX);
        query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
        let rows = query
            .build()
            .fetch_all(self.readers())
            .await
            .map_err(&failed)?;
        let more = rows.len() > page_size;
        let executions = rows
            .iter()
            .take(page_size)
            .map(|row| execution(row, &failed))
            .collect::<Result<Vec<_>, _>>()?;
        let next = executions.last().filter(|_| more);
        Ok(ExecutionPage {
            next: next.map(|facts| facts.id.clone()),
            executions,
        })
    }

    /// All that have not ended, oldest first.
    pub async fn unfinished_executions(&self) -> Result<Vec<ExecutionFacts>, StoreError> {
        let failed = self.failed("read the unfinished executions from");
        let rows = sqlx::query(
            "SELECT id, record FROM executions WHERE end_time_unix_ms IS NULL ORDER BY id",
        )
        .fetch_all(self.readers())
        .await
        .map_err(&failed)?;
        rows.iter().map(|row| execution(row, &failed)).collect()
    }

    /// At most `max` of those that ended before this time, the longest ended first.
    pub async fn executions_ended_before(
        &self,
        limit: UnixMillis,
        max: usize,
    ) -> Result<Vec<ExecutionId>, StoreError> {
        let failed = self.failed("list old executions in");
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM executions WHERE end_time_unix_ms < ? ORDER BY end_time_unix_ms LIMIT ?",
        )
        .bind(i64::try_from(limit.0).unwrap_or(i64::MAX))
        .bind(i64::try_from(max).unwrap_or(i64::MAX))
        .fetch_all(self.readers())
        .await
        .map_err(&failed)?;
        let parse = |id: &String| ExecutionId::parse(id);
        let ids: Result<_, _> = ids.iter().map(parse).collect();
        ids.map_err(|error| failed(sqlx::Error::Decode(error.into())))
    }
}

fn execution(
    row: &SqliteRow,
    failed: impl Fn(sqlx::Error) -> StoreError,
) -> Result<ExecutionFacts, StoreError> {
    let id: String = row.try_get(0).map_err(&failed)?;
    let record: &str = row.try_get(1).map_err(&failed)?;
    records::read_execution(record).map_err(|source| StoreError::Record {
        what: "execution",
        id,
        source,
    })
}
