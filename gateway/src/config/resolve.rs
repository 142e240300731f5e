//! From what was said to what is used: defaults with their reasons, and every contradiction.

use std::path::PathBuf;
use std::time::Duration;

use super::effective::Effective;
use super::flags::{self, Flags};
use super::paths::{self, Host, SUPERVISOR};
use super::problem::{ConfigError, Located, Origin, Problem};
use super::scalar::Scalar;
use super::settled::Settled;
use super::wire::{DriverLayer, KEYS, Layer};
use super::{
    Config, DriverSpec, ExecutionLimits, LogConfig, LogFormat, SandboxDefaults, SandboxMaximum,
    SocketConfig, drivers, limits, sources,
};
use crate::model::DriverName;
use crate::store::Durability;

/// A configuration, and how it came about.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub config: Config,
    pub effective: Effective,
    /// What works, but is probably not meant.
    pub warnings: Vec<Problem>,
}

/// Reads and checks everything: flags over environment over files over defaults. Makes nothing.
pub fn load(flags: &Flags, host: &Host) -> Result<Resolved, ConfigError> {
    let mut problems = Vec::new();
    let (mut layer, files) = sources::from_files(flags, host, &mut problems);
    layer.overlay(flags::from_environment(host, &mut problems));
    layer.overlay(flags::from_flags(flags, host, &mut problems));
    resolve(layer, files, problems, host)
}

/// As [`load`], but flags are all there is: no files, no environment.
pub fn from_flags_alone(flags: &Flags, host: &Host) -> Result<Resolved, ConfigError> {
    let mut problems = Vec::new();
    let layer = flags::from_flags(flags, host, &mut problems);
    resolve(layer, Vec::new(), problems, host)
}

fn resolve(
    layer: Layer,
    files: Vec<PathBuf>,
    problems: Vec<Problem>,
    host: &Host,
) -> Result<Resolved, ConfigError> {
    let mut settled = Settled {
        layer,
        lines: Vec::with_capacity(KEYS.len()),
        problems,
        warnings: Vec::new(),
    };
    let state_dir = settled.path("state_dir", host.state_dir());
    let runtime_dir = settled.path("runtime_dir", host.runtime_dir());
    let mut named = named_drivers(&settled.layer);
    let libexec = libexec_dir(&mut settled, &named, host);
    leave_out_missing_default(&mut named, libexec.as_deref());
    let supervisor = supervisor(&mut settled, libexec.as_ref());
    let specs = specs(&mut settled, &named, libexec.as_deref());
    let default_driver = default_driver(&mut settled, &named);
    let socket = socket(&mut settled, &runtime_dir, host);
    let defaults = sandbox_defaults(&mut settled);
    let maximum = sandbox_maximum(&mut settled);
    let executions = execution_limits(&mut settled);
    limits::check(&mut settled, &defaults, &maximum, &executions);
    let create_timeout = settled.duration(
        "timeouts.create",
        Duration::from_secs(120),
        "a cold image on a slow line",
    );
    let session_timeout = settled.duration(
        "timeouts.session",
        Duration::from_secs(30),
        "an emulated machine boots in a few seconds",
    );
    let drain_timeout = settled.duration(
        "timeouts.drain",
        Duration::from_secs(30),
        "what runs on after it is found again by the next start",
    );
    let driver_timeout = settled.duration(
        "timeouts.driver",
        Duration::from_secs(60),
        "accepting or removing a sandbox on the slowest platform",
    );
    let driver_silence = settled.duration(
        "timeouts.driver_silence",
        Duration::from_secs(35),
        "three bookmarks of its watch were due",
    );
    let log = log(&mut settled);

    match (supervisor, default_driver) {
        (Some(supervisor), Some(default_driver)) if settled.problems.is_empty() => Ok(Resolved {
            effective: Effective {
                files,
                lines: settled.lines,
                drivers: specs.clone(),
            },
            config: Config {
                state_dir,
                runtime_dir,
                socket,
                supervisor,
                drivers: specs.into_iter().map(|(spec, _)| spec).collect(),
                default_driver,
                defaults,
                maximum,
                executions,
                create_timeout,
                session_timeout,
                drain_timeout,
                driver_timeout,
                driver_silence,
                log,
                durability: Durability::Lasting,
            },
            warnings: settled.warnings,
        }),
        _ => Err(ConfigError::new(settled.problems)),
    }
}

/// The drivers that are wanted: those that are named and not disabled. A driver behind a socket is
/// one more, not one instead: without any built-in that is named, the one that needs nothing is
/// there too.
fn named_drivers(layer: &Layer) -> Vec<(String, DriverLayer)> {
    let mut wanted: Vec<(String, DriverLayer)> = layer
        .drivers
        .iter()
        .filter(|(_, driver)| driver.enabled != Some(false))
        .map(|(name, driver)| (name.clone(), driver.clone()))
        .collect();
    let only_sockets = wanted.iter().all(|(_, driver)| driver.socket.is_some());
    let has_default = layer.drivers.contains_key(drivers::BUILT_IN_DEFAULT);
    if only_sockets && !has_default {
        let origin = Origin::Default("it needs nothing installed");
        let name = drivers::BUILT_IN_DEFAULT.to_owned();
        wanted.push((name, DriverLayer::new(origin)));
        wanted.sort_by(|a, b| a.0.cmp(&b.0));
    }
    wanted
}

