//! A driver without a platform: sandboxes are records in memory, and plain child processes that run
//! the gateway's real supervisor. **It isolates nothing.**
//!
//! It is for tests of gateways, which get a third-party driver in a file, and for driver authors,
//! who get an example that is complete. Its sandboxes end with it; a driver for people keeps them.

mod boot;
mod child;
mod command;
mod console;
mod settings;
mod snapshot;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::capabilities::{driver_executed, fingerprint, passed, supervised, termination, warning};
use crate::context::{Call, Context};
use crate::driver::{
    ComputeDriver, CreateRequest, Created, DriverStream, Inventory, RecoverItem, Recovered,
};
use crate::error::DriverError;
use crate::handle::{self, HandleRecord};
use crate::proto::{
    Capabilities, FingerprintResponse, Handle, ImageSources, Isolation, NetworkClass,
    ReadConsoleRequest, Resources, RunCommandRequest, RunCommandResponse, Sandbox, SandboxSpec,
    SandboxState, SnapshotSandboxResponse, Termination, TerminationReason,
};
use crate::supervisor::{SupervisorCache, Token};
use crate::watch::Observations;
use child::Child;
use command::Command;
use console::Console;
pub use settings::FakeSettings;
use settings::SETTINGS_SCHEMA;
use snapshot::Snapshot;

/// What the fake does not do, said of each of its sandboxes.
const WEAKNESSES: [&str; 2] = [
    "this is the fake driver: processes of the sandbox are plain processes of the host",
    "the network and all limits are those of the host",
];

/// The fake driver.
#[derive(Debug, Clone)]
pub struct FakeDriver {
    context: Context,
    state: Arc<Mutex<State>>,
    supervisors: Arc<SupervisorCache>,
}

#[derive(Debug)]
struct State {
    /// Where the sandboxes' workspaces are; goes with the last user of the fake.
    workspaces: PathBuf,
    settings: FakeSettings,
    /// Of the present incarnation.
    observations: Observations,
    sandboxes: HashMap<Key, Entry>,
    /// By gateway and snapshot.
    snapshots: HashMap<Key, Snapshot>,
    /// How many were ever made.
    made: u64,
}

impl Drop for State {
    fn drop(&mut self) {
        // There is none if there never was a sandbox.
        let _ = std::fs::remove_dir_all(&self.workspaces);
    }
}

/// Gateway and sandbox.
type Key = (String, String);

#[derive(Debug)]
struct Entry {
    number: u64,
    sandbox: Sandbox,
    spec: SandboxSpec,
    digest: String,
    callback_directory: PathBuf,
    workspace: PathBuf,
    console: Console,
    child: Option<Child>,
    /// Somebody has asked for the end of this boot, which is why it ends.
    is_stopping: bool,
    /// By their ids; only of a driver that runs them itself.
    commands: HashMap<String, Command>,
}

