//! Launching: from a sandbox's plan to a supervisor that runs.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cofferdam_driver_sdk::supervisor::SupervisorBinary;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Child;

use super::destroy::destroy;
use super::error::LaunchError;
use super::hints::HostSwitches;
use super::identity::boot_id;
use super::request::{Bootstrap, SandboxPlan};
use super::spare::{self, Shim, SpareShim};
use crate::cgroup::{CgroupParent, Leaf, NotEnforced};
use crate::ids::IdBlocks;
use crate::sandbox::plan::{IdMapping, PLAN_VERSION, ShimLimits, ShimPlan};
use crate::sandbox::record::{ProcessId, RECORD_VERSION, SandboxRecord};
use crate::sandbox::report::{LaunchReport, Up};
use crate::sandbox::{frame, layout};

/// What all launches of a driver share.
#[derive(Debug, Clone)]
pub struct LauncherConfig {
    /// The program `cofferdam-process-shim`, absolute.
    pub shim: PathBuf,
    /// Where state directories are made; mode 0700, and on a local file system.
    pub state_root: PathBuf,
    /// The host's id blocks, for a root driver. An ordinary user's sandboxes run as that user.
    pub ids: Option<IdBlocks>,
    /// Where leaves are made.
    pub cgroups: CgroupParent,
    /// The checked supervisor.
    pub supervisor: SupervisorBinary,
    /// How long a launch may take.
    pub timeout: Duration,
}

/// A sandbox that stands.
#[derive(Debug, Clone)]
pub struct ShimHandle {
    /// Its state directory: all that `observe`, `ShimControl` and `destroy` need.
    pub state_dir: PathBuf,
    /// The shim.
    pub shim: ProcessId,
    /// The supervisor.
    pub init: ProcessId,
    /// The Landlock ABI in force; 0 is none.
    pub landlock_abi: u32,
    /// Its cgroup.
    pub cgroup: Leaf,
    /// Bounds that were asked for and do not hold.
    pub not_enforced: Vec<NotEnforced>,
}

/// Launches sandboxes. Cheap to clone; launches may run side by side.
#[derive(Debug, Clone)]
pub struct Launcher {
    config: LauncherConfig,
    switches: HostSwitches,
    spare: Option<SpareShim>,
    /// The supervisor for sandboxes whose workload is root, made when the first one is.
    execute_only: Arc<OnceLock<SupervisorBinary>>,
}

/// What was made before the shim starts.
struct Prepared {
    plan: ShimPlan,
    not_enforced: Vec<NotEnforced>,
    cgroup: Leaf,
}

