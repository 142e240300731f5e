//! May this sandbox be made, and what exactly is it? Everything is checked before anything is.
//!
//! Pure, but for the driver's own validation: wishes + defaults + bounds + what the driver can do
//! give a full spec, or everything that is wrong with the wishes.

use std::collections::BTreeMap;

use crate::config::{SandboxDefaults, SandboxMaximum};
use crate::driver::{Capabilities, DriverView, Execution, Violation};
use crate::model::{
    Environment, ImageSource, ImageSpec, Isolation, LimitSet, Mount, MountSource, NetworkClass,
    NetworkSpec, PullPolicy, ResourceLimits, SandboxName, SandboxSpec, UnixMillis,
};
use crate::units::{show_cpus, show_duration_ms, show_size};

/// What a caller asks for. Empty and `None`: the default.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    pub driver: String,
    pub name: String,
    pub image: String,
    pub pull: PullPolicy,
    pub user: String,
    pub memory_bytes: Option<u64>,
    pub cpu_millis: Option<u64>,
    pub pids: Option<u64>,
    pub disk_bytes: Option<u64>,
    pub tmp_bytes: Option<u64>,
    pub network: Option<NetworkClass>,
    pub egress_allow: Vec<String>,
    pub mounts: Vec<Mount>,
    pub labels: BTreeMap<String, String>,
    pub lifetime_ms: u64,
    pub idle_timeout_ms: u64,
    pub gpus: u32,
    pub driver_config: serde_json::Map<String, serde_json::Value>,
    pub isolation_min: Option<Isolation>,
    pub root_writable: bool,
    pub workspace: String,
    pub environment: Environment,
}

/// Smaller makes no sense: the supervisor itself needs some.
const MEMORY_BYTES_MIN: u64 = 8 << 20;
/// The supervisor and its threads count, and one process beside each command: a shell with a
/// pipeline, while files are copied, needs about this many.
const PIDS_MIN: u64 = 16;
const CPU_MILLIS_MIN: u64 = 10;
/// A disk limit or a /tmp of one page holds nothing.
const DISK_BYTES_MIN: u64 = 64 << 10;
/// No machine is larger; more is a mistake in a unit.
const MEMORY_BYTES_MAX: u64 = 64 << 40;
const CPU_MILLIS_MAX: u64 = 4_096_000;
/// The kernel's own.
const PIDS_MAX: u64 = 4_194_304;
const LABELS_MAX: usize = 64;
const MOUNTS_MAX: usize = 64;
const ENVIRONMENT_MAX: usize = 1_024;
const ENVIRONMENT_BYTES_MAX: usize = 1 << 20;

/// The violations so far.
#[derive(Debug, Default)]
pub struct Problems(pub Vec<Violation>);

impl Problems {
    pub fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Violation {
            field: field.into(),
            message: message.into(),
        });
    }
}

/// A spec with every default filled in; what is wrong goes to `problems`. Without capabilities it is
/// not known what the driver can do: everything else is looked at all the same.
pub fn resolve(
    wishes: &Wishes,
    defaults: &SandboxDefaults,
    maximum: &SandboxMaximum,
    capabilities: Option<&Capabilities>,
    problems: &mut Problems,
) -> SandboxSpec {
    check_names(wishes, problems);
    check_environment("environment", &wishes.environment, problems);
    let (uid, gid) = user(wishes, defaults, problems);
    let lifetime_ms = lifetime(wishes, defaults, maximum, problems);
    let workspace = match wishes.workspace.as_str() {
        "" => "/workspace".to_owned(),
        path => {
            check_path("workspace", path, problems);
            path.to_owned()
        }
    };
    let network = network(wishes, problems);
    let mounts = mounts(wishes, problems);
    SandboxSpec {
        image: image(wishes, capabilities, problems),
        uid,
        gid,
        limits: limits(wishes, defaults, maximum, problems),
        network,
        mounts,
        labels: wishes.labels.clone(),
        expire_time: UnixMillis::now().after(std::time::Duration::from_millis(lifetime_ms)),
        gpus: wishes.gpus,
        driver_config: wishes.driver_config.clone(),
        isolation_min: wishes.isolation_min,
        root_writable: wishes.root_writable,
        workspace,
        // A name that is none is told as that, and not as a wrong hostname as well.
        hostname: SandboxName::parse(&wishes.name)
            .map_or_else(|_| "sandbox".to_owned(), |name| name.to_string()),
    }
}

