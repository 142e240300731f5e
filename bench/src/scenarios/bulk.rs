//! A gibibyte from a command to its caller, and one from the caller to a command.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{settle, unthrottled_sandbox};
use crate::bench::Bench;
use crate::client::{self, Client};
use crate::procfs;
use crate::raw;
use crate::report::{Bound, Scenario, Table, Unit};
use crate::stats::Samples;

const GRPC: &str = "cofferdam: Execute stream";
const LIMITED: &str = "cofferdam: the same, default limits";
const CLI: &str = "cofferdam exec (CLI)";
const PIPE: &str = "a pipe (head | cat)";
const PIPE_IN: &str = "a pipe (head | wc)";
const DOCKER: &str = "docker exec (CLI)";

const MB_PER_SECOND_MIN: f64 = 500.0;

pub(super) async fn run(bench: &mut Bench, into: &mut Scenario) -> Result<()> {
    if let Err(reason) = &bench.docker {
        into.note(format!("docker: skipped ({reason})"));
    }
    let mut client = bench.gateway.connect();
    let sandbox = unthrottled_sandbox(bench).await?;
    let limited = client::create_sandbox(&mut client, client::sandbox_request()).await?;
    stdout(bench, &mut client, &sandbox, &limited, into).await?;
    for row in [GRPC, LIMITED, CLI] {
        let what = format!("stdout, {row}");
        into.aim(
            &what,
            into.p50(row),
            Bound::AtLeast,
            MB_PER_SECOND_MIN,
            Unit::MegabytesPerSecond,
        );
    }
    stdin(bench, &mut client, &sandbox, into).await?;
    into.note(format!(
        "{} MiB each; the sandbox may use all {} processors, \"default limits\" mean one",
        bench.sizes.bulk_bytes >> 20,
        bench.cpus
    ));
    let peak = procfs::peak_rss_kib(bench.gateway.pid);
    into.note(format!(
        "the gateway's peak memory so far: {} KiB",
        peak.map_or("unmeasured".to_owned(), |kib| kib.to_string())
    ));
    Ok(())
}

async fn stdout(
    bench: &Bench,
    client: &mut Client,
    sandbox: &str,
    limited: &str,
    into: &mut Scenario,
) -> Result<()> {
    let bytes = bench.sizes.bulk_bytes;
    let head = format!("head -c {bytes} /dev/zero");
    let (mut grpc, mut throttled, mut cli) = <(Samples, Samples, Samples)>::default();
    let (mut pipe, mut docker, mut costs) = <(Samples, Samples, Costs)>::default();
    for _ in 0..bench.sizes.bulk_rounds {
        let before = Spent::now(bench);
        grpc.push(rate(bytes, drained(client, sandbox, bytes).await?));
        costs.push(before, Spent::now(bench), bytes);
        settle().await;
        let line = format!("{head} | cat > /dev/null");
        pipe.push(rate(bytes, raw::time_long(&mut raw::shell(&line)).await?));
        let line = bench.cli_line(&format!("exec {sandbox} {head} > /dev/null"));
        cli.push(rate(bytes, raw::time_long(&mut raw::shell(&line)).await?));
        settle().await;
        if let Ok(engine) = &bench.docker {
            let line = format!("{} > /dev/null", engine.exec_line(&head));
            docker.push(rate(bytes, raw::time_long(&mut raw::shell(&line)).await?));
        }
        throttled.push(rate(bytes, drained(client, limited, bytes).await?));
        settle().await;
    }
    into.tables.push(Table::new(
        "stdout",
        Unit::MegabytesPerSecond,
        Some(PIPE),
        [
            (GRPC, &grpc),
            (LIMITED, &throttled),
            (CLI, &cli),
            (PIPE, &pipe),
            (DOCKER, &docker),
        ],
    ));
    into.tables.push(costs.table("processor time of stdout"));
    Ok(())
}

