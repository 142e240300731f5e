//! A driver without a platform: sandboxes are records in memory, and plain child processes that run
//! the gateway's real supervisor. **It isolates nothing.**
//!
//! It is for tests of gateways, which get a third-party driver in a file, and for driver authors,
//! who get an example that is complete. Its sandboxes end with it; a driver for people keeps them.

mod boot;
mod child;
mod console;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::capabilities::{fingerprint, passed, supervised, termination, warning};
use crate::context::{Call, Context};
use crate::driver::{
    ComputeDriver, CreateRequest, Created, DriverStream, Inventory, RecoverItem, Recovered,
};
use crate::error::DriverError;
use crate::handle::{self, HandleRecord};
use crate::proto::{
    Capabilities, FingerprintResponse, ImageSources, Isolation, NetworkClass, ReadConsoleRequest,
    Resources, Sandbox, SandboxSpec, SandboxState, Termination, TerminationReason,
};
use crate::supervisor::{SupervisorCache, Token};
use crate::watch::Observations;
use child::Child;
use console::Console;

/// Settings of the fake.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FakeSettings {
    /// Whether a sandbox runs the gateway's supervisor. Otherwise it is only said to be running.
    pub run_supervisor: bool,
}

impl Default for FakeSettings {
    fn default() -> Self {
        Self {
            run_supervisor: true,
        }
    }
}

const SETTINGS_SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "run_supervisor": {
      "type": "boolean",
      "default": true,
      "description": "Run the gateway's supervisor as a plain child process in each sandbox."
    }
  }
}"#;

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

    /// Removes an entry unless it has a process that lives: that one has to end first.
    fn remove_without_process(&self, key: &Key) -> Option<Child> {
        let mut state = self.lock();
        let child = state.sandboxes.get(key)?.child.clone();
        if let Some(child) = child
            && !child.has_ended()
        {
            return Some(child);
        }
        let removed = state.sandboxes.remove(key);
        drop(state);
        if let Some(entry) = removed {
            let _ = std::fs::remove_dir_all(entry.workspace);
        }
        None
    }

    /// From now on the end of this boot is one that was asked for.
    fn begin_stop(&self, key: &Key) -> Result<Option<Child>, DriverError> {
        let mut state = self.lock();
        let entry = state.sandboxes.get_mut(key);
        let entry = entry.ok_or_else(|| DriverError::sandbox_not_found(&key.1))?;
        entry.is_stopping = entry.child.is_some();
        Ok(entry.child.clone())
    }

    fn accept(&self, key: &Key, request: &CreateRequest) -> Result<(), DriverError> {
        let workspace = self.lock().workspaces.join(&key.1);
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
        Capabilities {
            images: Some(ImageSources {
                host: true,
                ..ImageSources::default()
            }),
            // Not restricted at all, which each sandbox's weaknesses say.
            networks: vec![NetworkClass::None.into(), NetworkClass::Open.into()],
            stop_start: true,
            console: true,
            ..supervised(Isolation::NoIsolation)
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
        let key = key(call, &request.sandbox_id);
        let known = {
            let state = self.lock();
            state
                .sandboxes
                .get(&key)
                .map(|entry| (entry.digest.clone(), entry.sandbox.clone()))
        };
        let sandbox = match known {
            Some((digest, sandbox)) => {
                request.digest.check(&digest, &key.1)?;
                sandbox
            }
            None => {
                self.accept(&key, &request)?;
                self.boot(&key, call.gateway.supervisor.as_ref(), request.token)
                    .await?
            }
        };
        let handle = handle::seal(&FakeHandle {
            incarnation: self.context.incarnation.to_string(),
        })
        .map_err(|error| DriverError::internal("sealing a handle").because(error))?;
        Ok(Created { handle, sandbox })
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
        if let Some(child) = self.begin_stop(&key)? {
            // Cancelled here, it is told as stopped by request when it has ended.
            child.kill(grace).await;
        }
        self.update(&key, |entry| {
            if matches!(
                entry.sandbox.state(),
                SandboxState::Creating | SandboxState::Running
            ) {
                entry.sandbox.set_state(SandboxState::Stopped);
                entry.sandbox.termination = Some(stopped());
                entry.child = None;
            }
        })
    }

    async fn delete(&self, call: &Call, sandbox_id: &str) -> Result<(), DriverError> {
        let key = key(call, sandbox_id);
        while let Some(child) = self.remove_without_process(&key) {
            child.kill(Duration::ZERO).await;
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

    async fn shutdown(&self) {
        // The process may end without a drop.
        let _ = std::fs::remove_dir_all(&self.lock().workspaces);
    }
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