fn check_names(wishes: &Wishes, problems: &mut Problems) {
    if !wishes.name.is_empty()
        && let Err(error) = SandboxName::parse(&wishes.name)
    {
        problems.add("name", error.to_string());
    }
    if wishes.name.starts_with("sbx-") {
        problems.add("name", "names beginning with \"sbx-\" are reserved for ids");
    }
    if wishes.labels.len() > LABELS_MAX {
        problems.add(
            "labels",
            format!("at most {LABELS_MAX} labels are possible"),
        );
    }
    for (key, value) in &wishes.labels {
        if key.is_empty() || key.len() > 256 || value.len() > 4_096 {
            problems.add(
                format!("labels[{key:?}]"),
                "a key has 1 to 256 bytes, a value at most 4096",
            );
        }
        if key.starts_with("cofferdam.") {
            problems.add(
                format!("labels[{key:?}]"),
                "keys beginning with \"cofferdam.\" are the gateway's",
            );
        }
    }
}

/// Also of executions.
pub fn check_environment(field: &str, environment: &Environment, problems: &mut Problems) {
    if environment.0.len() > ENVIRONMENT_MAX {
        problems.add(field, format!("at most {ENVIRONMENT_MAX} variables"));
    }
    let bytes: usize = environment.0.iter().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > ENVIRONMENT_BYTES_MAX {
        problems.add(field, "all names and values together have at most 1 MiB");
    }
    for (name, value) in &environment.0 {
        // The value may be a secret: only the name is shown.
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            problems.add(
                format!("{field}[{name:?}]"),
                "a name is not empty and holds no \"=\"; neither name nor value holds a NUL byte",
            );
        }
    }
}

fn user(wishes: &Wishes, defaults: &SandboxDefaults, problems: &mut Problems) -> (u32, u32) {
    if wishes.user.is_empty() {
        return (defaults.uid, defaults.gid);
    }
    match parse_user(&wishes.user) {
        Some((uid, gid)) => (uid, gid.unwrap_or(uid)),
        None => {
            problems.add(
                "user",
                format!(
                    "{:?} is not a user: give a numeric id, UID or UID:GID, at most 4294967294",
                    wishes.user
                ),
            );
            (defaults.uid, defaults.gid)
        }
    }
}

/// `UID` or `UID:GID`.
pub fn parse_user(text: &str) -> Option<(u32, Option<u32>)> {
    let id = |text: &str| text.parse().ok().filter(|id| *id != u32::MAX);
    match text.split_once(':') {
        None => Some((id(text)?, None)),
        Some((uid, gid)) => Some((id(uid)?, Some(id(gid)?))),
    }
}

fn lifetime(
    wishes: &Wishes,
    defaults: &SandboxDefaults,
    maximum: &SandboxMaximum,
    problems: &mut Problems,
) -> u64 {
    let millis =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let asked = match wishes.lifetime_ms {
        0 => millis(defaults.lifetime),
        asked => asked,
    };
    if let Some(max) = maximum.lifetime.map(millis)
        && asked > max
    {
        problems.add(
            "lifetime_ms",
            format!(
                "{} is more than this gateway allows, {}",
                show_duration_ms(asked),
                show_duration_ms(max)
            ),
        );
    }
    asked
}

