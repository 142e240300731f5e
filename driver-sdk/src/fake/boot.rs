//! One boot of a fake sandbox: from the supervisor's start to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::child::{self, Child};
use super::{Entry, FakeDriver, Key, now_ms, stopped};
use crate::capabilities::termination;
use crate::error::DriverError;
use crate::proto::{Sandbox, SandboxState, Supervisor, Termination, TerminationReason};
use crate::supervisor::{
    Bootstrap, OOM_SCORE_ADJ, SupervisorBinary, SupervisorError, Token, Workload,
};

impl FakeDriver {
    /// Begins a boot: CREATING, then RUNNING once the supervisor is there.
    pub(super) async fn boot(
        &self,
        key: &Key,
        supervisor: Option<&Supervisor>,
        token: Token,
    ) -> Result<Sandbox, DriverError> {
        let (fake, key, supervisor) = (self.clone(), key.clone(), supervisor.cloned());
        let boot = async move { fake.boot_through(&key, supervisor, token).await };
        // Cancelled here, it goes on by itself: a repeated call finds what becomes of it.
        let booted = self.context.tasks.spawn(boot).await;
        booted.map_err(|error| DriverError::internal("starting a sandbox").because(error))?
    }

    async fn boot_through(
        &self,
        key: &Key,
        supervisor: Option<Supervisor>,
        token: Token,
    ) -> Result<Sandbox, DriverError> {
        let run_supervisor = {
            let settings = &self.lock().settings;
            settings.run_supervisor && !settings.run_commands
        };
        let creating = self.update(key, |entry| {
            entry.sandbox.boots += 1;
            entry.sandbox.set_state(SandboxState::Creating);
            entry.sandbox.termination = None;
            entry.is_stopping = false;
        })?;
        if !run_supervisor {
            let running = self.update(key, |entry| running(entry, None))?;
            self.clone().watch_record(key.clone(), creating.boots);
            return Ok(running);
        }
        let supervisors = Arc::clone(&self.supervisors);
        let binary =
            tokio::task::spawn_blocking(move || supervisors.open(supervisor.as_ref(), None))
                .await
                .map_err(|error| DriverError::internal("reading the supervisor").because(error))?;
        let mut child = None;
        // In one step: whoever stops or deletes it meets a boot without a process, which then gets
        // none, or one whose process is on record.
        let booted = self.update(key, |entry| {
            let is_this_boot = entry.sandbox.boots == creating.boots;
            if is_this_boot && entry.sandbox.state() == SandboxState::Creating {
                child = start(entry, binary, token, &self.context.tasks);
            }
        })?;
        if let Some(child) = child {
            self.clone().watch_child(key.clone(), child, creating.boots);
        }
        Ok(booted)
    }

    /// Waits for the expire time of a boot that has no process.
    fn watch_record(self, key: Key, boots: u64) {
        let tasks = self.context.tasks.clone();
        tasks.spawn(async move {
            let expire_ms = self.expire_time_ms(&key);
            let lifetime = Duration::from_millis(expire_ms.saturating_sub(now_ms()));
            tokio::select! {
                () = tokio::time::sleep(lifetime) => {
                    for command in self.children(&key) {
                        command.kill(Duration::ZERO).await;
                    }
                    self.ended(&key, boots, expired(), true);
                }
                () = self.context.shutdown.cancelled() => {}
            }
        });
    }

    /// Waits for the end of a boot: by itself, or at the expire time.
    fn watch_child(self, key: Key, child: Child, boots: u64) {
        let tasks = self.context.tasks.clone();
        tasks.spawn(async move {
            let expire_ms = self.expire_time_ms(&key);
            let lifetime = Duration::from_millis(expire_ms.saturating_sub(now_ms()));
            let (ended, is_expired) = tokio::select! {
                ended = child.wait() => (ended, false),
                () = tokio::time::sleep(lifetime) => {
                    child.kill(Duration::ZERO).await;
                    (child.wait().await, true)
                }
                () = self.context.shutdown.cancelled() => {
                    child.kill(Duration::ZERO).await;
                    (child.wait().await, false)
                }
            };
            let why = match is_expired {
                true => expired(),
                false => ended.termination(now_ms()),
            };
            self.ended(&key, boots, why, is_expired);
        });
    }

    /// A boot has ended without anybody's call.
    fn ended(&self, key: &Key, boots: u64, why: Termination, for_good: bool) {
        // Gone already, if it was deleted.
        let _ = self.update(key, |entry| {
            let runs = matches!(
                entry.sandbox.state(),
                SandboxState::Running | SandboxState::Paused
            );
            if entry.sandbox.boots == boots && runs {
                entry.sandbox.set_state(match for_good {
                    true => SandboxState::FailedState,
                    false => SandboxState::Stopped,
                });
                entry.sandbox.termination = Some(match entry.is_stopping && !for_good {
                    true => stopped(),
                    false => why,
                });
                entry.child = None;
            }
        });
    }

    pub(super) fn expire_time_ms(&self, key: &Key) -> u64 {
        let state = self.lock();
        let entry = state.sandboxes.get(key);
        entry.map_or(u64::MAX, |entry| entry.spec.expire_time_unix_ms)
    }
}

/// RUNNING, or FAILED if the supervisor cannot be started.
fn start(
    entry: &mut Entry,
    binary: Result<SupervisorBinary, SupervisorError>,
    token: Token,
    tasks: &TaskTracker,
) -> Option<Child> {
    let directory = &entry.callback_directory;
    let started = binary
        .map_err(|error| error.to_string())
        .and_then(|binary| {
            let (bootstrap, console) = (bootstrap(entry, token), entry.console.clone());
            Child::spawn(&binary, directory, &bootstrap, console, tasks)
                .map_err(|error| error.to_string())
        });
    match started {
        // Running first: a supervisor that ends at once was running all the same.
        Ok(child) => {
            running(entry, Some(child.clone()));
            Some(child)
        }
        Err(message) => {
            let reason = TerminationReason::SupervisorStartFailed;
            entry.sandbox.set_state(SandboxState::FailedState);
            entry.sandbox.termination = Some(termination(reason, message, now_ms()));
            None
        }
    }
}

fn running(entry: &mut Entry, child: Option<Child>) {
    entry.sandbox.set_state(SandboxState::Running);
    entry.sandbox.start_time_unix_ms = now_ms();
    entry.sandbox.platform_id = match &child {
        Some(child) => child.pid().to_string(),
        None => format!("record-{}", entry.number),
    };
    entry.child = child;
}

fn expired() -> Termination {
    termination(
        TerminationReason::Deadline,
        "the expire time has passed",
        now_ms(),
    )
}

fn bootstrap(entry: &Entry, token: Token) -> Bootstrap {
    let (uid, gid) = child::workload_ids(&entry.spec);
    let workspace = entry.workspace.to_string_lossy().into_owned();
    Bootstrap {
        sandbox_id: entry.sandbox.sandbox_id.clone(),
        token,
        expire_time_unix_ms: entry.spec.expire_time_unix_ms,
        workload: Workload {
            uid,
            gid,
            home: workspace.clone(),
            user: "sandbox".to_owned(),
        },
        workspace,
        oom_score_adj: OOM_SCORE_ADJ,
        environment: Default::default(),
    }
}