async fn stdin(
    bench: &Bench,
    client: &mut Client,
    sandbox: &str,
    into: &mut Scenario,
) -> Result<()> {
    let bytes = bench.sizes.bulk_bytes;
    let head = format!("head -c {bytes} /dev/zero");
    let (mut grpc, mut cli) = <(Samples, Samples)>::default();
    let (mut pipe, mut docker, mut costs) = <(Samples, Samples, Costs)>::default();
    for _ in 0..bench.sizes.bulk_rounds {
        let before = Spent::now(bench);
        grpc.push(rate(bytes, fed(client, sandbox, bytes).await?));
        costs.push(before, Spent::now(bench), bytes);
        settle().await;
        let line = format!("{head} | wc -c");
        pipe.push(rate(bytes, raw::time_long(&mut raw::shell(&line)).await?));
        let line = format!(
            "{head} | {}",
            bench.cli_line(&format!("exec -i {sandbox} wc -c"))
        );
        cli.push(rate(bytes, raw::time_long(&mut raw::shell(&line)).await?));
        settle().await;
        if let Ok(engine) = &bench.docker {
            let line = format!("{head} | {}", engine.exec_line("wc -c"));
            docker.push(rate(bytes, raw::time_long(&mut raw::shell(&line)).await?));
        }
    }
    into.tables.push(Table::new(
        "stdin",
        Unit::MegabytesPerSecond,
        Some(PIPE_IN),
        [
            (GRPC, &grpc),
            (CLI, &cli),
            (PIPE_IN, &pipe),
            (DOCKER, &docker),
        ],
    ));
    into.tables.push(costs.table("processor time of stdin"));
    Ok(())
}

fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

async fn drained(client: &mut Client, sandbox: &str, bytes: u64) -> Result<Duration> {
    let request = client::in_sandbox(sandbox, &["head", "-c", &bytes.to_string(), "/dev/zero"]);
    let start = Instant::now();
    let ended = client::execute(client, request).await?;
    let took = start.elapsed();
    ensure!(
        ended.output_bytes == bytes,
        "{} of {bytes} bytes came",
        ended.output_bytes
    );
    Ok(took)
}

async fn fed(client: &mut Client, sandbox: &str, bytes: u64) -> Result<Duration> {
    let request = client::in_sandbox(sandbox, &["wc", "-c"]);
    let start = Instant::now();
    let ended = client::execute_with_stdin(client, request, bytes).await?;
    let took = start.elapsed();
    let counted = String::from_utf8_lossy(&ended.output).trim().to_owned();
    ensure!(
        counted == bytes.to_string(),
        "{counted} of {bytes} bytes arrived"
    );
    Ok(took)
}

/// Processor time so far.
#[derive(Debug)]
struct Spent {
    gateway: Option<Duration>,
    supervisors: Option<Duration>,
    caller: Option<Duration>,
}

impl Spent {
    fn now(bench: &Bench) -> Self {
        Self {
            gateway: procfs::cpu(bench.gateway.pid),
            supervisors: supervisors(&bench.staged.libexec)
                .into_iter()
                .map(procfs::cpu)
                .sum(),
            caller: procfs::cpu(std::process::id()),
        }
    }
}

/// The only children that shims have, but for the shim that is kept ready: its child is one, too.
pub(super) fn supervisors(libexec: &Path) -> Vec<u32> {
    let shims = procfs::running(&libexec.join("cofferdam-process-shim"));
    let children = shims.iter().flat_map(|shim| procfs::children(*shim));
    children.filter(|child| !shims.contains(child)).collect()
}

/// Processor time by gibibyte, of everybody through whose hands it goes.
#[derive(Debug, Default)]
struct Costs {
    gateway: Samples,
    supervisors: Samples,
    caller: Samples,
}

impl Costs {
    fn push(&mut self, before: Spent, after: Spent, bytes: u64) {
        let gibibytes = bytes as f64 / (1u64 << 30) as f64;
        let add = |samples: &mut Samples, before: Option<Duration>, after: Option<Duration>| {
            if let (Some(before), Some(after)) = (before, after) {
                samples.push(after.saturating_sub(before).as_secs_f64() / gibibytes);
            }
        };
        add(&mut self.gateway, before.gateway, after.gateway);
        add(&mut self.supervisors, before.supervisors, after.supervisors);
        add(&mut self.caller, before.caller, after.caller);
    }

    fn table(&self, title: &str) -> Table {
        Table::new(
            title,
            Unit::CpuSecondsPerGibibyte,
            None,
            [
                ("gateway", &self.gateway),
                ("supervisor", &self.supervisors),
                ("caller", &self.caller),
            ],
        )
    }
}
