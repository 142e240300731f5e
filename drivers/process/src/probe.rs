//! What this host can do for sandboxes, and how to fix what it cannot. For Fingerprint and
//! `doctor`.
//!
//! Whether sandboxes work is not guessed from switches: one is launched, with the shim itself as
//! a supervisor that ends at once, through the very code that launches real ones.

use std::path::Path;
use std::time::{Duration, Instant};

use cofferdam_driver_sdk::supervisor::SupervisorBinary;

use crate::cgroup::{CgroupLimits, CgroupParent, CgroupVersion, NotEnforced};
use crate::ids::IdBlocks;
use crate::launch::{
    Bootstrap, HostSwitches, LaunchError, Launcher, LauncherConfig, SandboxLimits, SandboxPlan,
    destroy, list,
};
use crate::sandbox::plan::{Network, Workload};
use crate::tracked::now_unix_ms;

/// What was found.
#[derive(Debug)]
pub struct HostFacts {
    /// The outcome of a trial sandbox: how long its launch took, or why it failed.
    pub trial: Result<Duration, LaunchError>,
    /// The Landlock ABI; 0 when the kernel has none that can be used. Sandboxes do without.
    pub landlock_abi: u32,
    /// The cgroup version limits are set on, if any can be.
    pub cgroup_version: Option<CgroupVersion>,
    /// Limits that cannot be enforced, each with its fix.
    pub not_enforceable: Vec<NotEnforced>,
    /// The host's switches.
    pub switches: HostSwitches,
    /// Advice that is no condition, such as for speed.
    pub advice: Vec<Advice>,
}

/// Something that could be better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What is not as good as it could be.
    pub what: String,
    /// What an operator can do about it.
    pub fix: String,
}

/// Examines the host. `scratch` is a directory the driver may write to; the trial's state lives
/// and dies there.
pub async fn probe(
    shim: &Path,
    scratch: &Path,
    cgroups: &CgroupParent,
    ids: Option<IdBlocks>,
) -> HostFacts {
    HostFacts {
        trial: trial(shim, scratch, cgroups, ids).await,
        landlock_abi: crate::shim::landlock::usable_abi(),
        cgroup_version: cgroups.version(),
        not_enforceable: cgroups.not_enforceable(),
        switches: HostSwitches::read(),
        advice: advice(cgroups),
    }
}

const TRIAL_LIMIT: Duration = Duration::from_secs(10);
const TRIAL_LIFETIME_MS: u64 = 60_000;
const TRIAL_PREFIX: &str = "probe-";
const MIB: u64 = 1024 * 1024;

async fn trial(
    shim: &Path,
    scratch: &Path,
    cgroups: &CgroupParent,
    ids: Option<IdBlocks>,
) -> Result<Duration, LaunchError> {
    let unusable = |source| LaunchError::Spawn {
        path: shim.to_owned(),
        source,
    };
    let path = shim.to_owned();
    let supervisor = tokio::task::spawn_blocking(move || SupervisorBinary::unchecked(&path))
        .await
        .map_err(|error| unusable(std::io::Error::other(error)))?
        .map_err(|error| unusable(std::io::Error::other(error)))?;
    let launcher = Launcher::new(LauncherConfig {
        shim: shim.to_owned(),
        state_root: scratch.to_owned(),
        ids,
        cgroups: cgroups.clone(),
        supervisor,
        timeout: TRIAL_LIMIT,
    })
    .map_err(|source| LaunchError::State {
        path: scratch.to_owned(),
        source,
    })?;
    sweep(scratch).await;
    let plan = trial_plan(scratch);
    let begun = Instant::now();
    let handle = launcher
        .launch(&plan, &Bootstrap::new("{}".to_owned()))
        .await?;
    let took = begun.elapsed();
    if let Err(error) = destroy(&handle.state_dir, TRIAL_LIMIT).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the trial sandbox is not gone"
        );
    }
    Ok(took)
}

/// Removes what trials left that were cut off: this process's own, and those of dead ones.
async fn sweep(scratch: &Path) {
    for dir in list(scratch).unwrap_or_default() {
        let name = dir.file_name().and_then(|name| name.to_str());
        let pid = name.and_then(|name| name.strip_prefix(TRIAL_PREFIX)?.parse::<u32>().ok());
        let is_others = pid.is_some_and(|pid| {
            pid != std::process::id() && Path::new("/proc").join(pid.to_string()).exists()
        });
        if !is_others {
            // What cannot be removed now is looked for at the next trial.
            let _ = destroy(&dir, TRIAL_LIMIT).await;
        }
    }
}

fn trial_plan(scratch: &Path) -> SandboxPlan {
    SandboxPlan {
        sandbox_id: format!("{TRIAL_PREFIX}{}", std::process::id()),
        callback_dir: scratch.to_owned(),
        workload: Workload {
            uid: 1000,
            gid: 1000,
            user: "sandbox".to_owned(),
        },
        limits: SandboxLimits {
            cgroup: CgroupLimits::default(),
            tmp_bytes: MIB,
            workspace_bytes: MIB,
        },
        network: Network::None,
        binds: Vec::new(),
        hostname: "probe".to_owned(),
        // Should this process die now, the trial goes all the same.
        expire_time_unix_ms: now_unix_ms() + TRIAL_LIFETIME_MS,
    }
}

/// Joining a cgroup waits for an RCU grace period (several milliseconds on an idle host) unless
/// the kernel is told to favour such moves. v2 avoids that by cloning into the cgroup.
fn advice(cgroups: &CgroupParent) -> Vec<Advice> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let slow = cgroups.version() == Some(CgroupVersion::V1) && !mounts.contains("favordynmods");
    let advice = slow.then(|| Advice {
        what: "starting a sandbox waits several milliseconds for its cgroup v1".to_owned(),
        fix: "boot with the unified hierarchy, or mount a cgroup file system with -o favordynmods \
              (Linux 6.0 and later)"
            .to_owned(),
    });
    advice.into_iter().collect()
}
