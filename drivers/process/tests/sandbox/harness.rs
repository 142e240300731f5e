//! Launches sandboxes with the stand-in init and runs shell probes in them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cofferdam_driver_process::cgroup::{CgroupLimits, CgroupParent};
use cofferdam_driver_process::ids::IdBlocks;
use cofferdam_driver_process::launch::{
    Bootstrap, LaunchError, Launcher, LauncherConfig, SandboxLimits, SandboxPlan, ShimControl,
    ShimHandle, destroy, list,
};
use cofferdam_driver_process::sandbox::plan::{Network, Workload};
use cofferdam_driver_sdk::supervisor::SupervisorBinary;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Bounds every wait of a test.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const MIB: u64 = 1024 * 1024;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Everything one test needs, removed at its end.
pub(crate) struct Bench {
    pub(crate) launcher: Launcher,
    cgroups: CgroupParent,
    pub(crate) dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with_supervisor(&stand_in())
    }

    pub(crate) fn with_supervisor(supervisor: &Path) -> Self {
        Self::make(supervisor, None)
    }

    /// State in a directory of somebody else's, which is told where the rest of the bench is.
    pub(crate) fn with_state_root(supervisor: &Path, state_root: PathBuf) -> Self {
        let bench = Self::make(supervisor, Some(state_root.clone()));
        fs::write(state_root.join("bench"), bench.dir.path().to_str().unwrap()).unwrap();
        bench
    }

    fn make(supervisor: &Path, state_root: Option<PathBuf>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::Builder::new()
            .prefix("cofferdam-test-")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let cgroups = if let Some(parent) = std::env::var_os("COFFERDAM_TEST_CGROUP") {
            CgroupParent::detect(Some(Path::new(&parent)))
        } else if is_root() {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("cofferdam-test-{}-{number}", std::process::id());
            CgroupParent::detect(Some(Path::new(&name)))
        } else {
            CgroupParent::absent("not delegated to this test", "run it as root")
        };
        let launcher = Launcher::new(LauncherConfig {
            shim: shim(),
            state_root: state_root.unwrap_or_else(|| dir.path().join("state")),
            ids: is_root().then(|| IdBlocks::new(dir.path().join("ids"))),
            cgroups: cgroups.clone(),
            supervisor: SupervisorBinary::unchecked(supervisor).unwrap(),
            timeout: LIMIT,
        });
        Bench {
            launcher: launcher.unwrap(),
            cgroups,
            dir,
        }
    }

    /// A plan with ordinary bounds.
    pub(crate) fn plan(&self, id: &str) -> SandboxPlan {
        let callback_dir = self.dir.path().join(format!("callback-{id}"));
        fs::create_dir_all(&callback_dir).unwrap();
        SandboxPlan {
            sandbox_id: id.to_owned(),
            callback_dir,
            workload: Workload {
                uid: 1000,
                gid: 1000,
                user: "sandbox".to_owned(),
            },
            limits: SandboxLimits {
                cgroup: CgroupLimits {
                    memory_bytes: Some(256 * MIB),
                    pids: Some(128),
                    cpu_millis: Some(2000),
                },
                tmp_bytes: 8 * MIB,
                workspace_bytes: 64 * MIB,
            },
            network: Network::None,
            binds: Vec::new(),
            hostname: "inside".to_owned(),
            expire_time_unix_ms: 0,
        }
    }

    pub(crate) async fn launch(&self, plan: &SandboxPlan) -> Result<TestSandbox<'_>, LaunchError> {
        let socket = plan.callback_dir.join("gateway.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
        fs::set_permissions(&plan.callback_dir, fs::Permissions::from_mode(0o755)).unwrap();
        let handle = self
            .launcher
            .launch(plan, &bootstrap(&plan.sandbox_id))
            .await?;
        Ok(TestSandbox {
            _bench: self,
            handle,
            listener,
            session: None,
        })
    }

    /// An ordinary sandbox.
    pub(crate) async fn sandbox(&self) -> TestSandbox<'_> {
        match self.launch(&self.plan("sbx-test")).await {
            Ok(sandbox) => sandbox,
            Err(error) => panic!("{error}: {:?}; {:?}", error, error.hint()),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A test that failed leaves its sandboxes; its runtime may be gone already.
        let left = list(self.launcher.state_root()).unwrap_or_default();
        if !left.is_empty() {
            let end = move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime.unwrap().block_on(async {
                    for dir in left {
                        let _ = destroy(&dir, LIMIT).await;
                    }
                });
            };
            let _ = std::thread::spawn(end).join();
        }
        // A parent that was handed in belongs to whoever made it.
        if std::env::var_os("COFFERDAM_TEST_CGROUP").is_none() {
            for dir in self.cgroups.dirs() {
                let _ = fs::remove_dir(dir);
            }
        }
    }
}

