//! Drivers, for programs and for people.

use std::collections::BTreeMap;

use cofferdam_proto::compute::v1 as compute;
use cofferdam_proto::gateway::v1::{Driver, DriverState};
use serde::Serialize;
use serde_json::Value;

use super::sandbox::{isolation_name, network_name};
use super::{known, name, text};
use crate::render::Block;
use crate::ui::Tone;
use crate::units::{show_cpus, show_size};

#[derive(Debug, Serialize)]
pub(crate) struct DriverView {
    name: String,
    state: String,
    health: Option<String>,
    built_in: bool,
    socket: Option<String>,
    path: Option<String>,
    error: Option<String>,
    fix: Option<String>,
    driver_name: Option<String>,
    version: Option<String>,
    incarnation: Option<String>,
    contract: Option<u64>,
    description: Option<String>,
    capabilities: Option<CapabilitiesView>,
    fingerprint: Option<FingerprintView>,
    notices: Vec<CheckView>,
    settings_schema: Option<Value>,
    driver_config_schema: Option<Value>,
    sandboxes: u32,
    connects: u32,
    pid: Option<u64>,
}

#[derive(Debug, Serialize)]
struct CapabilitiesView {
    execution: String,
    isolation: String,
    images: Vec<&'static str>,
    networks: Vec<String>,
    limits: Vec<&'static str>,
    features: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct FingerprintView {
    health: String,
    reason: Option<String>,
    fix: Option<String>,
    attributes: BTreeMap<String, String>,
    capacity: Option<ResourcesView>,
    used: Option<ResourcesView>,
    limits: Vec<&'static str>,
    checks: Vec<CheckView>,
}

#[derive(Debug, Serialize)]
struct ResourcesView {
    sandboxes: Option<u64>,
    cpu_millis: Option<u64>,
    memory_bytes: Option<u64>,
    disk_bytes: Option<u64>,
}

/// One line of `doctor`.
#[derive(Debug, Serialize)]
pub(crate) struct CheckView {
    pub(crate) id: String,
    /// PASSED, WARNING, FAILED
    pub(crate) result: String,
    pub(crate) detail: Option<String>,
    pub(crate) fix: Option<String>,
}

impl From<&Driver> for DriverView {
    fn from(driver: &Driver) -> Self {
        Self {
            name: driver.name.clone(),
            state: state(driver),
            health: health(driver),
            built_in: driver.built_in,
            socket: text(&driver.socket),
            path: text(&driver.path),
            error: text(&driver.error),
            fix: text(&driver.fix),
            driver_name: text(&driver.driver_name),
            version: text(&driver.version),
            incarnation: text(&driver.incarnation),
            contract: known(driver.contract.into()),
            description: text(&driver.description),
            capabilities: driver.capabilities.as_ref().map(CapabilitiesView::from),
            fingerprint: driver.fingerprint.as_ref().map(FingerprintView::from),
            notices: driver.notices.iter().map(CheckView::from).collect(),
            settings_schema: schema(&driver.settings_schema),
            driver_config_schema: schema(&driver.driver_config_schema),
            sandboxes: driver.sandboxes,
            connects: driver.connects,
            pid: known(driver.pid.into()),
        }
    }
}

impl DriverView {
    /// What the gateway has noticed about it, and what was checked on its platform.
    pub(crate) fn into_checks(self) -> Vec<CheckView> {
        let checks = self.fingerprint.map(|seen| seen.checks).unwrap_or_default();
        self.notices.into_iter().chain(checks).collect()
    }
}

/// A schema as an object; one that is no JSON stays a text, so that its author can see it.
fn schema(schema: &str) -> Option<Value> {
    let schema = text(schema)?;
    Some(serde_json::from_str(&schema).unwrap_or(Value::String(schema)))
}

impl From<&compute::Capabilities> for CapabilitiesView {
    fn from(can: &compute::Capabilities) -> Self {
        let images = can.images.unwrap_or_default();
        Self {
            execution: name(
                can.execution,
                compute::Execution::as_str_name,
                &["EXECUTION_"],
            ),
            isolation: isolation_name(can.isolation),
            images: named([
                ("host", images.host),
                ("registry", images.registry),
                ("archive", images.archive),
            ]),
            networks: can
                .networks
                .iter()
                .map(|class| network_name(*class))
                .collect(),
            limits: limits(can.limits.as_ref()),
            features: named([
                ("stop_start", can.stop_start),
                ("pause", can.pause),
                ("snapshot", can.snapshot),
                ("console", can.console),
                ("stats", can.stats),
                ("gpu", can.gpu),
                ("command_stdin", can.command_stdin),
                ("command_files", can.command_files),
                ("host_mounts", can.host_mounts),
                ("choose_user", can.choose_user),
            ]),
        }
    }
}

impl From<&compute::FingerprintResponse> for FingerprintView {
    fn from(seen: &compute::FingerprintResponse) -> Self {
        Self {
            health: health_name(seen.health),
            reason: text(&seen.reason),
            fix: text(&seen.fix),
            attributes: seen.attributes.clone().into_iter().collect(),
            capacity: seen.capacity.as_ref().map(ResourcesView::from),
            used: seen.used.as_ref().map(ResourcesView::from),
            limits: limits(seen.limits.as_ref()),
            checks: seen.checks.iter().map(CheckView::from).collect(),
        }
    }
}

impl From<&compute::Resources> for ResourcesView {
    fn from(resources: &compute::Resources) -> Self {
        Self {
            sandboxes: resources.sandboxes,
            cpu_millis: resources.cpu_millis,
            memory_bytes: resources.memory_bytes,
            disk_bytes: resources.disk_bytes,
        }
    }
}

impl From<&compute::Check> for CheckView {
    fn from(check: &compute::Check) -> Self {
        Self {
            id: check.id.clone(),
            result: name(
                check.result,
                compute::CheckResult::as_str_name,
                &["CHECK_RESULT_"],
            ),
            detail: text(&check.detail),
            fix: text(&check.fix),
        }
    }
}

fn named<const N: usize>(flags: [(&'static str, bool); N]) -> Vec<&'static str> {
    flags
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect()
}

fn limits(limits: Option<&compute::Limits>) -> Vec<&'static str> {
    let limits = limits.cloned().unwrap_or_default();
    named([
        ("memory", limits.memory),
        ("cpu", limits.cpu),
        ("pids", limits.pids),
        ("disk", limits.disk),
    ])
}

fn health_name(value: i32) -> String {
    name(value, compute::Health::as_str_name, &["HEALTH_"])
}

/// "CONNECTED"
pub(crate) fn state(driver: &Driver) -> String {
    name(driver.state, DriverState::as_str_name, &["DRIVER_STATE_"])
}

/// "HEALTHY"; none before it has said so.
pub(crate) fn health(driver: &Driver) -> Option<String> {
    driver
        .fingerprint
        .as_ref()
        .map(|seen| health_name(seen.health))
}

pub(crate) fn is_healthy(driver: &Driver) -> bool {
    driver.state() == DriverState::Connected
        && driver
            .fingerprint
            .as_ref()
            .is_some_and(|seen| seen.health() == compute::Health::Healthy)
}

/// The one word for a table.
pub(crate) fn condition(driver: &Driver) -> (String, Tone) {
    let word = match driver.state() {
        DriverState::Connected => health(driver).unwrap_or_else(|| state(driver)),
        _ => state(driver),
    };
    let tone = match word.as_str() {
        "HEALTHY" => Tone::Good,
        "UNDETECTED" => Tone::Faint,
        "CONNECTING" => Tone::Warning,
        _ => Tone::Bad,
    };
    (word, tone)
}

/// Why it does not work, and what to do.
pub(crate) fn trouble(driver: &Driver) -> Option<(String, String)> {
    if !driver.error.is_empty() {
        return Some((driver.error.clone(), driver.fix.clone()));
    }
    let seen = driver.fingerprint.as_ref()?;
    (!seen.reason.is_empty()).then(|| (seen.reason.clone(), seen.fix.clone()))
}

/// The same, or else the worst of what the gateway has noticed about a driver that seems to work.
pub(crate) fn problem(driver: &Driver) -> Option<(String, String)> {
    let noticed = driver.notices.first();
    let noticed = noticed.map(|notice| (notice.detail.clone(), notice.fix.clone()));
    trouble(driver).or(noticed)
}

pub(crate) fn isolation(driver: &Driver) -> String {
    driver
        .capabilities
        .as_ref()
        .map(|can| {
            isolation_name(can.isolation)
                .to_lowercase()
                .replace('_', "-")
        })
        .unwrap_or_default()
}

/// For `driver inspect`.
pub(crate) fn lines(driver: &Driver) -> Block {
    let mut block = Block::default();
    let (word, tone) = condition(driver);
    let (problem, fix) = problem(driver).unwrap_or_default();
    let origin = if driver.built_in {
        "started by the gateway"
    } else {
        "attached by its operator"
    };
    block
        .add("driver", &driver.name)
        .toned("state", word, tone)
        .toned("problem", problem, Tone::Bad)
        .add("fix", fix)
        .add(
            "calls itself",
            format!("{} {}", driver.driver_name, driver.version).trim(),
        )
        .add("description", &driver.description)
        .add("origin", origin)
        .add("socket", &driver.socket)
        .add("program", &driver.path)
        .add(
            "pid",
            known(driver.pid.into())
                .map(|pid| pid.to_string())
                .unwrap_or_default(),
        )
        .add("connects", driver.connects.to_string())
        .add("sandboxes", driver.sandboxes.to_string());
    block.list(
        "notices",
        driver
            .notices
            .iter()
            .map(|notice| check_line(&CheckView::from(notice))),
    );
    if let Some(can) = &driver.capabilities {
        let can = CapabilitiesView::from(can);
        block
            .add("isolation", isolation(driver))
            .add("execution", can.execution.to_lowercase().replace('_', "-"))
            .add("images", can.images.join(", "))
            .add("networks", can.networks.join(", ").to_lowercase())
            .add("limits", can.limits.join(", "))
            .add("features", can.features.join(", "));
    }
    if let Some(seen) = &driver.fingerprint {
        let view = FingerprintView::from(seen);
        block
            .add("capacity", resources(view.capacity.as_ref()))
            .add("used", resources(view.used.as_ref()))
            .list(
                "attributes",
                view.attributes
                    .iter()
                    .map(|(key, value)| format!("{key} = {value}")),
            )
            .list("checks", view.checks.iter().map(check_line));
    }
    block
}

fn check_line(check: &CheckView) -> String {
    let detail = check.detail.as_deref().unwrap_or("");
    format!("{} {} {detail}", check.result, check.id)
}

fn resources(resources: Option<&ResourcesView>) -> String {
    let Some(resources) = resources else {
        return String::new();
    };
    let parts = [
        resources
            .sandboxes
            .map(|count| format!("{count} sandboxes")),
        resources
            .cpu_millis
            .map(|millis| format!("{} CPUs", show_cpus(millis))),
        resources
            .memory_bytes
            .map(|bytes| format!("{} memory", show_size(bytes))),
        resources
            .disk_bytes
            .map(|bytes| format!("{} disk", show_size(bytes))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
