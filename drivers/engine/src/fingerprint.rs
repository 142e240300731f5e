//! What the engine is and can do now, in the contract's words. Pure.

use cofferdam_driver_sdk::capabilities::{failed, fingerprint, passed, warning};
use cofferdam_driver_sdk::proto::{Check, FingerprintResponse, Health, Limits, Resources};

use crate::facts::EngineFacts;
use crate::health::{Trouble, TroubleKind};
use crate::monitor::Link;
use crate::settings::Config;

pub(crate) fn of(link: &Link, config: &Config, sandboxes: u64) -> FingerprintResponse {
    match link {
        Link::Connecting => fingerprint(vec![failed(
            "engine",
            "the engine has not answered yet",
            "wait a few seconds",
        )]),
        Link::Down(trouble) => down(trouble),
        Link::Up(engine) => up(&engine.facts, config, sandboxes),
    }
}

fn down(trouble: &Trouble) -> FingerprintResponse {
    let check = failed("engine", trouble.message.clone(), trouble.fix.clone());
    let mut print = fingerprint(vec![check]);
    if trouble.kind == TroubleKind::Absent {
        print.health = Health::Undetected.into();
    }
    print
}

fn up(facts: &EngineFacts, config: &Config, sandboxes: u64) -> FingerprintResponse {
    let mut checks = vec![passed(
        "engine",
        format!(
            "{} (API {}) at {}",
            facts.version, facts.api_version, facts.address
        ),
    )];
    checks.push(seccomp(facts));
    checks.extend(limits(facts));
    checks.extend(runtime(facts, config));
    let mut print = fingerprint(checks);
    print.limits = Some(Limits {
        memory: facts.limits.memory,
        cpu: facts.limits.cpu,
        pids: facts.limits.pids,
        disk: false,
    });
    print.capacity = Some(Resources {
        cpu_millis: (facts.cpus > 0).then_some(facts.cpus * 1000),
        memory_bytes: (facts.memory_bytes > 0).then_some(facts.memory_bytes),
        ..Resources::default()
    });
    print.used = Some(Resources {
        sandboxes: Some(sandboxes),
        ..Resources::default()
    });
    print.attributes = attributes(facts)
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    print
}

fn attributes(facts: &EngineFacts) -> impl Iterator<Item = (&'static str, String)> {
    let yes_no = |value: bool| value.to_string();
    [
        ("engine.address", facts.address.clone()),
        ("engine.version", facts.version.clone()),
        ("engine.api_version", facts.api_version.clone()),
        ("engine.rootless", yes_no(facts.rootless)),
        ("engine.live_restore", yes_no(facts.live_restore)),
        ("engine.storage_driver", facts.storage_driver.clone()),
        ("engine.runtime", facts.default_runtime.clone()),
        ("engine.runtimes", facts.runtimes.join(" ")),
        ("engine.security", facts.security_modules.join(" ")),
        ("cgroup.version", facts.cgroup_version.clone()),
        ("host.name", facts.host.clone()),
        ("host.os", facts.operating_system.clone()),
        ("kernel", facts.kernel.clone()),
        ("architecture", facts.architecture.clone()),
    ]
    .into_iter()
}

fn seccomp(facts: &EngineFacts) -> Check {
    match facts.seccomp {
        true => passed("seccomp", "the engine sets its filter"),
        false => warning(
            "seccomp",
            "the engine sets no seccomp filter: sandboxes can make every system call",
            "start the engine with its default seccomp profile, on a kernel with CONFIG_SECCOMP",
        ),
    }
}

fn limits(facts: &EngineFacts) -> impl Iterator<Item = Check> {
    let can = facts.limits;
    let fix = match facts.rootless {
        true => {
            "let systemd delegate the controllers to the engine's user: Delegate=cpu memory pids \
             in user@.service.d, and log in again"
        }
        false => "use a kernel with the cgroup controllers memory, cpu and pids",
    };
    let swap_fix = "boot the engine's host with swapaccount=1, or with cgroups v2";
    [
        ("limit_memory", can.memory, fix),
        ("limit_swap", can.swap, swap_fix),
        ("limit_cpu", can.cpu, fix),
        ("limit_pids", can.pids, fix),
    ]
    .into_iter()
    .filter(|(_, can, _)| !can)
    .map(|(id, _, fix)| {
        let what = id.trim_start_matches("limit_");
        warning(id, format!("limits on {what} are not enforced"), fix)
    })
}

fn runtime(facts: &EngineFacts, config: &Config) -> Option<Check> {
    let wanted = config.runtime.as_ref()?;
    if facts.runtimes.is_empty() || facts.runtimes.contains(wanted) {
        return Some(passed("runtime", wanted.clone()));
    }
    Some(failed(
        "runtime",
        format!(
            "the engine has no runtime {wanted:?}; it has {}",
            facts.runtimes.join(", ")
        ),
        "install the runtime and tell the engine about it, or change the setting runtime",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::Discovered;
    use crate::settings::Settings;

    fn config(runtime: Option<&str>) -> Config {
        let settings = Settings {
            runtime: runtime.map(str::to_owned),
            ..Settings::default()
        };
        settings.resolve(Discovered::default(), "bridge").unwrap()
    }

    #[test]
    fn an_engine_that_is_not_there_is_undetected_and_a_silent_one_unhealthy() {
        let trouble = |kind| Trouble {
            kind,
            message: "m".to_owned(),
            fix: "f".to_owned(),
        };
        let print = of(&Link::Down(trouble(TroubleKind::Absent)), &config(None), 0);
        assert_eq!(print.health(), Health::Undetected);
        let print = of(&Link::Down(trouble(TroubleKind::Silent)), &config(None), 0);
        assert_eq!((print.health(), &*print.fix), (Health::Unhealthy, "f"));
    }

    #[test]
    fn what_the_host_lacks_is_a_warning_with_its_remedy() {
        let mut facts = EngineFacts {
            runtimes: vec!["runc".to_owned()],
            ..EngineFacts::default()
        };
        facts.limits.swap = false;
        let print = up(&facts, &config(None), 3);
        assert_eq!(print.health(), Health::Healthy);
        let ids: Vec<_> = print.checks.iter().map(|check| check.id.as_str()).collect();
        assert_eq!(ids, ["engine", "seccomp", "limit_swap"]);
        let print = up(&facts, &config(Some("runsc")), 3);
        assert_eq!(print.health(), Health::Unhealthy);
        assert!(print.reason.contains("runsc"));
    }
}
