//! What a sandbox costs while nothing happens in it.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::bulk::supervisors;
use crate::bench::Bench;
use crate::client;
use crate::procfs::{self, Memory};
use crate::report::{Bound, Scenario, Table, Unit};
use crate::stats::Samples;

const SUPERVISOR_RSS: &str = "supervisor, RSS";
const GATEWAY: &str = "gateway, RSS growth";
const SUPERVISOR_KIB_MAX: f64 = 2048.0;
const SESSION_KIB_MAX: f64 = 64.0;

/// Sandboxes that exist before the counting starts: what is allocated once is not per session.
const WARM_UP: usize = 5;
const AT_A_TIME: usize = 8;
/// Until buffers of the start are given back, and pings have gone to and fro.
const REST: Duration = Duration::from_secs(3);

pub(super) async fn run(bench: &mut Bench, into: &mut Scenario) -> Result<()> {
    if let Err(reason) = &bench.docker {
        into.note(format!("docker: skipped ({reason})"));
    }
    // A gateway of its own: what the others have made ours allocate would hide what idling costs.
    let gateway =
        crate::gateway::Gateway::start(&bench.staged, &bench.directory("gw-idle")).await?;
    let counted = count(bench, &gateway, into).await;
    let emptied = client::delete_all(&mut gateway.connect()).await;
    let log = gateway.log_tail();
    let stopped = gateway.stop().await;
    counted.with_context(|| format!("the gateway's log ends:\n{log}"))?;
    emptied.and(stopped)
}

async fn count(
    bench: &Bench,
    gateway: &crate::gateway::Gateway,
    into: &mut Scenario,
) -> Result<()> {
    let driver_binary = bench.staged.libexec.join("cofferdam-driver-process");
    let driver = procfs::children(gateway.pid)
        .into_iter()
        .find(|pid| procfs::running(&driver_binary).contains(pid));
    create(gateway, WARM_UP).await?;
    tokio::time::sleep(REST).await;
    let before = (
        procfs::rss_kib(gateway.pid),
        driver.and_then(procfs::rss_kib),
    );
    let ours: Vec<u32> = supervisors(&bench.staged.libexec);
    create(gateway, bench.sizes.idle_sandboxes).await?;
    tokio::time::sleep(REST).await;
    let after = (
        procfs::rss_kib(gateway.pid),
        driver.and_then(procfs::rss_kib),
    );

    let new = |pid: &u32| !ours.contains(pid);
    let supervisors: Vec<u32> = supervisors(&bench.staged.libexec)
        .into_iter()
        .filter(new)
        .collect();
    ensure!(
        supervisors.len() == bench.sizes.idle_sandboxes,
        "{} supervisors for {} sandboxes",
        supervisors.len(),
        bench.sizes.idle_sandboxes
    );
    let shims: Vec<u32> = supervisors
        .iter()
        .filter_map(|pid| procfs::parent(*pid))
        .collect();
    let (supervisor_rss, supervisor_pss) = sizes(&supervisors);
    let (shim_rss, shim_pss) = sizes(&shims);
    let growth = |before: Option<u64>, after: Option<u64>| -> Samples {
        let grown = after
            .zip(before)
            .map(|(after, before)| after as f64 - before as f64);
        grown
            .map(|kib| kib / bench.sizes.idle_sandboxes as f64)
            .into_iter()
            .collect()
    };
    let (peer_rss, peer_pss) = idle_cat().await?;
    let (engine_rss, engine_pss) = engine_shim(bench);
    into.tables.push(Table::new(
        "per idle sandbox",
        Unit::Kibibytes,
        Some("an idle cat, RSS"),
        [
            (SUPERVISOR_RSS, &supervisor_rss),
            ("supervisor, PSS", &supervisor_pss),
            ("process shim, RSS", &shim_rss),
            ("process shim, PSS", &shim_pss),
            (GATEWAY, &growth(before.0, after.0)),
            ("process driver, RSS growth", &growth(before.1, after.1)),
            ("an idle cat, RSS", &peer_rss),
            ("an idle cat, PSS", &peer_pss),
            ("docker: containerd-shim of a container, RSS", &engine_rss),
            ("docker: containerd-shim of a container, PSS", &engine_pss),
        ],
    ));
    let once = |kib: Option<u64>| -> Samples { kib.map(|kib| kib as f64).into_iter().collect() };
    into.tables.push(Table::new(
        format!(
            "once, with {} idle sandboxes",
            bench.sizes.idle_sandboxes + WARM_UP
        ),
        Unit::Kibibytes,
        None,
        [
            ("gateway, RSS", &once(after.0)),
            ("process driver, RSS", &once(after.1)),
        ],
    ));
    let kib = Unit::Kibibytes;
    into.aim(
        SUPERVISOR_RSS,
        into.p50(SUPERVISOR_RSS),
        Bound::AtMost,
        SUPERVISOR_KIB_MAX,
        kib,
    );
    into.aim(
        GATEWAY,
        into.p50(GATEWAY),
        Bound::AtMost,
        SESSION_KIB_MAX,
        kib,
    );
    Ok(())
}

async fn create(gateway: &crate::gateway::Gateway, count: usize) -> Result<()> {
    for first in (0..count).step_by(AT_A_TIME) {
        let mut creates = JoinSet::new();
        for _ in first..count.min(first + AT_A_TIME) {
            let mut client = gateway.connect();
            creates.spawn(async move {
                client::create_sandbox(&mut client, client::sandbox_request()).await
            });
        }
        while let Some(created) = creates.join_next().await {
            created??;
        }
    }
    Ok(())
}

/// RSS and PSS of those that may be looked at: another user's may not.
fn sizes(pids: &[u32]) -> (Samples, Samples) {
    let all: Vec<Memory> = pids.iter().filter_map(|pid| procfs::memory(*pid)).collect();
    (
        all.iter().map(|memory| memory.rss_kib as f64).collect(),
        all.iter().map(|memory| memory.pss_kib as f64).collect(),
    )
}

/// About the least that a process can be.
async fn idle_cat() -> Result<(Samples, Samples)> {
    let mut cat = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("start cat")?;
    // Long enough to load what it needs.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let found = sizes(&[cat.id()]);
    drop(cat.stdin.take());
    cat.wait().context("wait for cat")?;
    Ok(found)
}

fn engine_shim(bench: &Bench) -> (Samples, Samples) {
    let docker = bench.docker.as_ref().ok();
    let init = docker.and_then(|docker| docker.init_pid().ok());
    sizes(
        &init
            .and_then(procfs::parent)
            .into_iter()
            .collect::<Vec<_>>(),
    )
}
