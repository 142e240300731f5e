//! The least that makes a driver: the seven methods that have no default, for a platform that is
//! nothing but child processes. **No isolation, and its sandboxes end with it**: for reading, and for
//! trying things out. `cargo xtask new-driver` writes one to build on.
//!
//! ```sh
//! cargo run -p cofferdam-driver-sdk --example smallest_driver -- --socket /tmp/smallest/driver.sock
//! cofferdam run --embedded --compute-driver-socket smallest=/tmp/smallest/driver.sock \
//!     --driver smallest --network open -- echo hello
//! ```
//!
//! Missing, and why that is not enough: a record on disk, so that the next driver finds what this one
//! has made; somebody who outlives the driver and enforces the deadline (here the supervisor does it
//! alone, and it can be killed); stop and start; the console.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cofferdam_driver_sdk::capabilities::{fingerprint, supervised, termination, warning};
use cofferdam_driver_sdk::proto::{
    Capabilities, FingerprintResponse, ImageSources, Isolation, NetworkClass, Sandbox,
    SandboxState, Termination, TerminationReason as Reason,
};
use cofferdam_driver_sdk::supervisor::{Bootstrap, OOM_SCORE_ADJ, SupervisorCache, Workload};
use cofferdam_driver_sdk::{
    Call, ComputeDriver, Context, CreateRequest, Created, DriverError, Inventory, RecoverItem,
    Recovered, handle,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    cofferdam_driver_sdk::run(|context| {
        Smallest(Arc::new(State {
            context,
            sandboxes: Mutex::default(),
            supervisors: Arc::default(),
        }))
    })
}

/// A gateway, and its name for a sandbox: another gateway may use the same.
type Key = (String, String);

struct Smallest(Arc<State>);

struct State {
    context: Context,
    sandboxes: Mutex<HashMap<Key, Entry>>,
    supervisors: Arc<SupervisorCache>,
}

struct Entry {
    sandbox: Sandbox,
    digest: String,
    /// Ends the process, and is followed by `ended`.
    kill: CancellationToken,
    ended: CancellationToken,
}

/// This driver has no settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

/// What this driver wants back: whose sandbox it was.
#[derive(Serialize, Deserialize)]
struct Incarnation(String);

impl handle::HandleRecord for Incarnation {
    const VERSION: u32 = 1;
}

impl State {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.sandboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of a sandbox and tells those who watch, in one step: they get it in
    /// this order.
    fn tell(&self, key: &Key, change: impl FnOnce(&mut Sandbox)) {
        if let Some(entry) = self.lock().get_mut(key) {
            change(&mut entry.sandbox);
            self.context
                .observations
                .record(&key.0, entry.sandbox.clone());
        }
    }

    /// How a sandbox is ended, and when it has.
    fn ending(&self, key: &Key) -> Option<(CancellationToken, CancellationToken)> {
        let sandboxes = self.lock();
        let entry = sandboxes.get(key)?;
        Some((entry.kill.clone(), entry.ended.clone()))
    }

    /// Of this process alone, like everything that it makes.
    fn workspace(&self, id: &str) -> PathBuf {
        let own = format!("cofferdam-smallest-{}", std::process::id());
        std::env::temp_dir().join(own).join(id)
    }

    fn created(&self, sandbox: Sandbox) -> Result<Created, DriverError> {
        let handle = handle::seal(&Incarnation(self.context.incarnation.to_string()))
            .map_err(|error| DriverError::internal("making a handle").because(error))?;
        Ok(Created { handle, sandbox })
    }

