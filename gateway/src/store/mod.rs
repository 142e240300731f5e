//! The gateway's memory: sandboxes, executions, idempotency keys and operations under way.
//!
//! SQLite in WAL mode. One task owns the only writing connection and takes its work from a bounded
//! queue; what has queued up meanwhile is committed as one group. Readers have connections of
//! their own and are never blocked by a write.
//!
//! `synchronous = NORMAL`: a write that has returned survives the death of the gateway. A power
//! cut may take the last few, together with the sandboxes they speak of.
//!
//! What is promised: that a request was accepted, that a driver is about to be called, and how an
//! execution has ended are stored before anybody acts on them or hears of them. What was only
//! observed (that a sandbox is ready, that a process runs) is told at once and stored right behind;
//! the same is observed again by a gateway that finds the older record.
//!
//! This module knows rows and records (`records/`, versioned); it does not know what the states
//! mean, and it never sees the value of an environment variable.

mod changes;
mod checkpoint;
mod error;
mod executions;
mod migrate;
mod open;
mod operations;
mod records;
mod sandboxes;
#[cfg(test)]
mod tests;
mod writer;

use crate::model::{
    ExecutionFacts, ExecutionId, OperationId, SandboxFacts, SandboxId, Token, UnixMillis,
};

pub use error::StoreError;
pub use open::{Durability, Store};
pub use writer::Storing;

/// A caller's promise that two requests with this key are the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    pub caller_uid: u32,
    pub key: String,
    /// Of the request.
    pub digest: [u8; 32],
}

/// What a key was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    pub digest: [u8; 32],
    /// The id of the sandbox or execution that was made.
    pub object_id: String,
}

/// A sandbox as it was stored, with the tokens its supervisor may know.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSandbox {
    pub facts: SandboxFacts,
    pub current: Token,
    pub next: Option<Token>,
}

/// One change. Several are made together or not at all by [`Store::apply`].
#[derive(Debug, Clone)]
pub enum Change<'a> {
    /// With the token its supervisor begins with, and the one it is offered next.
    InsertSandbox(&'a SandboxFacts, &'a Token, &'a Token),
    UpdateSandbox(&'a SandboxFacts),
    RemoveSandbox(&'a SandboxId),
    /// The supervisor may answer with either from now on. A `next` of `None`: only `current`.
    SetTokens(&'a SandboxId, &'a Token, Option<&'a Token>),
    InsertExecution(&'a ExecutionFacts),
    UpdateExecution(&'a ExecutionFacts),
    RemoveExecution(&'a ExecutionId),
    /// The key now stands for this object.
    UseKey(&'a IdempotencyKey, &'a str),
    BeginOperation(&'a OperationId, &'a SandboxId, &'a str),
    FinishOperation(&'a OperationId),
}

/// Which executions.
#[derive(Debug, Clone, Default)]
pub struct ExecutionFilter {
    pub sandbox: Option<SandboxId>,
    pub running_only: bool,
    pub owner_uid: Option<u32>,
}

/// Some of the executions, newest first.
#[derive(Debug, Clone)]
pub struct ExecutionPage {
    pub executions: Vec<ExecutionFacts>,
    /// Ask for those before this one next. `None`: that was all.
    pub next: Option<ExecutionId>,
}

/// Something the gateway had begun and not finished when it stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOperation {
    pub id: OperationId,
    pub sandbox_id: SandboxId,
    pub kind: String,
    pub start_time: UnixMillis,
}
