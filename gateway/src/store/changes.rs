//! Changes as SQL.

use super::writer::{Statement, Value};
use super::{Change, StoreError, records};
use crate::model::{ExecutionFacts, SandboxFacts, SandboxState, UnixMillis};

pub(super) fn statement(change: &Change<'_>) -> Result<Statement, StoreError> {
    Ok(match *change {
        Change::InsertSandbox(facts, token, next) => Statement {
            sql: "INSERT INTO sandboxes (id, name, state, token, token_next, record) \
                  VALUES (?, ?, ?, ?, ?, ?)",
            values: vec![
                text(&facts.id),
                live_name(facts),
                text(facts.state.name()),
                Value::Blob(token.0.to_vec()),
                Value::Blob(next.0.to_vec()),
                sandbox_record(facts)?,
            ],
            must_change: None,
        },
        Change::UpdateSandbox(facts) => Statement {
            sql: "UPDATE sandboxes SET name = ?, state = ?, record = ? WHERE id = ?",
            values: vec![
                live_name(facts),
                text(facts.state.name()),
                sandbox_record(facts)?,
                text(&facts.id),
            ],
            must_change: Some(("sandbox", facts.id.to_string())),
        },
        Change::RemoveSandbox(id) => removal("DELETE FROM sandboxes WHERE id = ?", id),
        Change::SetTokens(id, current, next) => Statement {
            sql: "UPDATE sandboxes SET token = ?, token_next = ? WHERE id = ?",
            values: vec![
                Value::Blob(current.0.to_vec()),
                next.map_or(Value::Null, |next| Value::Blob(next.0.to_vec())),
                text(id),
            ],
            must_change: Some(("sandbox", id.to_string())),
        },
        Change::InsertExecution(facts) => Statement {
            sql: "INSERT INTO executions (id, sandbox_id, owner_uid, state, end_time_unix_ms, \
                  record) VALUES (?, ?, ?, ?, ?, ?)",
            values: vec![
                text(&facts.id),
                text(&facts.sandbox_id),
                Value::Integer(facts.owner_uid.into()),
                text(facts.state.name()),
                end_time(facts),
                execution_record(facts)?,
            ],
            must_change: None,
        },
        Change::UpdateExecution(facts) => Statement {
            sql: "UPDATE executions SET sandbox_id = ?, state = ?, end_time_unix_ms = ?, \
                  record = ? WHERE id = ?",
            values: vec![
                text(&facts.sandbox_id),
                text(facts.state.name()),
                end_time(facts),
                execution_record(facts)?,
                text(&facts.id),
            ],
            must_change: Some(("execution", facts.id.to_string())),
        },
        Change::RemoveExecution(id) => removal("DELETE FROM executions WHERE id = ?", id),
        Change::UseKey(key, object_id) => Statement {
            sql: "INSERT INTO idempotency_keys (caller_uid, key, digest, object_id, \
                  create_time_unix_ms) VALUES (?, ?, ?, ?, ?)",
            values: vec![
                Value::Integer(key.caller_uid.into()),
                text(&key.key),
                Value::Blob(key.digest.to_vec()),
                text(object_id),
                time(UnixMillis::now()),
            ],
            must_change: None,
        },
        Change::BeginOperation(id, sandbox_id, kind) => Statement {
            sql: "INSERT INTO operations (id, sandbox_id, kind, start_time_unix_ms) \
                  VALUES (?, ?, ?, ?)",
            values: vec![
                text(id),
                text(sandbox_id),
                text(kind),
                time(UnixMillis::now()),
            ],
            must_change: None,
        },
        Change::FinishOperation(id) => removal("DELETE FROM operations WHERE id = ?", id),
    })
}

pub(super) fn text(value: impl ToString) -> Value {
    Value::Text(value.to_string())
}

pub(super) fn time(time: UnixMillis) -> Value {
    Value::Integer(i64::try_from(time.0).unwrap_or(i64::MAX))
}

/// Removing what is gone is fine.
fn removal(sql: &'static str, id: impl ToString) -> Statement {
    Statement {
        sql,
        values: vec![text(id)],
        must_change: None,
    }
}

/// A name belongs to a sandbox until that is gone.
fn live_name(facts: &SandboxFacts) -> Value {
    match &facts.name {
        Some(name) if facts.state != SandboxState::Deleted => text(name),
        _ => Value::Null,
    }
}

fn end_time(facts: &ExecutionFacts) -> Value {
    match facts.state.is_final() {
        true => time(facts.end_time),
        false => Value::Null,
    }
}

fn sandbox_record(facts: &SandboxFacts) -> Result<Value, StoreError> {
    records::write_sandbox(facts)
        .map(Value::Text)
        .map_err(|source| StoreError::Record {
            what: "sandbox",
            id: facts.id.to_string(),
            source,
        })
}

fn execution_record(facts: &ExecutionFacts) -> Result<Value, StoreError> {
    records::write_execution(facts)
        .map(Value::Text)
        .map_err(|source| StoreError::Record {
            what: "execution",
            id: facts.id.to_string(),
            source,
        })
}
