//! From a spec to what the platform is asked for. Pure: no platform, no disk, no clock.
//!
//! Everything that is wrong with a spec is found here, all at once, and before anything is made;
//! everything that a spec asks for and does not get is a weakness, said in a sentence.

use cofferdam_driver_sdk::proto::{FieldViolation, ResourceLimits, SandboxSpec};
use cofferdam_driver_sdk::settings;
use cofferdam_driver_sdk::spec::Violations;
use serde::{Deserialize, Serialize};

use crate::config::DriverConfig;

/// What the platform is asked for. Stored with the sandbox: a later boot asks for the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Whom the workload runs as.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nice: i32,
    /// Then everything is ended, whoever else is dead by then.
    pub(crate) expire_time_unix_ms: u64,
    /// What the spec asks for and does not get.
    pub(crate) weaknesses: Vec<String>,
}

/// Who the driver is: only root can choose whom a workload runs as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ourselves {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Ourselves {
    pub(crate) fn here() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    pub(crate) fn is_root(self) -> bool {
        self.uid == 0
    }
}

/// The plan for a spec that the SDK has checked against the contract, the capabilities and the
/// schema already: what is left is what only this platform knows.
pub(crate) fn plan(spec: &SandboxSpec, ourselves: Ourselves) -> Result<Plan, Vec<FieldViolation>> {
    let mut found = Violations::new();
    // REPLACE: say no to what your platform cannot do, by the field's name.
    found.check(
        spec.mounts.is_empty(),
        "mounts",
        "this driver makes no mounts",
    );
    let config = match settings::driver_config::<DriverConfig>(spec) {
        Ok(config) => config,
        Err(violations) => {
            for violation in violations {
                found.add(violation.field, violation.message);
            }
            DriverConfig::default()
        }
    };
    found.into_violations()?;
    let (uid, gid) = match ourselves.is_root() {
        true => (spec.uid, spec.gid),
        false => (ourselves.uid, ourselves.gid),
    };
    Ok(Plan {
        uid,
        gid,
        nice: config.nice,
        expire_time_unix_ms: spec.expire_time_unix_ms,
        weaknesses: weaknesses(spec, uid),
    })
}

/// REPLACE: strike out each sentence that is not true of your platform any more.
fn weaknesses(spec: &SandboxSpec, uid: u32) -> Vec<String> {
    let mut all = vec![
        "NO ISOLATION: the sandbox's processes are plain processes of the host".to_owned(),
        "the root file system is the host's".to_owned(),
    ];
    if uid != spec.uid {
        all.push(format!("the workload runs as uid {uid}, like the driver"));
    }
    let limits = spec.limits.unwrap_or_default();
    all.extend(unlimited(&limits).map(|what| format!("{what} is not limited")));
    all
}

fn unlimited(limits: &ResourceLimits) -> impl Iterator<Item = &'static str> {
    let asked = [
        (limits.memory_bytes, "memory"),
        (limits.cpu_millis, "cpu"),
        (limits.pids, "the number of processes"),
        (limits.disk_bytes, "disk"),
    ];
    asked
        .into_iter()
        .filter(|(limit, _)| *limit > 0)
        .map(|(_, what)| what)
}

#[cfg(test)]
mod tests {
    use cofferdam_driver_sdk::proto::Mount;

    use super::*;

    const ROOT: Ourselves = Ourselves { uid: 0, gid: 0 };
    const SOMEBODY: Ourselves = Ourselves { uid: 7, gid: 8 };

    fn spec() -> SandboxSpec {
        SandboxSpec {
            uid: 1000,
            gid: 1001,
            expire_time_unix_ms: 99,
            driver_config: Some(settings::from_json(
                &serde_json::from_str(r#"{"nice": 10}"#).unwrap(),
            )),
            limits: Some(ResourceLimits {
                memory_bytes: 1,
                ..ResourceLimits::default()
            }),
            ..SandboxSpec::default()
        }
    }

    #[test]
    fn what_is_asked_for_is_planned_and_what_is_not_given_is_said() {
        let plan = plan(&spec(), ROOT).unwrap();
        assert_eq!((plan.uid, plan.gid, plan.nice), (1000, 1001, 10));
        assert_eq!(plan.expire_time_unix_ms, 99);
        let said = plan.weaknesses.join("\n");
        assert!(said.contains("NO ISOLATION"), "{said}");
        assert!(said.contains("memory is not limited"), "{said}");
        assert!(!said.contains("cpu is not limited"), "{said}");
    }

    #[test]
    fn only_root_can_choose_whom_a_workload_runs_as() {
        let plan = plan(&spec(), SOMEBODY).unwrap();
        assert_eq!((plan.uid, plan.gid), (7, 8));
        assert!(plan.weaknesses.iter().any(|text| text.contains("uid 7")));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_its_name() {
        let spec = SandboxSpec {
            mounts: vec![Mount::default()],
            ..spec()
        };
        let violations = plan(&spec, ROOT).unwrap_err();
        assert_eq!(violations[0].field, "mounts");
    }
}
