//! What this host can do for sandboxes, in the contract's words.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use cofferdam_driver_sdk::capabilities::{failed, fingerprint, passed, warning};
use cofferdam_driver_sdk::proto::{Check, FingerprintResponse, Limits, Resources};
use tokio::time::Instant;

use crate::cgroup::{Bound, CgroupVersion, NotEnforced};
use crate::launch::LaunchError;
use crate::platform::Platform;
use crate::probe::{self, HostFacts};

/// A trial costs a launch: rarely while all is well, soon after it was not.
const TRIAL_INTERVAL_HEALTHY: Duration = Duration::from_secs(600);
const TRIAL_INTERVAL_FAILED: Duration = Duration::from_secs(20);

/// Memory in use changes all the time; it is news only in steps of this size.
const MEMORY_STEP_BYTES: u64 = 256 * 1024 * 1024;

/// The last examination of the host.
#[derive(Debug, Default)]
pub(crate) struct Examination(Mutex<Option<(Instant, FingerprintResponse)>>);

impl Examination {
    /// What holds now; examines the host when the last time is too long ago.
    pub(crate) async fn fingerprint(
        &self,
        platform: &Platform,
        sandboxes: u64,
    ) -> FingerprintResponse {
        let known = self.last();
        let mut print = match known {
            Some(print) => print,
            None => {
                // Cancelled here, a trial sandbox may be left: the next trial of this process
                // finds its directory, and every other one its record.
                let facts = examine(platform).await;
                let print = describe(platform, &facts);
                self.keep(&print, facts.trial.is_ok());
                print
            }
        };
        let memory = memory();
        print.capacity = Some(Resources {
            cpu_millis: std::thread::available_parallelism()
                .ok()
                .map(|cpus| cpus.get() as u64 * 1000),
            memory_bytes: memory.map(|(total, _)| total),
            ..Resources::default()
        });
        print.used = Some(Resources {
            sandboxes: Some(sandboxes),
            memory_bytes: memory.map(|(_, used)| used / MEMORY_STEP_BYTES * MEMORY_STEP_BYTES),
            ..Resources::default()
        });
        print
    }

    fn last(&self) -> Option<FingerprintResponse> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, print) = last.as_ref()?;
        (Instant::now() < *until).then(|| print.clone())
    }

    fn keep(&self, print: &FingerprintResponse, is_healthy: bool) {
        let interval = if is_healthy {
            TRIAL_INTERVAL_HEALTHY
        } else {
            TRIAL_INTERVAL_FAILED
        };
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((Instant::now() + interval, print.clone()));
    }
}

async fn examine(platform: &Platform) -> HostFacts {
    let config = &platform.config;
    let scratch = config.probe_dir();
    probe::probe(
        &config.shim_path,
        &scratch,
        &platform.cgroups,
        platform.ids(),
    )
    .await
}

fn describe(platform: &Platform, facts: &HostFacts) -> FingerprintResponse {
    let mut checks = vec![trial(facts), landlock(facts), cgroups(facts)];
    checks.extend(facts.not_enforceable.iter().map(limit));
    for advice in &facts.advice {
        checks.push(warning("speed", &advice.what, &advice.fix));
    }
    let mut print = fingerprint(checks);
    print.limits = Some(Limits {
        memory: platform.cgroups.lacks(Bound::Memory).is_none(),
        cpu: platform.cgroups.lacks(Bound::Cpu).is_none(),
        pids: platform.cgroups.lacks(Bound::Pids).is_none(),
        disk: true,
    });
    let mut attribute = |name: &str, value: String| {
        print.attributes.insert(name.to_owned(), value);
    };
    if let Some((major, minor)) = facts.switches.kernel {
        attribute("kernel", format!("{major}.{minor}"));
    }
    attribute("landlock.abi", facts.landlock_abi.to_string());
    attribute("cgroup.version", version(facts.cgroup_version).to_owned());
    attribute("architecture", std::env::consts::ARCH.to_owned());
    attribute("state_dir", platform.config.state_dir.display().to_string());
    print
}

fn trial(facts: &HostFacts) -> Check {
    match &facts.trial {
        Ok(_) => passed("sandbox", "a trial sandbox was launched and destroyed"),
        Err(error) => {
            let fix = match error {
                LaunchError::Spawn { path, .. } => {
                    format!("install the shim as {}, or set shim_path", path.display())
                }
                _ => error.hint().unwrap_or_default().to_owned(),
            };
            failed("sandbox", chain(error), fix)
        }
    }
}

fn landlock(facts: &HostFacts) -> Check {
    match facts.landlock_abi {
        0 => warning(
            "landlock",
            "the kernel has no Landlock: sandboxes do without this second wall",
            "use Linux 5.13 or newer, with landlock among the security modules (lsm=)",
        ),
        abi => passed("landlock", format!("ABI {abi}")),
    }
}

fn cgroups(facts: &HostFacts) -> Check {
    match facts.cgroup_version {
        Some(_) => passed(
            "cgroups",
            format!("version {}", version(facts.cgroup_version)),
        ),
        None => {
            let (why, fix) = facts
                .not_enforceable
                .first()
                .map(|lacking| (lacking.why.as_str(), lacking.fix.as_str()))
                .unwrap_or_default();
            warning(
                "cgroups",
                format!("no limits on memory and CPU: {why}"),
                fix,
            )
        }
    }
}

fn limit(lacking: &NotEnforced) -> Check {
    let id = match lacking.bound {
        Bound::Memory => "limit_memory",
        Bound::Swap => "limit_swap",
        Bound::Pids => "limit_pids",
        Bound::Cpu => "limit_cpu",
    };
    warning(id, format!("not enforced: {}", lacking.why), &lacking.fix)
}

fn version(version: Option<CgroupVersion>) -> &'static str {
    match version {
        Some(CgroupVersion::V2) => "2",
        Some(CgroupVersion::V1) => "1",
        None => "none",
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// Total and used memory of the host, in bytes.
fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kibibytes * 1024)
    };
    let total = field("MemTotal:")?;
    Some((total, total.saturating_sub(field("MemAvailable:")?)))
}
