//! `cofferdam doctor`: what works here, what does not, and exactly what to do about it.

use std::time::Duration;

use cofferdam_proto::compute::v1::{CheckResult, Health};
use cofferdam_proto::gateway::v1::{Driver, DriverState, GetInfoResponse};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::DONE;
use super::driver::list;
use super::version::info;
use crate::cli::Global;
use crate::connect::{self, Client, Looked};
use crate::embedded::{self, Embedded, Options, Remains};
use crate::error::CommandError;
use crate::ui::{Tone, Ui, one_line};
use crate::view::driver::{CheckView, DriverView, condition, is_healthy, trouble};

const EXIT_SOMETHING_FAILS: u8 = 1;
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
const SETTLE_INTERVAL: Duration = Duration::from_millis(100);

/// Check the gateway and its drivers, and say how to mend what fails.
///
/// Exits with 1 if something fails that is needed: the gateway, the default driver, the driver
/// that is named, or any driver that is there but does not work. When no gateway runs, one is
/// brought along for the checks. What a `cofferdam run` of yours left that was killed is removed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this driver, which is needed then.
    driver: Option<String>,
}

/// One line of the report, with what is below it.
#[derive(Debug, Serialize)]
struct Finding {
    /// "gateway", or a driver's name
    subject: String,
    /// PASSED, WARNING, FAILED, or NOT_HERE for a platform that this machine does not have
    result: &'static str,
    needed: bool,
    detail: String,
    fix: Option<String>,
    checks: Vec<CheckView>,
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    // First of all: a gateway that is brought along would do it, too, and say nothing of it.
    let mut remains = remains_findings(embedded::clear_dead().await);
    let mut findings = match connect::find(global) {
        Ok(found) => {
            let place = found.path.display().to_string();
            examine(connect::open(found)?, &place, &args).await
        }
        Err(looked) => without_gateway(looked, global, &args).await,
    };
    findings.append(&mut remains);
    let failed = findings
        .iter()
        .any(|finding| finding.needed && finding.result == FAILED);
    if ui.json {
        ui.object(&json!({ "ok": !failed, "findings": findings }))?;
    } else {
        let text: String = findings.iter().map(|finding| show(finding, ui)).collect();
        ui.out(&text)?;
    }
    Ok(if failed { EXIT_SOMETHING_FAILS } else { DONE })
}

const PASSED: &str = "PASSED";
const WARNING: &str = "WARNING";
const FAILED: &str = "FAILED";
const NOT_HERE: &str = "NOT_HERE";

/// Asks a gateway about itself and its drivers.
async fn examine(client: Client, place: &str, args: &Args) -> Vec<Finding> {
    let info = match settled(client.clone()).await {
        Ok(info) => info,
        Err(error) => return vec![gateway_fails(&error)],
    };
    let mut findings = vec![gateway_finding(&info, place)];
    match list(client).await {
        Ok(drivers) => findings.extend(driver_findings(&drivers, &info.default_driver, args)),
        Err(error) => findings.push(gateway_fails(&error)),
    }
    findings
}

/// A gateway that has just been started gets a moment: its drivers answer one after the other.
async fn settled(client: Client) -> Result<GetInfoResponse, CommandError> {
    let deadline = Instant::now() + SETTLE_WITHIN;
    loop {
        let info = info(client.clone()).await?;
        if info.ready || info.draining || Instant::now() >= deadline {
            return Ok(info);
        }
        sleep(SETTLE_INTERVAL).await;
    }
}

/// None runs. That fails only when one was named; else the drivers are checked by our own.
async fn without_gateway(looked: Vec<Looked>, global: &Global, args: &Args) -> Vec<Finding> {
    let absent = connect::no_gateway(&looked);
    if global.named_gateway().is_some() || looked.iter().any(Looked::is_denied) {
        return vec![gateway_fails(&absent)];
    }
    let options = Options {
        driver: args.driver.clone(),
        driver_sockets: Vec::new(),
    };
    let embedded = match Embedded::start(options).await {
        Ok(embedded) => embedded,
        Err(error) => {
            return vec![
                gateway_fails(&absent),
                service_finding().await,
                brought_along_fails(&error),
            ];
        }
    };
    let client = connect::open_path(embedded.socket.clone());
    let mut findings = examine(client, "none runs; this one was brought along", args).await;
    if let Some(first) = findings.first_mut().filter(|first| first.result == PASSED) {
        first.result = WARNING;
        first.fix = absent.hint.clone();
        // Its store goes with it; what matters is the one of the service.
        first.checks.clear();
    }
    findings.insert(findings.len().min(1), service_finding().await);
    embedded.shutdown().await;
    findings
}

