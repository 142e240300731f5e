//! Operations under way: intent that is on record before a driver is called.

use sqlx::Row as _;

use super::{Change, OpenOperation, Store, StoreError};
use crate::model::{OperationId, SandboxId, UnixMillis};

impl Store {
    /// From now on this counts as begun, even if the gateway dies.
    pub async fn begin_operation(
        &self,
        id: &OperationId,
        sandbox: &SandboxId,
        kind: &str,
    ) -> Result<(), StoreError> {
        let change = Change::BeginOperation(id, sandbox, kind);
        self.write("begin an operation in", &[change]).await
    }

    /// It is settled. One that is not there is fine.
    pub async fn finish_operation(&self, id: &OperationId) -> Result<(), StoreError> {
        self.write("finish an operation in", &[Change::FinishOperation(id)])
            .await
    }

    /// Everything begun and not finished, oldest first.
    pub async fn open_operations(&self) -> Result<Vec<OpenOperation>, StoreError> {
        let failed = self.failed("read the open operations from");
        let rows = sqlx::query(
            "SELECT id, sandbox_id, kind, start_time_unix_ms FROM operations \
             ORDER BY start_time_unix_ms, id",
        )
        .fetch_all(self.readers())
        .await
        .map_err(&failed)?;
        let mut operations = Vec::with_capacity(rows.len());
        for row in rows {
            let id: &str = row.try_get(0).map_err(&failed)?;
            let sandbox_id: &str = row.try_get(1).map_err(&failed)?;
            let start_time: i64 = row.try_get(3).map_err(&failed)?;
            let bad = |error: crate::model::IdError| failed(sqlx::Error::Decode(error.into()));
            operations.push(OpenOperation {
                id: OperationId::parse(id).map_err(bad)?,
                sandbox_id: SandboxId::parse(sandbox_id).map_err(bad)?,
                kind: row.try_get(2).map_err(&failed)?,
                start_time: UnixMillis(start_time.try_into().unwrap_or_default()),
            });
        }
        Ok(operations)
    }
}