impl Launcher {
    /// Makes the state root when it is missing.
    pub fn new(config: LauncherConfig) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.state_root)?;
        Ok(Launcher {
            config,
            switches: HostSwitches::read(),
            spare: None,
            execute_only: Arc::default(),
        })
    }

    /// Takes the shim that is kept ready there, when one is.
    pub fn with_spare(self, spare: SpareShim) -> Self {
        Launcher {
            spare: Some(spare),
            ..self
        }
    }

    /// Where a sandbox's state is, was, or would be.
    pub fn state_dir(&self, sandbox_id: &str) -> PathBuf {
        self.config.state_root.join(sandbox_id)
    }

    /// Where state directories are made.
    pub fn state_root(&self) -> &Path {
        &self.config.state_root
    }

    /// Where leaves are made.
    pub fn cgroups(&self) -> &CgroupParent {
        &self.config.cgroups
    }

    /// Makes a sandbox, and returns when its supervisor has been executed. On failure nothing is
    /// left. When the future is dropped, a sandbox may have come to be: observe it, or destroy
    /// it.
    pub async fn launch(
        &self,
        plan: &SandboxPlan,
        bootstrap: &Bootstrap,
    ) -> Result<ShimHandle, LaunchError> {
        let launched = tokio::time::timeout(self.config.timeout, self.attempt(plan, bootstrap));
        let outcome = launched.await.unwrap_or(Err(LaunchError::Timeout {
            limit: self.config.timeout,
        }));
        if let Err(error) = &outcome
            // What these say happens before anything of this id was made here.
            && !matches!(
                error,
                LaunchError::Exists { .. } | LaunchError::Plan { .. } | LaunchError::Spawn { .. }
            )
        {
            let state_dir = self.state_dir(&plan.sandbox_id);
            if let Err(leftover) = destroy(&state_dir, self.config.timeout).await {
                tracing::warn!(
                    sandbox.id = plan.sandbox_id,
                    error = &leftover as &dyn std::error::Error,
                    "a failed launch left something behind; destroying the sandbox removes it"
                );
            }
        }
        outcome
    }

    async fn attempt(
        &self,
        plan: &SandboxPlan,
        bootstrap: &Bootstrap,
    ) -> Result<ShimHandle, LaunchError> {
        plan.check(bootstrap)?;
        // The shim's exec takes about as long as what it waits for.
        let Shim { child, socket } = self.shim()?;
        let prepared = self.prepare(plan)?;
        let up = self
            .stand_up(child, socket, &prepared.plan, bootstrap)
            .await?;
        Ok(ShimHandle {
            state_dir: prepared.plan.state_dir,
            shim: up.shim,
            init: up.init,
            landlock_abi: up.landlock_abi,
            cgroup: prepared.cgroup,
            not_enforced: prepared.not_enforced,
        })
    }

    fn shim(&self) -> Result<Shim, LaunchError> {
        if let Some(ready) = self.spare.as_ref().and_then(SpareShim::take) {
            return Ok(ready);
        }
        spare::spawn(&self.config.shim).map_err(|source| LaunchError::Spawn {
            path: self.config.shim.clone(),
            source,
        })
    }

    /// Directory, ids, record, cgroup: intent on disk before the thing itself. A handful of
    /// system calls, so it does not leave the runtime's thread.
    fn prepare(&self, plan: &SandboxPlan) -> Result<Prepared, LaunchError> {
        let state_dir = self.state_dir(&plan.sandbox_id);
        let cgroup = self.config.cgroups.leaf(&plan.sandbox_id);
        make_state_dir(&state_dir, &plan.sandbox_id)?;
        let (ids, id_block) = self.ids(&plan.sandbox_id, &state_dir)?;
        let record = SandboxRecord {
            version: RECORD_VERSION,
            sandbox_id: plan.sandbox_id.clone(),
            boot_id: boot_id(),
            id_block,
            id_claims_dir: self.config.ids.as_ref().map(|ids| ids.dir().to_owned()),
            host_uid: ids.supervisor_host_uid(),
            cgroup_dirs: cgroup.dirs().to_vec(),
        };
        fill_state_dir(&state_dir, &record, id_block).map_err(|source| LaunchError::State {
            path: state_dir.clone(),
            source,
        })?;
        let limits = &plan.limits.cgroup;
        let not_enforced = self
            .config
            .cgroups
            .create(&plan.sandbox_id, limits)
            .map_err(LaunchError::Cgroup)?;
        let counts_pids = self.config.cgroups.counts_pids();
        let plan = ShimPlan {
            version: PLAN_VERSION,
            sandbox_id: plan.sandbox_id.clone(),
            state_dir,
            callback_dir: plan.callback_dir.clone(),
            ids,
            workload: plan.workload.clone(),
            limits: ShimLimits {
                tmp_bytes: plan.limits.tmp_bytes,
                workspace_bytes: plan.limits.workspace_bytes,
                nproc: limits.pids.filter(|_| !counts_pids),
            },
            network: plan.network,
            binds: plan.binds.clone(),
            hostname: plan.hostname.clone(),
            expire_time_unix_ms: plan.expire_time_unix_ms,
            cgroup: cgroup.placement(),
        };
        Ok(Prepared {
            plan,
            not_enforced,
            cgroup,
        })
    }

    fn ids(
        &self,
        sandbox_id: &str,
        state_dir: &Path,
    ) -> Result<(IdMapping, Option<u32>), LaunchError> {
        match &self.config.ids {
            Some(blocks) => {
                let first_host_id = blocks
                    .claim(sandbox_id, state_dir)
                    .map_err(LaunchError::Ids)?;
                Ok((IdMapping::Block { first_host_id }, Some(first_host_id)))
            }
            None => {
                let host_uid = rustix::process::geteuid().as_raw();
                let host_gid = rustix::process::getegid().as_raw();
                Ok((IdMapping::Single { host_uid, host_gid }, None))
            }
        }
    }

    /// A workload that is root inside owns what its namespace's root owns: without this also the
    /// supervisor's `oom_score_adj`.
    fn supervisor(&self, plan: &ShimPlan) -> io::Result<&SupervisorBinary> {
        let is_root = plan.workload.uid == 0 && matches!(plan.ids, IdMapping::Block { .. });
        match self.execute_only.get() {
            _ if !is_root => Ok(&self.config.supervisor),
            Some(made) => Ok(made),
            None => {
                let made = self.config.supervisor.execute_only()?;
                Ok(self.execute_only.get_or_init(|| made))
            }
        }
    }

    async fn stand_up(
        &self,
        mut child: Child,
        socket: StdUnixStream,
        plan: &ShimPlan,
        bootstrap: &Bootstrap,
    ) -> Result<Up, LaunchError> {
        let no_answer = |error: io::Error| LaunchError::NoAnswer {
            detail: error.to_string(),
        };
        let supervisor = self
            .supervisor(plan)
            .map_err(|source| LaunchError::Supervisor { source })?;
        let answer = converse(socket, plan, bootstrap, supervisor.as_fd());
        // The shim's first half ends as soon as the second runs; it is ours to reap either way.
        let answer = answer.await.map_err(no_answer)?;
        let status = child.wait().await.map_err(no_answer)?;
        match answer {
            Some(LaunchReport::Up(up)) => Ok(up),
            Some(LaunchReport::Failed(failure)) => {
                let hint = self.switches.hint(&failure);
                Err(LaunchError::Shim { failure, hint })
            }
            None => Err(LaunchError::NoAnswer {
                detail: status.to_string(),
            }),
        }
    }
}

