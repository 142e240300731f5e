//! What this host can do for sandboxes, and how to fix what it cannot. For Fingerprint and
//! `doctor`.
//!
//! Whether sandboxes work is not guessed from switches: one is launched, with the shim itself as
//! a supervisor that ends at once, through the very code that launches real ones.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::cgroup::{CgroupLimits, CgroupParent, CgroupVersion, NotEnforced};
use crate::ids::IdBlocks;
use crate::launch::{
    Bootstrap, HostSwitches, LaunchError, Launcher, LauncherConfig, SandboxLimits, SandboxPlan,
    SupervisorImage, destroy,
};
use crate::sandbox::plan::{Network, Workload};

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
    let supervisor = SupervisorImage::load(shim, None).map_err(|error| match error {
        crate::launch::ImageError::Read { source, .. } => unusable(source),
        other => unusable(std::io::Error::other(other)),
    })?;
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

fn trial_plan(scratch: &Path) -> SandboxPlan {
    SandboxPlan {
        sandbox_id: format!("probe-{}", std::process::id()),
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
        expire_time_unix_ms: 0,
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
