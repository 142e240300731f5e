//! The one writer: a task that owns the writing connection.
//!
//! A caller that goes away does not undo what it has put into the queue.

use std::path::PathBuf;

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments as _, AssertSqlSafe, Connection as _, Either, Executor as _};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::StoreError;
use super::checkpoint::Pending;
use crate::state_dir::StateDir;

/// Writes that wait for the writer. Enough for every task to have one under way; more than that
/// makes the callers wait, which is how a slow disk is felt.
const QUEUE_MAX: usize = 256;

/// Writes committed together.
const GROUP_MAX: usize = 64;

/// One SQL statement that changes rows.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) sql: &'static str,
    pub(super) values: Vec<Value>,
    /// It has to change a row: the object that is meant.
    pub(super) must_change: Option<(&'static str, String)>,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// May a change have the room that is kept for when there is none?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It can be refused.
    NewWork,
    /// It has happened, or it makes room.
    OfWhatRuns,
}

/// Statements that take effect together or not at all.
#[derive(Debug)]
struct Job {
    operation: &'static str,
    urgency: Urgency,
    statements: Vec<Statement>,
    /// None: nobody waits for it.
    reply: Option<oneshot::Sender<Result<(), StoreError>>>,
}

impl Job {
    fn answer(self, path: &std::path::Path, outcome: Result<(), StoreError>) {
        let untold = match self.reply {
            // The caller may be gone.
            Some(reply) => reply.send(outcome).err(),
            None => Some(outcome),
        };
        // Trouble with the disk is told by whoever watches over that.
        if let Some(Err(error)) = untold
            && error.trouble().is_none()
        {
            let operation = self.operation;
            tracing::warn!(store = %path.display(), operation, %error, "nobody waited, and it failed");
        }
    }
}

/// A write that is queued.
#[derive(Debug)]
pub struct Storing(oneshot::Receiver<Result<(), StoreError>>);

impl Storing {
    /// Waits until it is stored. Cancelled, it can be asked again; answered, it must not be.
    pub async fn done(&mut self) -> Result<(), StoreError> {
        (&mut self.0).await.map_err(|_| StoreError::Closed)?
    }
}

#[derive(Debug)]
enum Message {
    Write(Job),
    Close(oneshot::Sender<()>),
}

/// The callers' end of the queue.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
}

impl Writer {
    /// Gives the connection to a task, which ends when it is closed or all callers are gone.
    pub(super) fn start(
        connection: SqliteConnection,
        path: PathBuf,
        state_dir: StateDir,
        pending: Pending,
        tasks: &TaskTracker,
    ) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE_MAX);
        let disk = Disk {
            connection,
            path,
            state_dir,
        };
        tasks.spawn(run(disk, pending, messages));
        Self { queue }
    }

    pub(super) async fn write(
        &self,
        operation: &'static str,
        urgency: Urgency,
        statements: Vec<Statement>,
    ) -> Result<(), StoreError> {
        let mut storing = self.submit(operation, urgency, statements).await?;
        storing.done().await
    }

    /// Returns as soon as it is queued, before everything that is written later.
    pub(super) async fn submit(
        &self,
        operation: &'static str,
        urgency: Urgency,
        statements: Vec<Statement>,
    ) -> Result<Storing, StoreError> {
        let (reply, outcome) = oneshot::channel();
        let job = Job {
            operation,
            urgency,
            statements,
            reply: Some(reply),
        };
        self.queue(job).await?;
        Ok(Storing(outcome))
    }

    /// As `submit`, for whom the outcome does not matter.
    pub(super) async fn post(
        &self,
        operation: &'static str,
        urgency: Urgency,
        statements: Vec<Statement>,
    ) -> Result<(), StoreError> {
        self.queue(Job {
            operation,
            urgency,
            statements,
            reply: None,
        })
        .await
    }

    async fn queue(&self, job: Job) -> Result<(), StoreError> {
        let sent = self.queue.send(Message::Write(job)).await;
        sent.map_err(|_| StoreError::Closed)
    }

    /// Writes what is queued, then closes the connection.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Message::Close(done)).await.is_ok() {
            // An error says that the task is gone, which is what was wanted.
            let _ = closed.await;
        }
    }
}

/// Where it is written to.
struct Disk {
    connection: SqliteConnection,
    path: PathBuf,
    state_dir: StateDir,
}

async fn run(mut disk: Disk, pending: Pending, mut messages: mpsc::Receiver<Message>) {
    let mut received = Vec::with_capacity(GROUP_MAX);
    let mut closers = Vec::new();
    while messages.recv_many(&mut received, GROUP_MAX).await > 0 {
        let mut jobs = Vec::with_capacity(received.len());
        for message in received.drain(..) {
            match message {
                Message::Write(job) => jobs.push(job),
                Message::Close(done) => {
                    messages.close();
                    closers.push(done);
                }
            }
        }
        pending.add(jobs.len() as u64);
        write(&mut disk, jobs).await;
    }
    if let Err(error) = disk.connection.close().await {
        tracing::warn!(store = %disk.path.display(), %error, "the store did not close cleanly");
    }
    for done in closers {
        let _ = done.send(());
    }
}

