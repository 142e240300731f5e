//! Control calls while bulk streams run, and while many attached streams are left unread.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cofferdam_proto::gateway::v1::{ExecuteEvent, GetInfoRequest, StatFileRequest};
use tokio::process::Child;
use tokio::time::{sleep, timeout};
use tonic::Streaming;

use crate::bench::Bench;
use crate::client::{self, Client};
use crate::procfs;
use crate::raw;
use crate::report::{Bound, Scenario, Table, Unit};
use crate::stats::Samples;

const P99_MS_MAX: f64 = 5.0;
const BULK_STREAMS: usize = 2;
/// More than a session could hold if its connection's window were a few dozen streams' windows.
const STALLED_PER_SANDBOX: usize = 250;
const SANDBOX_PIDS: u64 = 2048;
const SANDBOX_MEMORY_BYTES: u64 = 4 << 30;
/// Of one control call: then it counts as stuck.
const CALL_PATIENCE: Duration = Duration::from_secs(10);
const STALLED_PER_CONNECTION: usize = 100;
/// Between calls, so that they meet the load at random.
const PACE: Duration = Duration::from_millis(3);
/// Streams take a moment to fill up and come to a halt.
const FILL: Duration = Duration::from_secs(2);
const REST: Duration = Duration::from_secs(3);

pub(super) async fn run(bench: &mut Bench, into: &mut Scenario) -> Result<()> {
    let mut memory = Vec::new();
    note_memory(bench, "gateway before", &mut memory);
    // The hardest place: everything stalls and runs in the sandbox that is asked.
    let sandbox = large_sandbox(bench).await?;
    measure(bench, &sandbox, "idle", into).await?;

    let stalled = Stalled::start(bench, &sandbox).await?;
    sleep(FILL).await;
    note_memory(bench, "gateway with stalled streams", &mut memory);
    measure(bench, &sandbox, "stalled streams only", into).await?;

    let bulk = Bulk::start(bench, &sandbox)?;
    sleep(FILL).await;
    let (info, stat) = measure(bench, &sandbox, "bulk and stalled streams", into).await?;
    note_memory(bench, "gateway with bulk and stalled streams", &mut memory);
    bulk.stop().await?;
    drop(stalled);
    client::delete_all(&mut bench.gateway.connect()).await?;
    sleep(REST).await;
    note_memory(bench, "gateway after closing all", &mut memory);

    into.tables.push(Table::new(
        "memory",
        Unit::Kibibytes,
        None,
        memory.iter().map(|(name, samples)| (*name, samples)),
    ));
    for (what, p99) in [
        ("GetInfo, p99 under load", info),
        ("StatFile, p99 under load", stat),
    ] {
        into.aim(what, p99, Bound::AtMost, P99_MS_MAX, Unit::Milliseconds);
    }
    into.note(format!(
        "{} streams left unread, {BULK_STREAMS} CLIs that read /dev/zero as fast as they can; \
         StatFile asks the supervisor that both come from",
        bench.sizes.stalled
    ));
    Ok(())
}

/// With room for many processes, and all processors.
async fn large_sandbox(bench: &Bench) -> Result<String> {
    let mut request = client::sandbox_request();
    request.cpu_millis = Some(bench.cpus * 1000);
    request.pids = Some(SANDBOX_PIDS);
    request.memory_bytes = Some(SANDBOX_MEMORY_BYTES);
    client::create_sandbox(&mut bench.gateway.connect(), request).await
}

fn note_memory(bench: &Bench, name: &'static str, into: &mut Vec<(&'static str, Samples)>) {
    let kib = procfs::rss_kib(bench.gateway.pid).map(|kib| kib as f64);
    into.push((name, kib.into_iter().collect()));
}

/// One table; gives back the 99th percentiles of both calls.
async fn measure(
    bench: &mut Bench,
    sandbox: &str,
    load: &str,
    into: &mut Scenario,
) -> Result<(Option<f64>, Option<f64>)> {
    let mut client = bench.gateway.connect();
    let (mut info, mut stat, mut echo) = <(Samples, Samples, Samples)>::default();
    get_info(&mut client).await?;
    stat_file(&mut client, sandbox).await?;
    for _ in 0..bench.sizes.control_calls {
        info.push_ms(get_info(&mut client).await?);
        sleep(PACE).await;
        stat.push_ms(stat_file(&mut client, sandbox).await?);
        sleep(PACE).await;
        echo.push_ms(bench.helper.echo()?);
        sleep(PACE).await;
    }
    const ECHO: &str = "a byte to a process and back";
    into.tables.push(Table::new(
        load,
        Unit::Milliseconds,
        Some(ECHO),
        [("GetInfo", &info), ("StatFile", &stat), (ECHO, &echo)],
    ));
    let p99 = |samples: &Samples| samples.summary().map(|summary| summary.p99);
    Ok((p99(&info), p99(&stat)))
}

async fn get_info(client: &mut Client) -> Result<Duration> {
    let start = Instant::now();
    timeout(CALL_PATIENCE, client.get_info(GetInfoRequest {}))
        .await
        .context("GetInfo is stuck")?
        .context("GetInfo")?;
    Ok(start.elapsed())
}

async fn stat_file(client: &mut Client, sandbox: &str) -> Result<Duration> {
    let request = StatFileRequest {
        sandbox: sandbox.to_owned(),
        path: "/tmp".to_owned(),
        follow: true,
    };
    let start = Instant::now();
    timeout(CALL_PATIENCE, client.stat_file(request))
        .await
        .context("StatFile is stuck")?
        .context("StatFile")?;
    Ok(start.elapsed())
}

/// Streams that have begun and are not read.
#[derive(Debug)]
struct Stalled {
    _unread: Vec<Streaming<ExecuteEvent>>,
}

impl Stalled {
    async fn start(bench: &Bench, first_sandbox: &str) -> Result<Self> {
        let count = bench.sizes.stalled;
        let mut streams = Vec::with_capacity(count);
        let mut client = client::connect_for_stalled(&bench.gateway.socket, STALLED_PER_CONNECTION);
        let mut sandbox = first_sandbox.to_owned();
        for number in 0..count {
            if number % STALLED_PER_CONNECTION == 0 {
                client = client::connect_for_stalled(&bench.gateway.socket, STALLED_PER_CONNECTION);
            }
            if number > 0 && number % STALLED_PER_SANDBOX == 0 {
                sandbox = large_sandbox(bench).await?;
            }
            let request = client::in_sandbox(&sandbox, &["cat", "/dev/zero"]);
            let stream = client::start_unread(&mut client, request).await;
            streams.push(stream.with_context(|| format!("stalled stream {number}"))?);
        }
        Ok(Self { _unread: streams })
    }
}

/// CLIs, each a process of its own as a caller would be.
#[derive(Debug)]
struct Bulk(Vec<Child>);

impl Bulk {
    fn start(bench: &Bench, sandbox: &str) -> Result<Self> {
        let line = bench.cli_line(&format!("exec {sandbox} cat /dev/zero"));
        let start = || {
            raw::shell(&format!("exec {line} > /dev/null"))
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("start a bulk stream")
        };
        Ok(Self(
            (0..BULK_STREAMS).map(|_| start()).collect::<Result<_>>()?,
        ))
    }

    /// An error if one has ended by itself: then it was no load.
    async fn stop(self) -> Result<()> {
        for mut child in self.0 {
            if let Some(status) = child.try_wait().context("look at a bulk stream")? {
                bail!("a bulk stream ended by itself: {status}");
            }
            child.kill().await.context("stop a bulk stream")?;
        }
        Ok(())
    }
}