/// Sends the frame and reads the one answer; `None` when the shim closed without one.
async fn converse(
    socket: StdUnixStream,
    plan: &ShimPlan,
    bootstrap: &Bootstrap,
    supervisor: std::os::fd::BorrowedFd<'_>,
) -> io::Result<Option<LaunchReport>> {
    let plan = serde_json::to_vec(plan)?;
    let bootstrap = bootstrap.json().as_bytes();
    // Twelve bytes into an empty socket: does not block.
    frame::send_header(socket.as_fd(), plan.len(), bootstrap.len(), &[supervisor])?;
    socket.set_nonblocking(true)?;
    let mut socket = UnixStream::from_std(socket)?;
    socket.write_all(&plan).await?;
    socket.write_all(bootstrap).await?;
    let mut line = String::new();
    let mut answer = BufReader::new((&mut socket).take(frame::REPORT_BYTES_MAX as u64));
    match answer.read_line(&mut line).await {
        // A shim that ended before it read everything resets the connection.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        other => other?,
    };
    if line.is_empty() {
        return Ok(None);
    }
    let _ = socket.into_std()?.shutdown(Shutdown::Both);
    Ok(Some(serde_json::from_str(&line)?))
}

fn make_state_dir(state_dir: &Path, sandbox_id: &str) -> Result<(), LaunchError> {
    match fs::DirBuilder::new().mode(0o700).create(state_dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(LaunchError::Exists {
            sandbox_id: sandbox_id.to_owned(),
        }),
        other => other.map_err(|source| LaunchError::State {
            path: state_dir.to_owned(),
            source,
        }),
    }
}

fn fill_state_dir(state_dir: &Path, record: &SandboxRecord, owner: Option<u32>) -> io::Result<()> {
    let temporary = state_dir.join(format!(".{}.new", layout::SANDBOX_RECORD));
    fs::write(&temporary, serde_json::to_vec(record)?)?;
    fs::rename(temporary, state_dir.join(layout::SANDBOX_RECORD))?;
    let run_dir = layout::run_dir(state_dir);
    fs::DirBuilder::new().mode(0o700).create(&run_dir)?;
    match owner {
        Some(id) => chown(run_dir, Some(id), Some(id)),
        None => Ok(()),
    }
}
