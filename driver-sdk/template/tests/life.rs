//! A sandbox's life on this platform, without a gateway: what the conformance suite asks of every
//! driver is asked there; here is what only this one promises.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cofferdam_driver_sdk::proto::{
    ResourceLimits, Sandbox, SandboxSpec, SandboxState, Supervisor, TerminationReason,
};
use cofferdam_driver_sdk::spec::SpecDigest;
use cofferdam_driver_sdk::supervisor::Token;
use cofferdam_driver_sdk::{
    Call, ComputeDriver, Context, CreateRequest, Created, GatewayIdentity, RecoverItem, Recovered,
};
use cofferdam_driver_skeleton::config::{Settings, Surroundings};
use cofferdam_driver_skeleton::driver::SandboxDriver;
use rustix::process::{Pid, Signal, kill_process};

/// Stands in for a supervisor: takes its bootstrap, leaves children, and ends when it is asked to.
const SUPERVISOR: &str = "#!/bin/sh
echo started >&2
wc -c < /proc/self/fd/$4 > got
sleep 1000 & (sleep 1000 &)
trap 'exit 0' TERM
sleep 1000 & wait
";

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Workloads of another user pass through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let supervisor = dir.path().join("supervisor");
        fs::write(&supervisor, SUPERVISOR).unwrap();
        Self { dir }
    }

    fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.dir.path().join("state/sandboxes").join(id)
    }

    /// A driver as it starts here; the one before it may still be there, or be gone.
    async fn driver(&self) -> Driver {
        let here = Surroundings {
            state_dir: Some(self.dir.path().join("state")),
            program: Some(env!("CARGO_BIN_EXE_cofferdam-driver-skeleton").into()),
        };
        let context = Context::new();
        let driver = SandboxDriver::new(context.clone(), here);
        driver.configure(Settings::default()).await.unwrap();
        Driver {
            driver,
            context,
            call: self.call(),
        }
    }

    fn call(&self) -> Call {
        let supervisor = self.dir.path().join("supervisor");
        let sha256 = sha256_of(&supervisor);
        let gateway = GatewayIdentity {
            id: "gw-test".to_owned(),
            version: "0.0.0".to_owned(),
            supervisor: Some(Supervisor {
                path: supervisor.display().to_string(),
                sha256: sha256.into(),
                ..Supervisor::default()
            }),
            contract: 1,
        };
        Call {
            gateway: Arc::new(gateway),
            operation_id: String::new(),
            deadline: None,
        }
    }
}

