//! From a sandbox's spec to what is launched. No I/O: paths are resolved by a function that is
//! handed in.

use std::io;
use std::path::{Path, PathBuf};

use cofferdam_driver_sdk::proto::{
    FieldViolation, Mount, NetworkClass, ResourceLimits, SandboxSpec, mount,
};
use cofferdam_driver_sdk::settings;
use cofferdam_driver_sdk::spec::Violations;

use crate::cgroup::{Bound, CgroupLimits};
use crate::config::{Config, DriverConfig};
use crate::launch::{SandboxLimits, SandboxPlan};
use crate::sandbox::plan::{Network, ReadOnlyBind, Workload};

/// The only place for a workspace so far.
pub(crate) const WORKSPACE: &str = "/workspace";

/// The workload's login name inside.
pub(crate) const USER: &str = "sandbox";

const HOSTNAME_DEFAULT: &str = "sandbox";

/// "Not limited" for a tmpfs: more than any host has memory, so that only memory bounds it.
const TMPFS_BYTES_UNLIMITED: u64 = 1 << 40;

/// Follows links: `std::fs::canonicalize`, but for tests.
pub(crate) type Canonicalize<'a> = &'a dyn Fn(&Path) -> io::Result<PathBuf>;

/// What is launched for a spec that the server has found valid, or everything that this platform
/// finds wrong with it.
pub(crate) fn plan(
    sandbox_id: &str,
    spec: &SandboxSpec,
    callback_dir: PathBuf,
    config: &Config,
    canonicalize: Canonicalize<'_>,
) -> Result<SandboxPlan, Vec<FieldViolation>> {
    let mut found = Violations::new();
    let binds = Binds {
        config,
        canonicalize,
    }
    .of(spec, &mut found);
    found.check(
        !spec.root_writable,
        "root_writable",
        "the root file system is the host's and stays read-only; must be false",
    );
    found.check(
        matches!(spec.workspace.as_str(), "" | WORKSPACE),
        "workspace",
        "must be /workspace on this driver",
    );
    let limits = sandbox_limits(&spec.limits.unwrap_or_default(), &mut found);
    found.into_violations()?;
    Ok(SandboxPlan {
        sandbox_id: sandbox_id.to_owned(),
        callback_dir,
        workload: Workload {
            uid: spec.uid,
            gid: spec.gid,
            user: USER.to_owned(),
        },
        limits,
        network: network(spec),
        binds,
        hostname: match spec.hostname.as_str() {
            "" => HOSTNAME_DEFAULT.to_owned(),
            name => name.to_owned(),
        },
        expire_time_unix_ms: spec.expire_time_unix_ms,
    })
}

/// Workspace, /tmp and /dev/shm are memory here. Filled to the brim they must leave some of it to
/// processes, or every command that is started afterwards is killed for want of memory.
fn sandbox_limits(limits: &ResourceLimits, found: &mut Violations) -> SandboxLimits {
    let limited = |value: u64| (value > 0).then_some(value);
    let memory = limited(limits.memory_bytes);
    let within = |asked: u64, share: fn(u64) -> u64| {
        let asked = limited(asked).unwrap_or(TMPFS_BYTES_UNLIMITED);
        memory.map_or(asked, |memory| asked.min(share(memory)))
    };
    let is_asked_for = limits.required.is_some_and(|required| required.disk);
    if let Some(memory) = memory
        && is_asked_for
        && limits.disk_bytes > workspace_share(memory)
    {
        found.add(
            "limits.disk_bytes",
            format!(
                "the workspace is memory on this driver, and may not take all of it: with {} of \
                 memory at most {}; or give {} of memory",
                mebibytes(memory),
                mebibytes(workspace_share(memory)),
                mebibytes(memory_for_workspace(limits.disk_bytes).saturating_add(1 << 20)),
            ),
        );
    }
    SandboxLimits {
        cgroup: CgroupLimits {
            memory_bytes: memory,
            pids: limited(limits.pids),
            cpu_millis: limited(limits.cpu_millis),
        },
        tmp_bytes: within(limits.tmp_bytes, tmp_share),
        workspace_bytes: within(limits.disk_bytes, workspace_share),
    }
}

/// What stays for processes and for the kernel's own bookkeeping, whatever is written: a tenth, and
/// not less than a shell and a supervisor need.
const RESERVE_BYTES: u64 = 24 << 20;

/// What files may take of a memory limit.
fn for_files(memory_bytes: u64) -> u64 {
    let reserve = RESERVE_BYTES.max(memory_bytes / 10);
    memory_bytes.saturating_sub(reserve).max(memory_bytes / 4)
}

