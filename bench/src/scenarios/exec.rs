//! `true` in a sandbox that is ready: latency one at a time, and throughput of sixteen at once.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use cofferdam_proto::gateway::v1::{CreateExecutionRequest, GetExecutionRequest};
use tokio::task::JoinSet;

use super::{settle, unthrottled_sandbox};
use crate::bench::Bench;
use crate::client::{self, Client};
use crate::raw;
use crate::report::{Bound, Scenario, Table, Unit};
use crate::stats::Samples;

const STREAM: &str = "cofferdam: Execute stream";
const UNARY: &str = "cofferdam: CreateExecution + GetExecution";
const CLI: &str = "cofferdam exec (CLI)";
const FORK: &str = "fork+exec (small helper)";
const SPAWN: &str = "posix_spawn (this process)";
const DOCKER: &str = "docker exec (CLI)";

const P50_MS_MAX: f64 = 1.5;
const AT_ONCE: usize = 16;
const WAIT_MS: u64 = 30_000;
const WARM_UP_ROUNDS: usize = 20;

pub(super) async fn run(bench: &mut Bench, into: &mut Scenario) -> Result<()> {
    if let Err(reason) = &bench.docker {
        into.note(format!("docker: skipped ({reason})"));
    }
    let sandbox = unthrottled_sandbox(bench).await?;
    latency(bench, &sandbox, into).await?;
    throughput(bench, &sandbox, into).await?;
    into.aim(
        "p50 of Execute",
        into.p50(STREAM),
        Bound::AtMost,
        P50_MS_MAX,
        Unit::Milliseconds,
    );
    into.note(format!("the sandbox may use all {} processors", bench.cpus));
    Ok(())
}

#[derive(Debug, Default)]
struct Lanes {
    stream: Samples,
    unary: Samples,
    cli: Samples,
    fork: Samples,
    spawn: Samples,
    docker: Samples,
}

impl Lanes {
    fn table(&self, title: impl Into<String>, unit: Unit) -> Table {
        Table::new(
            title,
            unit,
            Some(FORK),
            [
                (STREAM, &self.stream),
                (UNARY, &self.unary),
                (CLI, &self.cli),
                (FORK, &self.fork),
                (SPAWN, &self.spawn),
                (DOCKER, &self.docker),
            ],
        )
    }
}

async fn latency(bench: &mut Bench, sandbox: &str, into: &mut Scenario) -> Result<()> {
    let mut client = bench.gateway.connect();
    for _ in 0..WARM_UP_ROUNDS {
        stream(&mut client, sandbox).await?;
        bench.helper.fork()?;
    }
    let mut lanes = Lanes::default();
    for round in 0..bench.sizes.exec_rounds {
        lanes.stream.push_ms(stream(&mut client, sandbox).await?);
        settle().await;
        lanes.fork.push_ms(bench.helper.fork()?);
        lanes.unary.push_ms(unary(&mut client, sandbox).await?);
        settle().await;
        lanes.spawn.push_ms(raw::time(&mut raw::posix_spawn())?);
        if round % bench.sizes.slow_every == 0 {
            lanes.cli.push_ms(raw::time(&mut cli(bench, sandbox))?);
            settle().await;
            if let Ok(docker) = &bench.docker {
                lanes
                    .docker
                    .push_ms(raw::time(&mut docker.exec(&["/bin/true"]))?);
                settle().await;
            }
        }
    }
    into.tables
        .push(lanes.table("one at a time", Unit::Milliseconds));
    Ok(())
}

async fn throughput(bench: &Bench, sandbox: &str, into: &mut Scenario) -> Result<()> {
    let mut lanes = Lanes::default();
    let batch = bench.sizes.batch;
    // A docker exec is so slow that a small part tells enough.
    let slow = (batch / bench.sizes.slow_every).max(AT_ONCE);
    for _ in 0..bench.sizes.batches {
        lanes.stream.push(per_second(
            batch,
            streams_at_once(bench, sandbox, batch).await?,
        ));
        settle().await;
        let took = commands_at_once(batch, raw::posix_spawn)?;
        lanes.spawn.push(per_second(batch, took));
        let took = commands_at_once(slow, || cli(bench, sandbox))?;
        lanes.cli.push(per_second(slow, took));
        settle().await;
        if let Ok(docker) = &bench.docker {
            let took = commands_at_once(slow, || docker.exec(&["/bin/true"]))?;
            lanes.docker.push(per_second(slow, took));
            settle().await;
        }
    }
    let mut table = lanes.table(format!("{AT_ONCE} at once"), Unit::PerSecond);
    compare_with(&mut table, SPAWN);
    into.tables.push(table);
    Ok(())
}

/// There is but one helper, so at sixteen at once the comparison is with our own threads.
fn compare_with(table: &mut Table, name: &str) {
    let base = table
        .rows
        .iter()
        .find(|row| row.name == name)
        .map(|row| row.summary.p50);
    table.baseline = base.map(|_| name.to_owned());
    for row in &mut table.rows {
        row.ratio = base.map(|base| row.summary.p50 / base);
    }
}

fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

async fn stream(client: &mut Client, sandbox: &str) -> Result<Duration> {
    let request = client::in_sandbox(sandbox, &[raw::true_program()]);
    let start = Instant::now();
    client::execute(client, request).await?;
    Ok(start.elapsed())
}

async fn unary(client: &mut Client, sandbox: &str) -> Result<Duration> {
    let request = CreateExecutionRequest {
        execution: Some(client::in_sandbox(sandbox, &[raw::true_program()])),
        idempotency_key: String::new(),
    };
    let start = Instant::now();
    let created = client
        .create_execution(request)
        .await
        .context("create an execution")?;
    let execution_id = created
        .into_inner()
        .execution
        .unwrap_or_default()
        .execution_id;
    let request = GetExecutionRequest {
        execution_id,
        wait_ms: WAIT_MS,
    };
    let ended = client
        .get_execution(request)
        .await
        .context("wait for an execution")?;
    let took = start.elapsed();
    client::succeeded(&ended.into_inner().execution.unwrap_or_default())?;
    Ok(took)
}

fn cli(bench: &Bench, sandbox: &str) -> Command {
    bench.cli(&["exec", sandbox, raw::true_program()])
}

/// One connection, sixteen streams on it at any time.
async fn streams_at_once(bench: &Bench, sandbox: &str, count: usize) -> Result<Duration> {
    let client = bench.gateway.connect();
    let start = Instant::now();
    let mut lanes = JoinSet::new();
    for lane in 0..AT_ONCE {
        let (mut client, sandbox) = (client.clone(), sandbox.to_owned());
        lanes.spawn(async move {
            for _ in (lane..count).step_by(AT_ONCE) {
                stream(&mut client, &sandbox).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    Ok(start.elapsed())
}

/// Sixteen threads that run a command again and again.
pub(super) fn commands_at_once(
    count: usize,
    command: impl Fn() -> Command + Sync,
) -> Result<Duration> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..AT_ONCE)
            .map(|lane| {
                let command = &command;
                scope.spawn(move || {
                    (lane..count)
                        .step_by(AT_ONCE)
                        .try_for_each(|_| raw::time(&mut command()).map(drop))
                })
            })
            .collect();
        lanes
            .into_iter()
            .try_for_each(|lane| lane.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok(start.elapsed())
}