/// By the program that every system has, rather than by one more dependency.
fn sha256_of(path: &Path) -> Vec<u8> {
    let output = std::process::Command::new("sha256sum").arg(path).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let digits = text.split_whitespace().next().unwrap();
    let byte = |index| u8::from_str_radix(&digits[index..index + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

struct Driver {
    driver: SandboxDriver,
    context: Context,
    call: Call,
}

impl Driver {
    async fn create(&self, id: &str, expires_in: Duration) -> Created {
        let spec = SandboxSpec {
            uid: 1000,
            gid: 1000,
            expire_time_unix_ms: unix_ms() + expires_in.as_millis() as u64,
            limits: Some(ResourceLimits::default()),
            ..SandboxSpec::default()
        };
        let request = CreateRequest {
            sandbox_id: id.to_owned(),
            digest: SpecDigest::of(&spec),
            spec,
            callback_directory: Some("/nowhere".into()),
            token: Token::from_slice(&[7; 32]).unwrap(),
        };
        self.driver.create(&self.call, request).await.unwrap()
    }

    async fn get(&self, id: &str) -> Sandbox {
        self.driver.get(&self.call, id).await.unwrap()
    }

    /// As it is reported, without anybody asking the platform.
    async fn reported(&self, id: &str, wanted: SandboxState) -> Sandbox {
        within("it is reported", || {
            let seen = self.context.observations.current("gw-test", id)?;
            (seen.state() == wanted).then_some(seen)
        })
        .await
    }

    async fn delete(&self, id: &str) {
        self.driver.delete(&self.call, id).await.unwrap();
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis() as u64
}

const HOUR: Duration = Duration::from_secs(3600);

async fn within<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(found) = found() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 30 s: {what}");
}

/// Pids of all processes whose working directory is the sandbox's workspace.
fn members(place: &Place, id: &str) -> Vec<String> {
    let workspace = place.sandbox_dir(id).join("workspace");
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| {
        // One that was removed shows as "… (deleted)".
        let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        cwd.to_string_lossy()
            .starts_with(&*workspace.to_string_lossy())
    })
    .map(|entry| entry.file_name().to_string_lossy().into_owned())
    .collect()
}

async fn has_started(place: &Place, id: &str) {
    // The supervisor, its two children and the grandchild that lost its parent.
    within("all its processes run", || {
        (members(place, id).len() >= 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_sandbox_survives_its_driver_and_is_found_again() {
    let place = Place::new();
    let first = place.driver().await;
    let created = first.create("sbx-1", HOUR).await;
    assert_eq!(created.sandbox.state(), SandboxState::Running);
    has_started(&place, "sbx-1").await;
    // As if it had been killed: nobody is told, nothing is flushed.
    first.context.shutdown.cancel();
    drop(first);

    let second = place.driver().await;
    let found = second.reported("sbx-1", SandboxState::Running).await;
    assert_eq!(found.platform_id, created.sandbox.platform_id);
    let item = RecoverItem {
        sandbox_id: "sbx-1".to_owned(),
        handle: Some(created.handle),
        callback_directory: None,
    };
    let recovered = second.driver.recover(&second.call, item.clone()).await;
    assert!(
        matches!(recovered, Recovered::Found { .. }),
        "{recovered:?}"
    );
    let inventory = second.driver.list(&second.call).await.unwrap();
    assert_eq!((inventory.sandboxes.len(), inventory.complete), (1, true));

    second.delete("sbx-1").await;
    second.delete("sbx-1").await;
    assert_eq!(members(&place, "sbx-1"), [] as [String; 0]);
    assert!(!place.sandbox_dir("sbx-1").exists());
    let recovered = second.driver.recover(&second.call, item).await;
    assert!(matches!(recovered, Recovered::Gone { .. }), "{recovered:?}");
}

#[tokio::test]
async fn a_repeated_create_is_the_same_sandbox() {
    let place = Place::new();
    let driver = place.driver().await;
    let first = driver.create("sbx-1", HOUR).await;
    let request = |spec: SandboxSpec| CreateRequest {
        sandbox_id: "sbx-1".to_owned(),
        digest: SpecDigest::of(&spec),
        spec,
        callback_directory: Some("/nowhere".into()),
        token: Token::from_slice(&[7; 32]).unwrap(),
    };
    let other = request(SandboxSpec::default());
    let refused = driver.driver.create(&driver.call, other).await;
    assert!(refused.unwrap_err().to_string().contains("another spec"));
    let seen = driver.get("sbx-1").await;
    assert_eq!(seen.platform_id, first.sandbox.platform_id);
    driver.delete("sbx-1").await;
}

#[tokio::test]
async fn the_deadline_holds_while_no_driver_runs() {
    let place = Place::new();
    let first = place.driver().await;
    short_lived(&place, &first).await;
    first.context.shutdown.cancel();
    drop(first);
    within("everything has ended", || {
        members(&place, "sbx-1").is_empty().then_some(())
    })
    .await;
    let second = place.driver().await;
    let ended = second.reported("sbx-1", SandboxState::FailedState).await;
    let why = ended.termination.unwrap();
    assert_eq!(why.reason(), TerminationReason::Deadline, "{why:?}");
    second.delete("sbx-1").await;
}

/// One that has begun before it is over. How long that takes is the machine's business.
async fn short_lived(place: &Place, driver: &Driver) {
    for lifetime_s in [2, 8, 32] {
        let lifetime = Duration::from_secs(lifetime_s);
        driver.create("sbx-1", lifetime).await;
        let has_begun = tokio::time::timeout(lifetime, has_started(place, "sbx-1")).await;
        if has_begun.is_ok() {
            return;
        }
        driver.delete("sbx-1").await;
    }
    panic!("no sandbox has started within its lifetime");
}

#[tokio::test]
async fn what_is_stopped_fails_at_its_deadline_and_is_not_started() {
    let place = Place::new();
    let driver = place.driver().await;
    driver.create("sbx-1", Duration::from_secs(3)).await;
    let stopped = driver.driver.stop(&driver.call, "sbx-1", Duration::ZERO);
    stopped.await.unwrap();
    let failed = driver.reported("sbx-1", SandboxState::FailedState).await;
    let why = failed.termination.unwrap();
    assert_eq!(why.reason(), TerminationReason::Deadline, "{why:?}");
    let token = Token::from_slice(&[8; 32]).unwrap();
    let refused = driver.driver.start(&driver.call, "sbx-1", token).await;
    assert!(refused.unwrap_err().to_string().contains("expire time"));
    driver.delete("sbx-1").await;
}

#[tokio::test]
async fn stop_ends_the_whole_tree_and_start_is_a_new_boot() {
    let place = Place::new();
    let driver = place.driver().await;
    driver.create("sbx-1", HOUR).await;
    has_started(&place, "sbx-1").await;
    let grace = Duration::from_secs(10);
    let stopped = driver.driver.stop(&driver.call, "sbx-1", grace).await;
    let stopped = stopped.unwrap();
    assert_eq!(stopped.state(), SandboxState::Stopped);
    assert_eq!(members(&place, "sbx-1"), [] as [String; 0]);
    let why = stopped.termination.unwrap();
    assert_eq!(why.reason(), TerminationReason::StoppedByRequest);

    // The workspace is kept.
    let file = place.sandbox_dir("sbx-1").join("workspace/mine");
    fs::write(&file, "kept").unwrap();
    let token = Token::from_slice(&[8; 32]).unwrap();
    let started = driver.driver.start(&driver.call, "sbx-1", token).await;
    let started = started.unwrap();
    assert_eq!(started.state(), SandboxState::Running);
    assert_eq!(started.boots, 2);
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    driver.delete("sbx-1").await;
}

#[tokio::test]
async fn what_ends_by_itself_is_reported_without_being_asked_for() {
    let place = Place::new();
    let driver = place.driver().await;
    driver.create("sbx-1", HOUR).await;
    has_started(&place, "sbx-1").await;
    let keeper: i32 = driver.get("sbx-1").await.platform_id.parse().unwrap();
    kill_process(child_of(keeper), Signal::KILL).unwrap();
    let ended = driver.reported("sbx-1", SandboxState::Stopped).await;
    let why = ended.termination.unwrap();
    assert_eq!(why.reason(), TerminationReason::Signaled);
    assert_eq!(why.signal, 9);
    // Whatever it had started has ended with it.
    assert_eq!(members(&place, "sbx-1"), [] as [String; 0]);
    driver.delete("sbx-1").await;
}

/// The oldest: the orphans that it adopts are younger.
fn child_of(parent: i32) -> Pid {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let children = pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which is in parentheses: the state and the parent.
        let after = stat.rsplit(')').next().unwrap_or_default();
        after.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    });
    Pid::from_raw(children.min().unwrap()).unwrap()
}

#[tokio::test]
async fn a_supervisor_that_cannot_be_started_leaves_nothing() {
    let place = Place::new();
    fs::write(place.dir.path().join("supervisor"), "#!/nonexistent\n").unwrap();
    let driver = place.driver().await;
    let spec = SandboxSpec {
        expire_time_unix_ms: unix_ms() + 60_000,
        ..SandboxSpec::default()
    };
    let request = CreateRequest {
        sandbox_id: "sbx-1".to_owned(),
        digest: SpecDigest::of(&spec),
        spec,
        callback_directory: None,
        token: Token::from_slice(&[7; 32]).unwrap(),
    };
    let error = driver
        .driver
        .create(&driver.call, request)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("could not be started"),
        "{error}"
    );
    assert!(!place.sandbox_dir("sbx-1").exists());
    let inventory = driver.driver.list(&driver.call).await.unwrap();
    assert_eq!(inventory.sandboxes, []);
}