/// Nobody asked for it by name: beside other drivers, it is there if it is installed.
fn leave_out_missing_default(
    named: &mut Vec<(String, DriverLayer)>,
    libexec: Option<&std::path::Path>,
) {
    let is_installed = |name: &str| {
        let program = libexec.map(|libexec| drivers::built_in_program(libexec, name));
        program.is_some_and(|program| program.exists())
    };
    if named.len() > 1 {
        named.retain(|(name, driver)| !driver.is_implied() || is_installed(name));
    }
}

/// Only looked for when something is to be found in it.
fn libexec_dir(
    settled: &mut Settled,
    named: &[(String, DriverLayer)],
    host: &Host,
) -> Option<PathBuf> {
    let is_said = |name: &str| settled.layer.values.contains_key(name);
    let needed = !is_said("supervisor")
        || named
            .iter()
            .any(|(_, driver)| driver.is_built_in() && (named.len() == 1 || !driver.is_implied()));
    if is_said("libexec_dir") {
        return Some(settled.path("libexec_dir", (PathBuf::new(), "")));
    }
    match host.libexec_dir() {
        Ok(found) => Some(settled.path("libexec_dir", found)),
        Err(problem) => {
            if needed {
                settled.problems.push(problem);
            }
            None
        }
    }
}

fn supervisor(settled: &mut Settled, libexec: Option<&PathBuf>) -> Option<PathBuf> {
    if libexec.is_none() && !settled.layer.values.contains_key("supervisor") {
        return None;
    }
    let default = libexec
        .map(|libexec| libexec.join(SUPERVISOR))
        .unwrap_or_default();
    let path = settled.path("supervisor", (default, "beside the built-in drivers"));
    let Some(trouble) = paths::executable_trouble(&path) else {
        return Some(path);
    };
    settled.problem_with("supervisor", |_| Problem::new(None, "supervisor", trouble));
    None
}

fn specs(
    settled: &mut Settled,
    named: &[(String, DriverLayer)],
    libexec: Option<&std::path::Path>,
) -> Vec<(DriverSpec, Origin)> {
    if named.is_empty() {
        let message = "every driver is disabled";
        settled
            .problems
            .push(Problem::new(None, "drivers", message));
    }
    let problems = &mut settled.problems;
    let specs = named.iter().filter_map(|(name, driver)| {
        let spec = drivers::resolve(name, driver, libexec, problems)?;
        Some((spec, driver.origin.clone()))
    });
    specs.collect()
}

/// The one that was named; else the built-in default, if it is there; else the only one.
fn default_driver(settled: &mut Settled, named: &[(String, DriverLayer)]) -> Option<DriverName> {
    let is_there = |name: &str| named.iter().any(|(there, _)| there == name);
    let (default, reason) = match named {
        [(only, _)] => (only.as_str(), "it is the only one"),
        _ if is_there(drivers::BUILT_IN_DEFAULT) => {
            (drivers::BUILT_IN_DEFAULT, "it is there on every host")
        }
        _ => ("", ""),
    };
    if default.is_empty() && !settled.layer.values.contains_key("default_driver") {
        if !named.is_empty() {
            let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
            let message = format!("has to say which of {} is meant", names.join(", "));
            settled
                .problems
                .push(Problem::new(None, "default_driver", message));
        }
        return None;
    }
    let chosen = settled.text("default_driver", default, reason);
    if !is_there(&chosen.value) {
        let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!(
            "{:?} is not among the drivers: {}",
            chosen.value,
            names.join(", ")
        );
        let problem = Problem::new(chosen.origin, "default_driver", message);
        settled.problems.push(problem);
        return None;
    }
    // A name that breaks the rules is a problem of the driver's own, said there.
    DriverName::parse(&chosen.value).ok()
}

fn socket(settled: &mut Settled, runtime_dir: &std::path::Path, host: &Host) -> SocketConfig {
    let default = runtime_dir.join("gateway.sock");
    let path = settled.path("socket.path", (default, "in the runtime directory"));
    if let Some(trouble) = drivers::socket_trouble(&path) {
        settled.problem_with("socket.path", |_| {
            Problem::new(None, "socket.path", trouble)
        });
    }
    let (mode, why) = match host.is_system() {
        true => (0o660, "owner and group may connect"),
        false => (0o600, "it is your own gateway"),
    };
    let mode = settled.number("socket.mode", mode, why);
    if mode & 0o002 != 0 {
        let message = "lets everybody on this host run code as the gateway's drivers do";
        settled
            .warnings
            .push(Problem::new(None, "socket.mode", message));
    }
    let group = group(settled, host);
    SocketConfig {
        path,
        mode: u32::try_from(mode).unwrap_or(0o600),
        group,
    }
}