fn limits(
    wishes: &Wishes,
    defaults: &SandboxDefaults,
    maximum: &SandboxMaximum,
    problems: &mut Problems,
) -> ResourceLimits {
    let mut pick = |field: &str, asked: Option<u64>, default, range: Range, max: Option<u64>| {
        let value = asked.unwrap_or(default);
        problems
            .0
            .extend(range.problem(value, max).map(|message| Violation {
                field: field.to_owned(),
                message,
            }));
        value
    };
    ResourceLimits {
        memory_bytes: pick(
            "memory_bytes",
            wishes.memory_bytes,
            defaults.memory_bytes,
            Range(MEMORY_BYTES_MIN, MEMORY_BYTES_MAX, show_size),
            maximum.memory_bytes,
        ),
        cpu_millis: pick(
            "cpu_millis",
            wishes.cpu_millis,
            defaults.cpu_millis,
            Range(CPU_MILLIS_MIN, CPU_MILLIS_MAX, show_cpus),
            maximum.cpu_millis,
        ),
        pids: pick(
            "pids",
            wishes.pids,
            defaults.pids,
            Range(PIDS_MIN, PIDS_MAX, |pids| pids.to_string()),
            maximum.pids,
        ),
        disk_bytes: pick(
            "disk_bytes",
            wishes.disk_bytes,
            defaults.disk_bytes,
            Range(DISK_BYTES_MIN, MEMORY_BYTES_MAX, show_size),
            maximum.disk_bytes,
        ),
        tmp_bytes: pick(
            "tmp_bytes",
            wishes.tmp_bytes,
            defaults.tmp_bytes,
            Range(DISK_BYTES_MIN, MEMORY_BYTES_MAX, show_size),
            maximum.tmp_bytes,
        ),
        required: LimitSet {
            memory: wishes.memory_bytes.is_some_and(|value| value > 0),
            cpu: wishes.cpu_millis.is_some_and(|value| value > 0),
            pids: wishes.pids.is_some_and(|value| value > 0),
            disk: wishes.disk_bytes.is_some_and(|value| value > 0),
        },
    }
}

/// What makes sense for a limit, from and to, and how people write its values.
struct Range(u64, u64, fn(u64) -> String);

impl Range {
    /// What is wrong with a value; 0 is no limit. `max` is the operator's.
    fn problem(&self, value: u64, max: Option<u64>) -> Option<String> {
        let Self(least, most, show) = self;
        match (value, max) {
            (0, Some(max)) => Some(format!(
                "no limit is not allowed here; use at most {}",
                show(max)
            )),
            (0, None) => None,
            (value, _) if value < *least => Some(format!(
                "{} is too small; use at least {}",
                show(value),
                show(*least)
            )),
            (value, Some(max)) if value > max => Some(format!(
                "{} is more than this gateway allows, {}",
                show(value),
                show(max)
            )),
            (value, _) if value > *most => Some(format!(
                "{} is more than any machine has; use at most {}",
                show(value),
                show(*most)
            )),
            _ => None,
        }
    }
}

fn network(wishes: &Wishes, problems: &mut Problems) -> NetworkSpec {
    let class = wishes.network.unwrap_or(NetworkClass::None);
    if class == NetworkClass::Egress && wishes.egress_allow.is_empty() {
        problems.add(
            "egress_allow",
            "network class \"egress\" needs a list of destinations",
        );
    }
    if class != NetworkClass::Egress && !wishes.egress_allow.is_empty() {
        problems.add("egress_allow", "is only for network class \"egress\"");
    }
    NetworkSpec {
        class,
        allow: wishes.egress_allow.clone(),
    }
}

fn mounts(wishes: &Wishes, problems: &mut Problems) -> Vec<Mount> {
    if wishes.mounts.len() > MOUNTS_MAX {
        problems.add(
            "mounts",
            format!("at most {MOUNTS_MAX} mounts are possible"),
        );
    }
    for (index, mount) in wishes.mounts.iter().enumerate() {
        check_path(&format!("mounts[{index}].target"), &mount.target, problems);
        if let MountSource::HostPath(path) = &mount.source {
            check_path(&format!("mounts[{index}].host_path"), path, problems);
        }
    }
    wishes.mounts.clone()
}

fn check_path(field: &str, path: &str, problems: &mut Problems) {
    let clean = path.starts_with('/')
        && path.len() <= 1_024
        && !path.contains('\0')
        && !path.split('/').any(|part| part == "..");
    if !clean {
        problems.add(
            field,
            format!("{path:?} is not an absolute path without \"..\""),
        );
    }
}