/// What a sandbox gets less of than its spec allows, each a sentence.
pub(crate) fn trims(spec: &SandboxSpec) -> Vec<String> {
    let limits = spec.limits.unwrap_or_default();
    if limits.memory_bytes == 0 {
        return Vec::new();
    }
    let trim = |what: &str, asked: u64, share: u64| {
        let allowed = match asked {
            0 => "without a limit of its own".to_owned(),
            asked if asked <= share => return None,
            asked => format!("{} were allowed", mebibytes(asked)),
        };
        Some(format!(
            "{what} has {}, because it is memory here and must leave some to processes ({allowed})",
            mebibytes(share)
        ))
    };
    let memory = limits.memory_bytes;
    [
        trim("the workspace", limits.disk_bytes, workspace_share(memory)),
        trim("/tmp", limits.tmp_bytes, tmp_share(memory)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn workspace_share(memory_bytes: u64) -> u64 {
    for_files(memory_bytes).saturating_mul(5) / 9
}

/// Of /tmp, and of /dev/shm.
fn tmp_share(memory_bytes: u64) -> u64 {
    for_files(memory_bytes).saturating_mul(2) / 9
}

/// The least memory with which a workspace of this size is possible.
fn memory_for_workspace(disk_bytes: u64) -> u64 {
    let with_reserve = (disk_bytes.div_ceil(5).saturating_mul(9)).saturating_add(RESERVE_BYTES);
    disk_bytes.saturating_mul(2).max(with_reserve)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn network(spec: &SandboxSpec) -> Network {
    let class = spec.network.as_ref().map(|network| network.class());
    match class {
        Some(NetworkClass::Open) => Network::Host,
        // The server has refused what is not among the capabilities.
        _ => Network::None,
    }
}

/// Limits that the caller insists on, each with what has to enforce it.
pub(crate) fn required_bounds(spec: &SandboxSpec) -> Vec<(&'static str, Bound)> {
    let required = spec.limits.as_ref().and_then(|limits| limits.required);
    let required = required.unwrap_or_default();
    [
        ("memory", required.memory, Bound::Memory),
        ("cpu", required.cpu, Bound::Cpu),
        ("pids", required.pids, Bound::Pids),
    ]
    .into_iter()
    .filter(|(_, required, _)| *required)
    .map(|(name, _, bound)| (name, bound))
    .collect()
}

struct Binds<'a> {
    config: &'a Config,
    canonicalize: Canonicalize<'a>,
}

impl Binds<'_> {
    /// Mounts of the spec, then the paths of its `driver_config`.
    fn of(&self, spec: &SandboxSpec, found: &mut Violations) -> Vec<ReadOnlyBind> {
        let mut binds = Vec::new();
        for (index, mount) in spec.mounts.iter().enumerate() {
            binds.extend(self.mount(&format!("mounts[{index}]"), mount, found));
        }
        let driver_config = match settings::driver_config::<DriverConfig>(spec) {
            Ok(driver_config) => driver_config,
            Err(violations) => {
                found.extend(violations);
                DriverConfig::default()
            }
        };
        for (index, path) in driver_config.read_only_paths.iter().enumerate() {
            let field = format!("driver_config.read_only_paths[{index}]");
            binds.extend(self.bind(&field, path, path, found));
        }
        binds
    }

    fn mount(&self, field: &str, mount: &Mount, found: &mut Violations) -> Option<ReadOnlyBind> {
        let Some(mount::Source::HostPath(path)) = &mount.source else {
            found.add(field, "this driver mounts only host paths");
            return None;
        };
        if !mount.read_only {
            found.add(
                format!("{field}.read_only"),
                "must be true: this driver mounts host paths only for reading",
            );
            return None;
        }
        let (source, target) = (Path::new(path), Path::new(&mount.target));
        self.bind(&format!("{field}.host_path"), source, target, found)
    }

    fn bind(
        &self,
        field: &str,
        source: &Path,
        target: &Path,
        found: &mut Violations,
    ) -> Option<ReadOnlyBind> {
        // The allow-list is compared with where a path really leads.
        let source = match (self.canonicalize)(source) {
            Ok(source) => source,
            Err(error) => {
                found.add(field, format!("cannot be used: {error}"));
                return None;
            }
        };
        let allowed = self.config.read_only_paths.iter().any(|allowed| {
            (self.canonicalize)(allowed).is_ok_and(|allowed| source.starts_with(allowed))
        });
        if !allowed {
            found.add(
                field,
                format!(
                    "{} is not at or below a path that the operator allowed (read_only_paths)",
                    source.display()
                ),
            );
            return None;
        }
        let bind = ReadOnlyBind {
            source,
            target: target.to_owned(),
        };
        if let Some(problem) = bind.problem() {
            found.add(field, problem);
            return None;
        }
        Some(bind)
    }
}

#[cfg(test)]
mod tests;