fn group(settled: &mut Settled, host: &Host) -> Option<String> {
    const GROUP: &str = "cofferdam";
    let (default, reason) = match host.uid == 0 && host.group_exists(GROUP) {
        true => (Scalar::Text(GROUP.to_owned()), "the group exists"),
        false => (Scalar::Unlimited, "the gateway's own group"),
    };
    let Located { value, origin } = settled.value("socket.group", default, reason);
    let Scalar::Text(group) = value else {
        return None;
    };
    if !host.group_exists(&group) {
        let message = format!("there is no group {group:?} in /etc/group");
        let hint = format!("make it (groupadd --system {group}), or give a group's number");
        let problem = Problem::new(origin, "socket.group", message).hint(hint);
        settled.problems.push(problem);
    }
    Some(group)
}

fn sandbox_defaults(settled: &mut Settled) -> SandboxDefaults {
    let mib = 1 << 20;
    SandboxDefaults {
        memory_bytes: settled.number("defaults.memory", 512 * mib, "enough for most tools"),
        cpu_millis: settled.number(
            "defaults.cpus",
            1_000,
            "one busy loop leaves the host usable",
        ),
        pids: settled.number("defaults.pids", 256, "a build's worth; stops a fork bomb"),
        disk_bytes: settled.number(
            "defaults.disk",
            256 * mib,
            "half of memory, which it may be",
        ),
        tmp_bytes: settled.number("defaults.tmp", 100 * mib, "it may be memory"),
        lifetime: settled.duration(
            "defaults.lifetime",
            Duration::from_secs(24 * 3600),
            "what is forgotten is gone tomorrow",
        ),
        uid: id(settled.number("defaults.uid", 1000, "the usual first user, not root")),
        gid: id(settled.number("defaults.gid", 1000, "the usual first user's group")),
    }
}

fn id(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(1000)
}

fn sandbox_maximum(settled: &mut Settled) -> SandboxMaximum {
    let platform = "as much as the platform gives";
    SandboxMaximum {
        memory_bytes: settled.limit("maximum.memory", None, platform),
        cpu_millis: settled.limit("maximum.cpus", None, platform),
        pids: settled.limit("maximum.pids", None, platform),
        disk_bytes: settled.limit("maximum.disk", None, platform),
        tmp_bytes: settled.limit("maximum.tmp", None, platform),
        lifetime: {
            let month = Scalar::Duration(Duration::from_secs(30 * 24 * 3600));
            let reason = "everything ends some day";
            match settled.value("maximum.lifetime", month, reason).value {
                Scalar::Duration(duration) => Some(duration),
                _ => None,
            }
        },
        sandboxes: settled.limit(
            "maximum.sandboxes",
            Some(1_000),
            "a runaway caller is noticed before the host is",
        ),
    }
}

fn execution_limits(settled: &mut Settled) -> ExecutionLimits {
    let mib = 1 << 20;
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    ExecutionLimits {
        timeout_default: settled.duration(
            "executions.timeout_default",
            Duration::from_secs(300),
            "long for a command, short for a mistake",
        ),
        timeout_max: settled.duration(
            "executions.timeout_max",
            Duration::from_secs(24 * 3600),
            "as long as a sandbox lives by default",
        ),
        cancel_grace: settled.duration(
            "executions.cancel_grace",
            Duration::from_secs(2),
            "time to clean up, not to argue",
        ),
        output_cap_default_bytes: settled.number(
            "executions.output_cap_default",
            64 * mib,
            "more than anybody reads",
        ),
        output_cap_max_bytes: settled.number(
            "executions.output_cap_max",
            1024 * mib,
            "it is on the gateway's disk",
        ),
        running_max: count(settled.number(
            "executions.running_max",
            1_024,
            "about 100 KiB of the gateway's memory each",
        )),
        queue_max: count(settled.number(
            "executions.queue_max",
            10_000,
            "a burst waits, a flood is told to come again",
        )),
        retention: settled.duration(
            "executions.retention",
            Duration::from_secs(7 * 24 * 3600),
            "last week's runs can be looked up",
        ),
    }
}

fn log(settled: &mut Settled) -> LogConfig {
    let format = settled.text("log.format", "text", "for people and journald");
    let filter = settled.text("log.filter", "info", "decisions and their reasons");
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter.value) {
        let problem = Problem::new(filter.origin, "log.filter", error.to_string());
        settled
            .problems
            .push(problem.hint("write info, debug or cofferdam_gateway=debug,info"));
    }
    LogConfig {
        format: match format.value.as_str() {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        },
        filter: filter.value,
    }
}