impl Entry {
    /// Everything that runs in it.
    fn children(&self) -> Vec<Child> {
        let commands = self.commands.values().filter_map(Command::child);
        self.child.iter().chain(commands).cloned().collect()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct FakeHandle {
    incarnation: String,
}

impl HandleRecord for FakeHandle {
    const VERSION: u32 = 1;
}

impl FakeDriver {
    /// A fake without sandboxes.
    #[must_use]
    pub fn new(context: Context) -> Self {
        let workspaces = format!("cofferdam-fake-{}", context.incarnation);
        let state = State {
            workspaces: std::env::temp_dir().join(workspaces),
            settings: FakeSettings::default(),
            observations: context.observations.clone(),
            sandboxes: HashMap::new(),
            snapshots: HashMap::new(),
            made: 0,
        };
        Self {
            context,
            state: Arc::new(Mutex::new(state)),
            supervisors: Arc::default(),
        }
    }

    /// The same sandboxes in another incarnation: as a driver is that finds everything again after
    /// a restart of its process. From now on all is told to `context`.
    #[must_use]
    pub fn reincarnate(&self, context: Context) -> Self {
        let mut state = self.lock();
        state.observations = context.observations.clone();
        for ((gateway_id, _), entry) in &state.sandboxes {
            let sandbox = entry.sandbox.clone();
            state.observations.record(gateway_id, sandbox);
        }
        drop(state);
        Self {
            context,
            ..self.clone()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes an entry and tells the watchers, in one step, so that order is kept.
    fn update(&self, key: &Key, change: impl FnOnce(&mut Entry)) -> Result<Sandbox, DriverError> {
        let mut state = self.lock();
        let entry = state
            .sandboxes
            .get_mut(key)
            .ok_or_else(|| DriverError::sandbox_not_found(&key.1))?;
        change(entry);
        let sandbox = entry.sandbox.clone();
        state.observations.record(&key.0, sandbox.clone());
        Ok(sandbox)
    }

    /// Removes an entry unless something runs in it: that has to end first.
    fn remove_unless_living(&self, key: &Key) -> Vec<Child> {
        let mut state = self.lock();
        let children = state.sandboxes.get(key).map(Entry::children);
        let mut living = children.unwrap_or_default();
        living.retain(|child| !child.has_ended());
        if !living.is_empty() {
            return living;
        }
        let removed = state.sandboxes.remove(key);
        drop(state);
        if let Some(entry) = removed {
            let _ = std::fs::remove_dir_all(entry.workspace);
        }
        Vec::new()
    }

    /// Of workspaces and snapshots.
    fn directory(&self) -> PathBuf {
        self.lock().workspaces.clone()
    }

    /// Everything that runs in a sandbox.
    fn children(&self, key: &Key) -> Vec<Child> {
        let state = self.lock();
        let entry = state.sandboxes.get(key);
        entry.map(Entry::children).unwrap_or_default()
    }

    /// A new sandbox, or the one that there is under this id.
    async fn make(
        &self,
        call: &Call,
        request: CreateRequest,
        from: Option<&str>,
    ) -> Result<Created, DriverError> {
        let key = key(call, &request.sandbox_id);
        let known = {
            let state = self.lock();
            let entry = state.sandboxes.get(&key);
            entry.map(|entry| (entry.digest.clone(), entry.sandbox.clone()))
        };
        let sandbox = match known {
            Some((digest, sandbox)) => {
                request.digest.check(&digest, &key.1)?;
                sandbox
            }
            None => {
                if let Some(snapshot_id) = from {
                    let snapshot = self.snapshot_of(&(key.0.clone(), snapshot_id.to_owned()))?;
                    let workspace = self.directory().join(&key.1);
                    snapshot::copied(snapshot.directory, workspace).await?;
                }
                self.accept(&key, &request)?;
                self.boot(&key, call.gateway.supervisor.as_ref(), request.token)
                    .await?
            }
        };
        let handle = self.handle()?;
        Ok(Created { handle, sandbox })
    }

    /// From now on the end of this boot is one that was asked for.
    fn begin_stop(&self, key: &Key) -> Result<(), DriverError> {
        let mut state = self.lock();
        let entry = state.sandboxes.get_mut(key);
        let entry = entry.ok_or_else(|| DriverError::sandbox_not_found(&key.1))?;
        entry.is_stopping = entry.child.is_some();
        Ok(())
    }

    fn accept(&self, key: &Key, request: &CreateRequest) -> Result<(), DriverError> {
        let workspace = self.directory().join(&key.1);
        child::make_workspace(&workspace, &request.spec).map_err(|error| {
            DriverError::unavailable(format!("cannot make {}", workspace.display())).because(error)
        })?;
        let sandbox = Sandbox {
            sandbox_id: key.1.clone(),
            create_time_unix_ms: now_ms(),
            stream: "mount".to_owned(),
            weaknesses: WEAKNESSES.map(str::to_owned).to_vec(),
            ..Sandbox::default()
        };
        let mut state = self.lock();
        state.made += 1;
        let entry = Entry {
            number: state.made,
            sandbox,
            spec: request.spec.clone(),
            digest: request.digest.to_hex(),
            callback_directory: request.callback_directory.clone().unwrap_or_default(),
            workspace,
            console: Console::new(),
            child: None,
            is_stopping: false,
            commands: HashMap::new(),
        };
        state.sandboxes.insert(key.clone(), entry);
        Ok(())
    }
}

impl ComputeDriver for FakeDriver {
    const NAME: &'static str = "fake";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = FakeSettings;

    fn description(&self) -> String {
        "fake: plain child processes without any isolation, for tests; keeps nothing".to_owned()
    }

    fn settings_schema() -> &'static str {
        SETTINGS_SCHEMA
    }

    fn capabilities(&self) -> Capabilities {
        let runs_commands = self.lock().settings.run_commands;
        let base = match runs_commands {
            true => driver_executed(Isolation::NoIsolation),
            false => supervised(Isolation::NoIsolation),
        };
        Capabilities {
            images: Some(ImageSources {
                host: true,
                ..ImageSources::default()
            }),
            // Not restricted at all, which each sandbox's weaknesses say.
            networks: vec![NetworkClass::None.into(), NetworkClass::Open.into()],
            stop_start: true,
            pause: true,
            snapshot: true,
            console: true,
            command_files: runs_commands,
            ..base
        }
    }

    async fn configure(&self, settings: FakeSettings) -> Result<(), DriverError> {
        self.lock().settings = settings;
        Ok(())
    }

    async fn fingerprint(&self) -> FingerprintResponse {
        let sandboxes = self.lock().sandboxes.len() as u64;
        FingerprintResponse {
            used: Some(Resources {
                sandboxes: Some(sandboxes),
                ..Resources::default()
            }),
            ..fingerprint(vec![
                passed("processes", "child processes can be started"),
                warning(
                    "isolation",
                    "the fake driver isolates nothing",
                    "use a real driver",
                ),
            ])
        }
    }

    async fn create(&self, call: &Call, request: CreateRequest) -> Result<Created, DriverError> {
        self.make(call, request, None).await
    }

    async fn recover(&self, call: &Call, item: RecoverItem) -> Recovered {
        if let Some(sealed) = &item.handle
            && let Err(error) = handle::open::<FakeHandle>(sealed)
        {
            let message = error.to_string();
            return Recovered::Unknown { message };
        }
        match self.get(call, &item.sandbox_id).await {
            Ok(sandbox) => Recovered::Found {
                sandbox,
                handle: None,
            },
            Err(_) => Recovered::Gone {
                termination: None,
                message: "the fake driver keeps nothing over a restart".to_owned(),
            },
        }
    }

    async fn start(
        &self,
        call: &Call,
        sandbox_id: &str,
        token: Token,
    ) -> Result<Sandbox, DriverError> {
        let sandbox = self.get(call, sandbox_id).await?;
        let refused = |why, fix| DriverError::precondition("SANDBOX_STATE", sandbox_id, why, fix);
        match sandbox.state() {
            SandboxState::Stopped if self.expire_time_ms(&key(call, sandbox_id)) <= now_ms() => {
                let why = "the sandbox's expire time has passed";
                Err(refused(why, "delete it, and make a new one"))
            }
            SandboxState::Stopped => {
                let supervisor = call.gateway.supervisor.as_ref();
                self.boot(&key(call, sandbox_id), supervisor, token).await
            }
            SandboxState::FailedState | SandboxState::Deleting => Err(refused(
                "a sandbox that has failed cannot be started",
                "delete it",
            )),
            _ => Ok(sandbox),
        }
    }

    async fn stop(
        &self,
        call: &Call,
        sandbox_id: &str,
        grace: Duration,
    ) -> Result<Sandbox, DriverError> {
        let key = key(call, sandbox_id);
        self.begin_stop(&key)?;
        let ends = self.children(&key).into_iter().map(|child| async move {
            // Who is frozen could not hear that it is asked to end.
            child.thaw();
            child.kill(grace).await;
        });
        // Cancelled here, it is told as stopped by request when it has ended.
        join_all(ends).await;
        self.update(&key, |entry| {
            if matches!(
                entry.sandbox.state(),
                SandboxState::Creating | SandboxState::Running | SandboxState::Paused
            ) {
                entry.sandbox.set_state(SandboxState::Stopped);
                entry.sandbox.termination = Some(stopped());
                entry.child = None;
            }
        })
    }

    async fn delete(&self, call: &Call, sandbox_id: &str) -> Result<(), DriverError> {
        let key = key(call, sandbox_id);
        loop {
            let living = self.remove_unless_living(&key);
            if living.is_empty() {
                break;
            }
            join_all(living.iter().map(|child| child.kill(Duration::ZERO))).await;
        }
        Ok(())
    }

    async fn get(&self, call: &Call, sandbox_id: &str) -> Result<Sandbox, DriverError> {
        let state = self.lock();
        let entry = state.sandboxes.get(&key(call, sandbox_id));
        entry
            .map(|entry| entry.sandbox.clone())
            .ok_or_else(|| DriverError::sandbox_not_found(sandbox_id))
    }

    async fn list(&self, call: &Call) -> Result<Inventory, DriverError> {
        let state = self.lock();
        let ours = state
            .sandboxes
            .iter()
            .filter(|((owner, _), _)| owner == call.gateway_id());
        Ok(Inventory {
            sandboxes: ours.map(|(_, entry)| entry.sandbox.clone()).collect(),
            complete: true,
        })
    }

    async fn read_console(
        &self,
        call: &Call,
        request: ReadConsoleRequest,
    ) -> Result<DriverStream<Bytes>, DriverError> {
        let state = self.lock();
        let entry = state.sandboxes.get(&key(call, &request.sandbox_id));
        let entry = entry.ok_or_else(|| DriverError::sandbox_not_found(&request.sandbox_id))?;
        Ok(entry.console.read(request.tail_bytes, request.follow))
    }

    async fn run_command(
        &self,
        call: &Call,
        request: RunCommandRequest,
    ) -> Result<DriverStream<RunCommandResponse>, DriverError> {
        let mut state = self.lock();
        let entry = state.sandboxes.get_mut(&key(call, &request.sandbox_id));
        let entry = entry.ok_or_else(|| DriverError::sandbox_not_found(&request.sandbox_id))?;
        let command = match entry.commands.get(&request.command_id) {
            Some(command) => command.clone(),
            None if entry.sandbox.state() != SandboxState::Running => {
                return Err(state_refused(&entry.sandbox));
            }
            None => {
                let (spec, workspace) = (&entry.spec, &entry.workspace);
                let (tasks, shutdown) = (&self.context.tasks, &self.context.shutdown);
                let started = Command::start(&request, spec, workspace, tasks, shutdown);
                let command = started.map_err(|error| {
                    DriverError::unavailable("cannot place the command's files").because(error)
                })?;
                let id = request.command_id.clone();
                entry.commands.insert(id, command.clone());
                command
            }
        };
        Ok(command.attach(request.from_offset))
    }

    async fn pause(&self, call: &Call, sandbox_id: &str) -> Result<Sandbox, DriverError> {
        let sandbox = self.get(call, sandbox_id).await?;
        let key = key(call, sandbox_id);
        match sandbox.state() {
            SandboxState::Paused => Ok(sandbox),
            SandboxState::Running => {
                for child in self.children(&key) {
                    child.freeze();
                }
                self.update(&key, |entry| entry.sandbox.set_state(SandboxState::Paused))
            }
            _ => Err(state_refused(&sandbox)),
        }
    }

    async fn resume(&self, call: &Call, sandbox_id: &str) -> Result<Sandbox, DriverError> {
        let sandbox = self.get(call, sandbox_id).await?;
        let key = key(call, sandbox_id);
        match sandbox.state() {
            SandboxState::Running => Ok(sandbox),
            SandboxState::Paused => {
                for child in self.children(&key) {
                    child.thaw();
                }
                self.update(&key, |entry| entry.sandbox.set_state(SandboxState::Running))
            }
            _ => Err(state_refused(&sandbox)),
        }
    }

    async fn snapshot(
        &self,
        call: &Call,
        sandbox_id: &str,
        snapshot_id: &str,
    ) -> Result<SnapshotSandboxResponse, DriverError> {
        self.take(&key(call, sandbox_id), snapshot_id).await
    }

    async fn restore(
        &self,
        call: &Call,
        snapshot_id: &str,
        _handle: Option<Handle>,
        request: CreateRequest,
    ) -> Result<Created, DriverError> {
        self.make(call, request, Some(snapshot_id)).await
    }

    async fn delete_snapshot(
        &self,
        call: &Call,
        snapshot_id: &str,
        _handle: Option<Handle>,
    ) -> Result<(), DriverError> {
        let removed = self.lock().snapshots.remove(&key(call, snapshot_id));
        if let Some(snapshot) = removed {
            let _ = std::fs::remove_dir_all(snapshot.directory);
        }
        Ok(())
    }

    async fn shutdown(&self) {
        // The process may end without a drop.
        let _ = std::fs::remove_dir_all(self.directory());
    }
}

fn state_refused(sandbox: &Sandbox) -> DriverError {
    DriverError::precondition(
        "SANDBOX_STATE",
        &sandbox.sandbox_id,
        format!("the sandbox is {}", sandbox.state().as_str_name()),
        "start it, or wait until it runs",
    )
}

fn stopped() -> Termination {
    let reason = TerminationReason::StoppedByRequest;
    termination(reason, "stopped", now_ms())
}

fn key(call: &Call, sandbox_id: &str) -> Key {
    (call.gateway_id().to_owned(), sandbox_id.to_owned())
}

/// Now, in Unix milliseconds.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