fn gateway_finding(info: &GetInfoResponse, place: &str) -> Finding {
    let (result, state, fix) = match (info.draining, info.ready) {
        (true, _) => (FAILED, "draining", Some("wait until it has restarted")),
        _ if !info.state_dir_trouble.is_empty() => {
            let fix = Some(info.state_dir_fix.as_str());
            (FAILED, info.state_dir_trouble.as_str(), fix)
        }
        (false, false) => (WARNING, "not ready: drivers or recovery are pending", None),
        (false, true) => (PASSED, "ready", None),
    };
    Finding {
        subject: "gateway".to_owned(),
        result,
        needed: true,
        detail: format!("version {}, {state} ({place})", info.version),
        fix: fix.map(str::to_owned),
        checks: vec![store_check(info)],
    }
}

/// What a running gateway says of its own.
fn store_check(info: &GetInfoResponse) -> CheckView {
    let is_good = info.state_dir_trouble.is_empty();
    let (result, detail) = match is_good {
        true => (PASSED, "its state directory takes what is written"),
        false => (FAILED, info.state_dir_trouble.as_str()),
    };
    CheckView {
        id: "store".to_owned(),
        result: result.to_owned(),
        detail: Some(detail.to_owned()),
        fix: (!is_good).then(|| info.state_dir_fix.clone()),
    }
}

/// Would the service start? What keeps it from that is not seen by one that is brought along.
async fn service_finding() -> Finding {
    let finding = |subject: &str, result, detail, fix| Finding {
        subject: subject.to_owned(),
        result,
        needed: true,
        detail,
        fix,
        checks: Vec::new(),
    };
    let examined = match embedded::examine_service().await {
        Ok(examined) => examined,
        Err(error) => {
            let fix = error.hint.clone();
            return finding("configuration", FAILED, error.sentence(), fix);
        }
    };
    let place = examined.state_dir.display();
    match &examined.store {
        Ok(true) => finding("store", PASSED, format!("in {place}, not damaged"), None),
        Ok(false) => finding("store", PASSED, format!("none yet in {place}"), None),
        Err(error) => {
            let because =
                embedded::causes(error).map_or_else(String::new, |why| format!(": {why}"));
            let fix = error.hint().map(str::to_owned);
            finding("store", FAILED, format!("{error}{because}"), fix)
        }
    }
}

fn gateway_fails(error: &CommandError) -> Finding {
    Finding {
        subject: "gateway".to_owned(),
        result: FAILED,
        needed: true,
        detail: error.sentence(),
        fix: error.hint.clone(),
        checks: Vec::new(),
    }
}

fn brought_along_fails(error: &CommandError) -> Finding {
    Finding {
        subject: "embedded gateway".to_owned(),
        ..gateway_fails(error)
    }
}

/// Nothing, if nobody was killed.
fn remains_findings(cleared: Result<Vec<Remains>, CommandError>) -> Vec<Finding> {
    let all = match cleared {
        Ok(all) => all,
        // Only a client is installed here, which has brought no gateway along.
        Err(_) => return Vec::new(),
    };
    all.into_iter().map(remains_finding).collect()
}

fn remains_finding(remains: Remains) -> Finding {
    let place = remains.directory.display();
    let (result, detail, fix) = match &remains.removed {
        Ok(sandboxes) => {
            let s = if *sandboxes == 1 { "" } else { "es" };
            let detail = format!(
                "a command that was killed left {place} and {sandboxes} sandbox{s}: removed"
            );
            (PASSED, detail, None)
        }
        Err(error) => {
            let because =
                embedded::causes(error).map_or_else(String::new, |why| format!(": {why}"));
            let detail = format!("a command that was killed left {place}: {error}{because}");
            let fix = "mend that, and call `cofferdam doctor` again".to_owned();
            (WARNING, detail, Some(fix))
        }
    };
    Finding {
        subject: "leftovers".to_owned(),
        result,
        needed: false,
        detail,
        fix,
        checks: Vec::new(),
    }
}