fn image(
    wishes: &Wishes,
    capabilities: Option<&Capabilities>,
    problems: &mut Problems,
) -> ImageSpec {
    let has_default = capabilities.is_none_or(|can| can.images.host);
    let source = match wishes.image.as_str() {
        "" => {
            if !has_default {
                problems.add("image", "this driver needs one");
            }
            ImageSource::Host
        }
        "host" => ImageSource::Host,
        text => match text.strip_prefix("archive:") {
            Some(path) => {
                check_path("image", path, problems);
                ImageSource::Archive(path.to_owned())
            }
            None => ImageSource::Reference(text.to_owned()),
        },
    };
    ImageSpec {
        source,
        pull: wishes.pull,
        credentials: None,
        platform: String::new(),
    }
}

/// What a request needs of a driver that has it not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// What of the request asks for it.
    pub field: &'static str,
    /// In the words of the command line.
    pub what: &'static str,
}

/// What a request needs and this driver lacks.
pub fn missing(spec: &SandboxSpec, needs: ExecutionNeeds, view: &DriverView) -> Vec<Missing> {
    let Some(can) = &view.capabilities else {
        return vec![];
    };
    let held = view.fingerprint.as_ref().map_or(can.limits, |f| f.limits);
    let asked = spec.limits.required;
    let is_executed_by_driver = can.execution == Execution::DriverExecuted;
    let mut missing = Vec::new();
    let mut check = |lacks: bool, field, what| {
        if lacks {
            missing.push(Missing { field, what });
        }
    };
    let (lacks, what) = match spec.image.source {
        ImageSource::Host => (!can.images.host, "image \"host\""),
        ImageSource::Reference(_) => (!can.images.registry, "images from a registry"),
        ImageSource::Archive(_) => (!can.images.archive, "images from an archive"),
    };
    check(lacks, "image", what);
    let class = spec.network.class;
    check(
        !can.networks.contains(&class),
        "network",
        network_words(class),
    );
    check(asked.memory && !held.memory, "memory_bytes", "memory limit");
    check(asked.cpu && !held.cpu, "cpu_millis", "cpu limit");
    check(asked.pids && !held.pids, "pids", "pids limit");
    check(asked.disk && !held.disk, "disk_bytes", "disk limit");
    check(spec.gpus > 0 && !can.gpu, "gpus", "gpus");
    let host_mount = |mount: &Mount| matches!(mount.source, MountSource::HostPath(_));
    let has_mounts = spec.mounts.iter().any(host_mount);
    check(has_mounts && !can.host_mounts, "mounts", "host mounts");
    let is_too_weak = spec
        .isolation_min
        .is_some_and(|wanted| can.isolation.is_none_or(|given| given < wanted));
    check(is_too_weak, "isolation_min", "the isolation asked for");
    let session = "commands over a supervisor's session";
    check(is_executed_by_driver, "driver", session);
    check(needs.stdin && is_executed_by_driver, "stdin", "stdin");
    check(needs.pty && is_executed_by_driver, "pty", "pty");
    missing
}

fn network_words(class: NetworkClass) -> &'static str {
    match class {
        NetworkClass::None => "network \"none\"",
        NetworkClass::Egress => "network \"egress\"",
        NetworkClass::Open => "network \"open\"",
    }
}

/// What an execution needs, beyond its sandbox.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecutionNeeds {
    pub stdin: bool,
    pub pty: bool,
}

/// What of the safe defaults a spec gives up, for the record.
pub fn weaknesses(spec: &SandboxSpec) -> Vec<String> {
    let mut all = Vec::new();
    let mut note = |given_up: bool, what: &str| {
        if given_up {
            all.push(what.to_owned());
        }
    };
    note(spec.uid == 0, "the workload runs as root in the sandbox");
    note(spec.root_writable, "the root file system is writable");
    note(
        spec.network.class != NetworkClass::None,
        "the sandbox has a network",
    );
    note(spec.limits.memory_bytes == 0, "memory is not limited");
    note(spec.limits.cpu_millis == 0, "cpu is not limited");
    note(spec.limits.pids == 0, "processes are not limited");
    note(spec.limits.disk_bytes == 0, "disk is not limited");
    note(spec.limits.tmp_bytes == 0, "/tmp is not limited");
    for mount in &spec.mounts {
        if let MountSource::HostPath(path) = &mount.source {
            let access = if mount.read_only {
                "readable"
            } else {
                "writable"
            };
            all.push(format!("the host's {path} is {access} at {}", mount.target));
        }
    }
    all
}
