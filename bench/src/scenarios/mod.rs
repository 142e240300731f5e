//! The questions that are asked. Each file asks one; all measure in turn with their raw peers, so
//! that what else happens on the machine happens to all of them.

mod bulk;
mod containers;
mod control;
mod exec;
mod memory;
mod one_shot;
mod start;

use std::time::Duration;

use anyhow::Result;

use crate::bench::Bench;
use crate::client;
use crate::options::ScenarioName;
use crate::report::Scenario;

/// What one measurement has set off is over before the next begins.
const SETTLE: Duration = Duration::from_millis(2);

pub(crate) const ALL: &[ScenarioName] = &[
    ScenarioName::Exec,
    ScenarioName::OneShot,
    ScenarioName::Bulk,
    ScenarioName::Memory,
    ScenarioName::Start,
    ScenarioName::Control,
    ScenarioName::Containers,
];

pub(crate) fn empty(name: ScenarioName) -> Scenario {
    match name {
        ScenarioName::Exec => Scenario::new("exec", "a command in a ready sandbox"),
        ScenarioName::OneShot => Scenario::new("one-shot", "a command in a fresh sandbox"),
        ScenarioName::Bulk => Scenario::new("bulk", "stdout to the caller, stdin from it"),
        ScenarioName::Memory => Scenario::new("memory", "what an idle sandbox costs"),
        ScenarioName::Start => Scenario::new("start", "gateway start to ready"),
        ScenarioName::Containers => {
            Scenario::new("containers", "the docker driver beside docker itself")
        }
        ScenarioName::Control => {
            Scenario::new("control", "control calls while bulk runs and others stall")
        }
    }
}

/// Fills in one scenario. What it has found out before an error stays in it.
pub(crate) async fn run(bench: &mut Bench, name: ScenarioName, into: &mut Scenario) -> Result<()> {
    let result = match name {
        ScenarioName::Exec => exec::run(bench, into).await,
        ScenarioName::OneShot => one_shot::run(bench, into).await,
        ScenarioName::Bulk => bulk::run(bench, into).await,
        ScenarioName::Memory => memory::run(bench, into).await,
        ScenarioName::Start => start::run(bench, into).await,
        ScenarioName::Control => control::run(bench, into).await,
        ScenarioName::Containers => containers::run(bench, into).await,
    };
    // The next one starts with an empty gateway, whatever has happened in this one.
    let emptied = client::delete_all(&mut bench.gateway.connect()).await;
    result.and(emptied)
}

/// A sandbox that may use all processors, as the raw platforms do.
async fn unthrottled_sandbox(bench: &Bench) -> Result<String> {
    let mut request = client::sandbox_request();
    request.cpu_millis = Some(bench.cpus * 1000);
    client::create_sandbox(&mut bench.gateway.connect(), request).await
}

async fn settle() {
    tokio::time::sleep(SETTLE).await;
}
