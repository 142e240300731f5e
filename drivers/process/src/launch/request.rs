//! What a launch is asked for.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::error::LaunchError;
use crate::cgroup::CgroupLimits;
use crate::sandbox::control::BOOTSTRAP_BYTES_MAX;
use crate::sandbox::plan::{Network, ReadOnlyBind, Workload};

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxPlan {
    /// The gateway's id: `[a-z0-9][a-z0-9-]{0,62}`. Names the state directory and the cgroup.
    pub sandbox_id: String,
    /// Directory that holds the gateway's socket for this sandbox.
    pub callback_dir: PathBuf,
    /// Who the workload is inside.
    pub workload: Workload,
    /// Its bounds.
    pub limits: SandboxLimits,
    /// Its network.
    pub network: Network,
    /// Host paths to show read-only.
    pub binds: Vec<ReadOnlyBind>,
    /// What `hostname` prints.
    pub hostname: String,
    /// When it must be dead, in milliseconds since 1970; 0 means never.
    pub expire_time_unix_ms: u64,
}

/// A sandbox's bounds. Those of the cgroup may be absent; the file systems' may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxLimits {
    /// Memory, processes, CPU.
    pub cgroup: CgroupLimits,
    /// Size of `/tmp`, and of `/dev/shm`.
    pub tmp_bytes: u64,
    /// Size of `/workspace`.
    pub workspace_bytes: u64,
}

/// The supervisor's bootstrap JSON. Secret: it holds the one-time token.
#[derive(Clone)]
pub struct Bootstrap(Zeroizing<String>);

impl Bootstrap {
    /// Takes the JSON; too long a one is refused at launch.
    pub fn new(json: String) -> Self {
        Bootstrap(Zeroizing::new(json))
    }

    pub(super) fn json(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Bootstrap {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Bootstrap(<redacted>)")
    }
}

impl SandboxPlan {
    /// Refuses what makes no sense on any machine.
    pub(super) fn check(&self, bootstrap: &Bootstrap) -> Result<(), LaunchError> {
        let problem = if !is_sandbox_id(&self.sandbox_id) {
            Some(format!("{:?} is not a sandbox id", self.sandbox_id))
        } else if bootstrap.json().len() > BOOTSTRAP_BYTES_MAX {
            Some(format!(
                "the bootstrap is longer than {BOOTSTRAP_BYTES_MAX} bytes"
            ))
        } else if self.limits.tmp_bytes == 0 || self.limits.workspace_bytes == 0 {
            Some("/tmp and /workspace need a size: 0 would mean no bound".to_owned())
        } else {
            self.binds.iter().find_map(ReadOnlyBind::problem)
        };
        problem.map_or(Ok(()), |problem| Err(LaunchError::Plan { problem }))
    }
}

/// It names a directory and a cgroup, so this is also what keeps it from climbing.
fn is_sandbox_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !id.is_empty() && id.len() <= 63 && !id.starts_with('-') && id.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> SandboxPlan {
        SandboxPlan {
            sandbox_id: "sbx-1".to_owned(),
            callback_dir: "/run/callback".into(),
            workload: Workload {
                uid: 1000,
                gid: 1000,
                user: "sandbox".to_owned(),
            },
            limits: SandboxLimits {
                cgroup: CgroupLimits::default(),
                tmp_bytes: 1,
                workspace_bytes: 1,
            },
            network: Network::None,
            binds: Vec::new(),
            hostname: "h".to_owned(),
            expire_time_unix_ms: 0,
        }
    }

    #[test]
    fn an_id_that_could_leave_its_directory_is_refused() {
        let small = Bootstrap::new("{}".to_owned());
        assert!(plan().check(&small).is_ok());
        for id in ["", "..", "../x", "a/b", "-a", "A", &"x".repeat(64)] {
            let plan = SandboxPlan {
                sandbox_id: id.to_owned(),
                ..plan()
            };
            assert!(plan.check(&small).is_err(), "{id:?} was accepted");
        }
    }

    #[test]
    fn unbounded_file_systems_and_oversized_bootstraps_are_refused() {
        let mut unbounded = plan();
        unbounded.limits.workspace_bytes = 0;
        assert!(unbounded.check(&Bootstrap::new(String::new())).is_err());
        assert!(
            plan()
                .check(&Bootstrap::new("x".repeat(BOOTSTRAP_BYTES_MAX + 1)))
                .is_err()
        );
    }

    #[test]
    fn a_bootstrap_does_not_show_itself() {
        let bootstrap = Bootstrap::new("secret".to_owned());
        assert!(!format!("{bootstrap:?}").contains("secret"));
    }
}