    /// Starts the supervisor of a new sandbox, and follows it to its end. Without an await: a call
    /// that is dropped leaves all of it or nothing.
    fn start(self: &Arc<Self>, key: Key, request: &CreateRequest, program: &str) -> io::Result<()> {
        let workspace = self.workspace(&key.1);
        std::fs::create_dir_all(&workspace)?;
        let child = spawn(program, request, &workspace)?;
        let (kill, ended) = (CancellationToken::new(), CancellationToken::new());
        let entry = Entry {
            sandbox: running(&key.1),
            digest: request.digest.to_hex(),
            kill: kill.clone(),
            ended: ended.clone(),
        };
        self.lock().insert(key.clone(), entry);
        self.tell(&key, |_| {});
        let (state, expires_ms) = (Arc::clone(self), request.spec.expire_time_unix_ms);
        self.context.tasks.spawn(async move {
            let why = end(child, expires_ms, &kill).await;
            state.tell(&key, |sandbox| {
                let is_final = why.reason() == Reason::Deadline;
                let end = if is_final {
                    SandboxState::FailedState
                } else {
                    SandboxState::Stopped
                };
                sandbox.state = end.into();
                sandbox.termination = Some(why);
            });
            ended.cancel();
        });
        Ok(())
    }
}

impl ComputeDriver for Smallest {
    const NAME: &'static str = "smallest";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;

    fn description(&self) -> String {
        "child processes, NO ISOLATION, gone with the driver; an example".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            images: Some(ImageSources {
                host: true,
                ..ImageSources::default()
            }),
            networks: vec![NetworkClass::Open.into()],
            ..supervised(Isolation::NoIsolation)
        }
    }

    async fn configure(&self, _settings: Settings) -> Result<(), DriverError> {
        Ok(())
    }

    async fn fingerprint(&self) -> FingerprintResponse {
        let what = "there is none, and sandboxes end with the driver: an example";
        fingerprint(vec![warning("isolation", what, "use another driver")])
    }

    async fn create(&self, call: &Call, request: CreateRequest) -> Result<Created, DriverError> {
        let state = &self.0;
        let id = request.sandbox_id.clone();
        let key = (call.gateway_id().to_owned(), id.clone());
        // The SDK lets in one create at a time for a sandbox: nobody makes it meanwhile.
        let known = state.lock().get(&key).map(|entry| entry.digest.clone());
        match known {
            Some(digest) => request.digest.check(&digest, &id)?,
            None => {
                let (cache, gateway) = (Arc::clone(&state.supervisors), Arc::clone(&call.gateway));
                let supervisor = tokio::task::spawn_blocking(move || {
                    cache.open(gateway.supervisor.as_ref(), None)
                });
                let supervisor = supervisor.await.map_err(|died| {
                    DriverError::internal("reading the supervisor").because(died)
                })??;
                // The verified bytes, in memory of this process.
                let fd = supervisor.as_fd().as_raw_fd();
                let program = format!("/proc/{}/fd/{fd}", std::process::id());
                let started = state.start(key, &request, &program);
                started.map_err(|error| {
                    DriverError::unavailable("the sandbox cannot be started").because(error)
                })?;
            }
        }
        state.created(self.get(call, &id).await?)
    }

    async fn recover(&self, call: &Call, item: RecoverItem) -> Recovered {
        if let Some(sealed) = &item.handle
            && let Err(error) = handle::open::<Incarnation>(sealed)
        {
            // Of another driver, perhaps of a newer one: nobody can tell here what became of it.
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
                message: "sandboxes end with this driver".to_owned(),
            },
        }
    }

    async fn delete(&self, call: &Call, id: &str) -> Result<(), DriverError> {
        let key = (call.gateway_id().to_owned(), id.to_owned());
        let Some((kill, ended)) = self.0.ending(&key) else {
            return Ok(());
        };
        kill.cancel();
        // Dropped here, the entry is still known, and the next call goes on.
        ended.cancelled().await;
        match std::fs::remove_dir_all(self.0.workspace(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(DriverError::unavailable("the workspace stays").because(error));
            }
            _ => {}
        }
        self.0.lock().remove(&key);
        Ok(())
    }

    async fn get(&self, call: &Call, id: &str) -> Result<Sandbox, DriverError> {
        let key = (call.gateway_id().to_owned(), id.to_owned());
        let found = self.0.lock().get(&key).map(|entry| entry.sandbox.clone());
        found.ok_or_else(|| DriverError::sandbox_not_found(id))
    }

    async fn list(&self, call: &Call) -> Result<Inventory, DriverError> {
        let sandboxes = self.0.lock();
        let own = sandboxes
            .iter()
            .filter(|((gateway, _), _)| gateway == call.gateway_id());
        Ok(Inventory {
            sandboxes: own.map(|(_, entry)| entry.sandbox.clone()).collect(),
            complete: true,
        })
    }
}