fn driver_findings(drivers: &[Driver], default: &str, args: &Args) -> Vec<Finding> {
    let wanted = |driver: &&Driver| args.driver.as_ref().is_none_or(|name| *name == driver.name);
    let mut findings: Vec<Finding> = drivers
        .iter()
        .filter(wanted)
        .map(|driver| {
            let named = args.driver.is_some();
            driver_finding(driver, named || driver.name == default)
        })
        .collect();
    if findings.is_empty() {
        let (subject, detail) = match &args.driver {
            Some(name) => (name.clone(), "the gateway has no driver of this name"),
            None => ("drivers".to_owned(), "the gateway has no drivers"),
        };
        findings.push(Finding {
            subject,
            result: FAILED,
            needed: true,
            detail: detail.to_owned(),
            fix: Some(
                "add it to the gateway's configuration; `cofferdam driver ls` lists those it has"
                    .to_owned(),
            ),
            checks: Vec::new(),
        });
    }
    findings
}

/// A platform that is not here fails only for who needs it; one that is broken is to be mended.
fn driver_finding(driver: &Driver, is_wanted: bool) -> Finding {
    let health = driver.fingerprint.as_ref().map(|seen| seen.health());
    let is_absent = driver.state() == DriverState::Connected && health == Some(Health::Undetected);
    let warns = driver.fingerprint.as_ref().is_some_and(|seen| {
        seen.checks
            .iter()
            .any(|check| check.result() != CheckResult::Passed)
    });
    let warns = warns || !driver.notices.is_empty();
    let fails = driver
        .notices
        .iter()
        .any(|notice| notice.result() == CheckResult::Failed);
    let result = match (is_healthy(driver), is_absent && !is_wanted) {
        (true, _) if fails => FAILED,
        (true, _) if warns => WARNING,
        (true, _) => PASSED,
        (false, true) => NOT_HERE,
        (false, false) => FAILED,
    };
    let (problem, fix) = trouble(driver).unwrap_or_default();
    let version = format!("{} {}", driver.driver_name, driver.version);
    let (word, _) = condition(driver);
    let words = [version.trim(), &word.to_lowercase(), &problem];
    let said: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    Finding {
        subject: driver.name.clone(),
        result,
        needed: is_wanted || !is_absent,
        detail: said.join(", "),
        fix: Some(fix).filter(|fix| !fix.is_empty()),
        checks: DriverView::from(driver).into_checks(),
    }
}

fn show(finding: &Finding, ui: &Ui) -> String {
    let mut text = line(
        ui,
        "",
        finding.result,
        &finding.subject,
        &finding.detail,
        finding.fix.as_deref(),
    );
    for check in &finding.checks {
        let detail = check.detail.as_deref().unwrap_or_default();
        let fix = check.fix.as_deref();
        text.push_str(&line(ui, "  ", &check.result, &check.id, detail, fix));
    }
    text
}

fn line(
    ui: &Ui,
    indent: &str,
    result: &str,
    subject: &str,
    detail: &str,
    fix: Option<&str>,
) -> String {
    let (mark, tone) = match result {
        PASSED => ("ok  ", Tone::Good),
        WARNING => ("warn", Tone::Warning),
        NOT_HERE => ("none", Tone::Faint),
        _ => ("FAIL", Tone::Bad),
    };
    let mark = ui.paint_out(mark, tone);
    let colon = if detail.is_empty() { "" } else { ": " };
    let mut text = format!(
        "{indent}{mark}  {}{colon}{}\n",
        one_line(subject),
        one_line(detail)
    );
    for step in fix.unwrap_or_default().lines() {
        text.push_str(&format!("{indent}      fix: {}\n", one_line(step)));
    }
    text
}
