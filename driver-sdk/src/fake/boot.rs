//! One boot of a fake sandbox: from the supervisor's start to its end.

use std::sync::Arc;
use std::time::Duration;

use super::child::{self, Child};
use super::{Entry, FakeDriver, Key, now_ms, stopped};
use crate::capabilities::termination;
use crate::error::DriverError;
use crate::proto::{Sandbox, SandboxState, Supervisor, Termination, TerminationReason};
use crate::supervisor::{Bootstrap, OOM_SCORE_ADJ, Token, Workload};

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
        let run_supervisor = self.lock().settings.run_supervisor;
        let creating = self.update(key, |entry| {
            entry.sandbox.boots += 1;
            entry.sandbox.set_state(SandboxState::Creating);
            entry.sandbox.termination = None;
            entry.is_stopping = false;
        })?;
        if !run_supervisor {
            let running = self.running(key, None)?;
            self.clone().watch_record(key.clone(), creating.boots);
            return Ok(running);
        }
        let supervisors = Arc::clone(&self.supervisors);
        let binary =
            tokio::task::spawn_blocking(move || supervisors.open(supervisor.as_ref(), None))
                .await
                .map_err(|error| DriverError::internal("reading the supervisor").because(error))?;
        let started = {
            let mut state = self.lock();
            let entry = state
                .sandboxes
                .get_mut(key)
                .ok_or_else(|| DriverError::sandbox_not_found(&key.1))?;
            match &binary {
                Ok(binary) => Child::spawn(
                    binary,
                    &entry.callback_directory,
                    &bootstrap(entry, token),
                    entry.console.clone(),
                    &self.context.tasks,
                )
                .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        };
        match started {
            Ok(child) => {
                // Running first: a supervisor that ends at once was running all the same.
                let running = self.running(key, Some(child.clone()))?;
                self.clone().watch_child(key.clone(), child, creating.boots);
                Ok(running)
            }
            Err(message) => self.update(key, |entry| {
                let reason = TerminationReason::SupervisorStartFailed;
                entry.sandbox.set_state(SandboxState::FailedState);
                entry.sandbox.termination = Some(termination(reason, message, now_ms()));
            }),
        }
    }

    fn running(&self, key: &Key, child: Option<Child>) -> Result<Sandbox, DriverError> {
        self.update(key, |entry| {
            entry.sandbox.set_state(SandboxState::Running);
            entry.sandbox.start_time_unix_ms = now_ms();
            entry.sandbox.platform_id = match &child {
                Some(child) => child.pid().to_string(),
                None => format!("record-{}", entry.number),
            };
            entry.child = child;
        })
    }

    /// Waits for the expire time of a boot that has no process.
    fn watch_record(self, key: Key, boots: u64) {
        let tasks = self.context.tasks.clone();
        tasks.spawn(async move {
            let expire_ms = self.expire_time_ms(&key);
            let lifetime = Duration::from_millis(expire_ms.saturating_sub(now_ms()));
            tokio::select! {
                () = tokio::time::sleep(lifetime) => self.ended(&key, boots, expired(), true),
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
            if entry.sandbox.boots == boots && entry.sandbox.state() == SandboxState::Running {
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