pub(crate) fn bootstrap(sandbox_id: &str) -> Bootstrap {
    let workload = json!({ "uid": 1000, "gid": 1000, "home": "/workspace", "user": "sandbox" });
    let token = "0123456789abcdef".repeat(4);
    Bootstrap::new(
        json!({ "sandbox_id": sandbox_id, "token": token, "workload": workload }).to_string(),
    )
}

/// A sandbox that stands, and the gateway's end of its session.
pub(crate) struct TestSandbox<'a> {
    _bench: &'a Bench,
    pub(crate) handle: ShimHandle,
    listener: UnixListener,
    session: Option<BufReader<UnixStream>>,
}

/// What a probe said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i64>,
    pub(crate) signal: Option<i64>,
    pub(crate) output: String,
}

impl TestSandbox<'_> {
    pub(crate) fn control(&self) -> ShimControl {
        ShimControl::new(&self.handle.state_dir)
    }

    /// Runs a script as the workload and returns its trimmed output, which must be a success's.
    pub(crate) async fn sh(&mut self, script: &str) -> String {
        let answer = self.run("workload", script).await;
        assert_eq!(answer.code, Some(0), "{script}: {answer:?}");
        answer.output.trim().to_owned()
    }

    /// Runs a script as the workload and expects it to fail.
    pub(crate) async fn fails(&mut self, script: &str) -> String {
        let answer = self.run("workload", script).await;
        assert_ne!(answer.code, Some(0), "{script} succeeded: {answer:?}");
        answer.output.trim().to_owned()
    }

    pub(crate) async fn run(&mut self, who: &str, script: &str) -> Answer {
        tokio::time::timeout(LIMIT, self.exchange(who, script))
            .await
            .expect("a probe hangs")
    }

    async fn exchange(&mut self, who: &str, script: &str) -> Answer {
        if self.session.is_none() {
            self.session = Some(BufReader::new(self.listener.accept().await.unwrap().0));
        }
        let session = self.session.as_mut().unwrap();
        let request = format!("{}\n", json!({ "as": who, "script": script }));
        session
            .get_mut()
            .write_all(request.as_bytes())
            .await
            .unwrap();
        let mut line = String::new();
        session.read_line(&mut line).await.unwrap();
        let answer: Value = serde_json::from_str(&line).expect("the init died under a probe");
        Answer {
            code: answer["code"].as_i64(),
            signal: answer["signal"].as_i64(),
            output: answer["output"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// After a restart, another init calls.
    pub(crate) fn forget_session(&mut self) {
        self.session = None;
    }

    pub(crate) async fn destroy(self) {
        destroy(&self.handle.state_dir, LIMIT).await.unwrap();
    }
}

pub(crate) fn shim() -> PathBuf {
    let given = std::env::var_os("COFFERDAM_TEST_SHIM").map(PathBuf::from);
    given.unwrap_or_else(|| env!("CARGO_BIN_EXE_cofferdam-process-shim").into())
}

/// `examples/test_init.rs`, which cargo builds along with the tests.
pub(crate) fn stand_in() -> PathBuf {
    if let Some(given) = std::env::var_os("COFFERDAM_TEST_INIT") {
        return given.into();
    }
    let deps = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    let init = deps.parent().unwrap().join("examples/test_init");
    assert!(
        init.exists(),
        "{} is missing: build the examples too",
        init.display()
    );
    init
}

/// Waits for a fact.
pub(crate) async fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    let until = tokio::time::Instant::now() + LIMIT;
    while !fact() {
        assert!(tokio::time::Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A zombie is dead; when the host's init takes it away is its own affair.
pub(crate) fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