/// All jobs in one transaction. If anything is wrong with any, each on its own, so that only the
/// guilty one fails.
async fn write(disk: &mut Disk, jobs: Vec<Job>) {
    if jobs.len() > 1 && together(&mut disk.connection, &jobs).await {
        disk.state_dir.wrote();
        for job in jobs {
            job.answer(&disk.path, Ok(()));
        }
        return;
    }
    for job in jobs {
        let outcome = disk.write(&job).await;
        job.answer(&disk.path, outcome);
    }
}

impl Disk {
    /// Tries again with the reserve, for what cannot be refused.
    async fn write(&mut self, job: &Job) -> Result<(), StoreError> {
        let mut outcome = self.try_write(job).await;
        if let Err(error @ StoreError::Full { .. }) = &outcome {
            self.note(error);
            if job.urgency == Urgency::OfWhatRuns && self.state_dir.release_reserve() {
                outcome = self.try_write(job).await;
            }
        }
        match &outcome {
            Ok(()) => self.state_dir.wrote(),
            Err(error) => self.note(error),
        }
        outcome
    }

    fn note(&self, error: &StoreError) {
        if let Some(trouble) = error.trouble() {
            self.state_dir.failed(&trouble);
        }
    }

    async fn try_write(&mut self, job: &Job) -> Result<(), StoreError> {
        let outcome = alone(&mut self.connection, &job.statements).await;
        outcome.map_err(|failure| match failure {
            Failure::NotFound(what, id) => StoreError::NotFound { what, id },
            Failure::Sql(source) => StoreError::query(job.operation, &self.path, source),
        })
    }
}

enum Failure {
    NotFound(&'static str, String),
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

async fn together(connection: &mut SqliteConnection, jobs: &[Job]) -> bool {
    let write = async {
        connection.execute("BEGIN IMMEDIATE").await?;
        for job in jobs {
            execute(connection, "", &job.statements, "").await?;
        }
        connection.execute("COMMIT").await?;
        Ok::<(), Failure>(())
    };
    let done = write.await.is_ok();
    if !done {
        roll_back(connection).await;
    }
    done
}

async fn alone(connection: &mut SqliteConnection, statements: &[Statement]) -> Result<(), Failure> {
    if let [_] = statements {
        return execute(connection, "", statements, "").await;
    }
    // What was changed has to be looked at before the commit only if that can undo it.
    let look = statements.iter().any(|s| s.must_change.is_some());
    let write = async {
        if look {
            execute(connection, "BEGIN IMMEDIATE;", statements, "").await?;
            connection.execute("COMMIT").await?;
            return Ok(());
        }
        execute(connection, "BEGIN IMMEDIATE;", statements, "COMMIT").await
    };
    let outcome = write.await;
    if outcome.is_err() {
        roll_back(connection).await;
    }
    outcome
}

async fn roll_back(connection: &mut SqliteConnection) {
    // SQLite may have rolled back already, on a full disk for instance: then this fails, rightly.
    let _ = connection.execute("ROLLBACK").await;
}

/// Runs all statements with one trip to the connection's thread, and looks at what each changed.
async fn execute(
    connection: &mut SqliteConnection,
    before: &'static str,
    statements: &[Statement],
    after: &'static str,
) -> Result<(), Failure> {
    let mut arguments = SqliteArguments::default();
    for value in statements.iter().flat_map(|statement| &statement.values) {
        let added = match value {
            Value::Null => arguments.add(None::<i64>),
            Value::Integer(number) => arguments.add(*number),
            Value::Text(text) => arguments.add(text.clone()),
            Value::Blob(bytes) => arguments.add(bytes.clone()),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    let mut results = match (before, statements) {
        ("", [one]) => connection.fetch_many(sqlx::query_with(one.sql, arguments)),
        _ => {
            let mut sql = before.to_owned();
            for statement in statements {
                sql.push_str(statement.sql);
                sql.push(';');
            }
            sql.push_str(after);
            connection.fetch_many(sqlx::query_with(AssertSqlSafe(sql), arguments))
        }
    };
    let mut changed = Vec::with_capacity(statements.len() + 1);
    while let Some(result) = results.try_next().await? {
        if let Either::Left(done) = result {
            changed.push(done.rows_affected());
        }
    }
    // The count behind BEGIN, which changes no rows, says nothing.
    let changed = changed.iter().skip(usize::from(!before.is_empty()));
    for (statement, changed) in statements.iter().zip(changed) {
        if let (Some((what, id)), 0) = (&statement.must_change, changed) {
            return Err(Failure::NotFound(what, id.clone()));
        }
    }
    Ok(())
}