/// The supervisor as a child, with its bootstrap in stdin: docs/supervisor.md.
fn spawn(program: &str, request: &CreateRequest, workspace: &Path) -> io::Result<Child> {
    let callback = request
        .callback_directory
        .as_deref()
        .unwrap_or(Path::new(""));
    let (reader, mut writer) = io::pipe()?;
    let child = Command::new(program)
        .args([
            "--callback",
            &format!("dir:{}", callback.display()),
            "--config-stdin",
        ])
        .env_clear()
        .stdin(reader)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let uid = rustix::process::geteuid();
    let (uid, gid) = match uid.is_root() {
        true => (request.spec.uid, request.spec.gid),
        // Nobody but root can choose.
        false => (uid.as_raw(), rustix::process::getegid().as_raw()),
    };
    std::os::unix::fs::chown(workspace, Some(uid), Some(gid))?;
    let workspace = workspace.display().to_string();
    let bootstrap = Bootstrap {
        sandbox_id: request.sandbox_id.clone(),
        token: request.token.clone(),
        expire_time_unix_ms: request.spec.expire_time_unix_ms,
        workload: Workload {
            uid,
            gid,
            home: workspace.clone(),
            user: "sandbox".to_owned(),
        },
        workspace,
        environment: BTreeMap::new(),
        oom_score_adj: OOM_SCORE_ADJ,
    };
    // At most 64 KiB, which a pipe takes.
    writer.write_all(bootstrap.to_json().as_bytes())?;
    writer.write_all(b"\n")?;
    Ok(child)
}

fn running(id: &str) -> Sandbox {
    Sandbox {
        sandbox_id: id.to_owned(),
        state: SandboxState::Running.into(),
        create_time_unix_ms: now_ms(),
        start_time_unix_ms: now_ms(),
        boots: 1,
        stream: "directory".to_owned(),
        weaknesses: vec!["NO ISOLATION, and no limits".to_owned()],
        ..Sandbox::default()
    }
}

/// Waits for the supervisor's end, or brings it about.
async fn end(mut child: Child, expires_ms: u64, kill: &CancellationToken) -> Termination {
    let left = Duration::from_millis(expires_ms.saturating_sub(now_ms()));
    let is_late = tokio::select! {
        status = child.wait() => return own_end(status.ok(), expires_ms),
        () = kill.cancelled() => false,
        () = tokio::time::sleep(left) => true,
    };
    // Asked twice, it kills what it has started at once, and ends.
    let pid = child
        .id()
        .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid {
        // A child that was not waited for: the pid is no one else's.
        let _ = kill_process(pid, Signal::TERM);
        let _ = kill_process(pid, Signal::INT);
    }
    // One that does not listen is killed.
    if tokio::time::timeout(Duration::from_secs(5), child.wait())
        .await
        .is_err()
    {
        let _ = child.kill().await;
    }
    match is_late {
        true => termination(Reason::Deadline, "the expire time has passed", now_ms()),
        false => termination(Reason::StoppedByRequest, "it is being deleted", now_ms()),
    }
}

fn own_end(status: Option<ExitStatus>, expires_ms: u64) -> Termination {
    let (code, signal) = (
        status.and_then(|status| status.code()),
        status.and_then(|status| status.signal()),
    );
    let reason = match (code, signal) {
        // It knows the expire time as well, and may be first.
        _ if now_ms() >= expires_ms => Reason::Deadline,
        (Some(_), _) => Reason::Exited,
        (None, Some(_)) => Reason::Signaled,
        (None, None) => Reason::PlatformLost,
    };
    Termination {
        exit_code: code.unwrap_or_default(),
        signal: signal.map_or(0, i32::unsigned_abs),
        ..termination(reason, "the supervisor ended by itself", now_ms())
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
