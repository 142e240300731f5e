//! `true` in a sandbox made for it and removed after it.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use super::exec::commands_at_once;
use super::settle;
use crate::bench::Bench;
use crate::client::{self, Client};
use crate::raw;
use crate::report::{Bound, Scenario, Table, Unit};
use crate::stats::Samples;

const STREAM: &str = "cofferdam: Execute, one-shot";
const CLI: &str = "cofferdam run (CLI)";
const EMBEDDED: &str = "cofferdam run, no gateway running (CLI)";
const BWRAP: &str = "bwrap --unshare-all ...";
const DOCKER: &str = "docker run --rm (CLI)";

/// Against bubblewrap's median.
const RATIO_MAX: f64 = 1.5;
const AT_ONCE: usize = 16;
const WARM_UP_ROUNDS: usize = 5;

pub(super) async fn run(bench: &mut Bench, into: &mut Scenario) -> Result<()> {
    for (name, missing) in [
        ("docker", bench.docker.as_ref().err()),
        ("bwrap", bench.bwrap.as_ref().err()),
    ] {
        if let Some(reason) = missing {
            into.note(format!("{name}: skipped ({reason})"));
        }
    }
    latency(bench, into).await?;
    throughput(bench, into).await?;
    for (what, row) in [
        ("Execute by bwrap, p50", STREAM),
        ("cofferdam run by bwrap, p50", CLI),
    ] {
        into.aim(
            what,
            into.ratio(row, BWRAP),
            Bound::AtMost,
            RATIO_MAX,
            Unit::Times,
        );
    }
    Ok(())
}

/// From the execution's record, and what follows it.
#[derive(Debug, Default)]
struct Stages {
    queued: Samples,
    claiming: Samples,
    running: Samples,
    removal: Samples,
}

async fn latency(bench: &mut Bench, into: &mut Scenario) -> Result<()> {
    let mut client = bench.gateway.connect();
    for _ in 0..WARM_UP_ROUNDS {
        stream(&mut client).await?;
    }
    client::until_empty(&mut client).await?;
    let (mut ours, mut cli, mut embedded) = <(Samples, Samples, Samples)>::default();
    let (mut bwrap, mut docker, mut stages) = <(Samples, Samples, Stages)>::default();
    for round in 0..bench.sizes.one_shot_rounds {
        let (took, ended) = stream(&mut client).await?;
        ours.push_ms(took);
        stages
            .removal
            .push_ms(client::until_empty(&mut client).await?);
        stages.queued.push(ended.execution.queued_us as f64 / 1e3);
        stages
            .claiming
            .push(ended.execution.claiming_us as f64 / 1e3);
        stages.running.push(ended.execution.running_us as f64 / 1e3);
        settle().await;
        if let Ok(program) = &bench.bwrap {
            bwrap.push_ms(raw::time(&mut raw::bwrap(program))?);
            settle().await;
        }
        cli.push_ms(raw::time(&mut bench.cli(&[
            "run",
            "--",
            raw::true_program(),
        ]))?);
        client::until_empty(&mut client).await?;
        settle().await;
        if round % bench.sizes.slow_every == 0 {
            let mut command = bench.cli(&["run", "--embedded", "--", raw::true_program()]);
            command.env_remove("COFFERDAM_GATEWAY");
            embedded.push_ms(raw::time(&mut command)?);
            settle().await;
            if let Ok(engine) = &bench.docker {
                docker.push_ms(raw::time(&mut engine.run())?);
                settle().await;
            }
        }
    }
    into.tables.push(Table::new(
        "one at a time",
        Unit::Milliseconds,
        Some(BWRAP),
        [
            (STREAM, &ours),
            (CLI, &cli),
            (EMBEDDED, &embedded),
            (BWRAP, &bwrap),
            (DOCKER, &docker),
        ],
    ));
    into.tables.push(Table::new(
        "stages of Execute",
        Unit::Milliseconds,
        None,
        [
            ("queued", &stages.queued),
            ("claiming: sandbox made, session up", &stages.claiming),
            ("running", &stages.running),
            ("after the end: sandbox removed", &stages.removal),
        ],
    ));
    Ok(())
}

async fn throughput(bench: &Bench, into: &mut Scenario) -> Result<()> {
    let (mut ours, mut bwrap) = <(Samples, Samples)>::default();
    let batch = (bench.sizes.batch / 4).max(AT_ONCE);
    let per_second = |took: Duration| batch as f64 / took.as_secs_f64();
    for _ in 0..bench.sizes.batches {
        ours.push(per_second(streams_at_once(bench, batch).await?));
        settle().await;
        if let Ok(program) = &bench.bwrap {
            bwrap.push(per_second(commands_at_once(batch, || raw::bwrap(program))?));
            settle().await;
        }
    }
    into.tables.push(Table::new(
        format!("{AT_ONCE} at once, until all are removed"),
        Unit::PerSecond,
        Some(BWRAP),
        [(STREAM, &ours), (BWRAP, &bwrap)],
    ));
    Ok(())
}

async fn stream(client: &mut Client) -> Result<(Duration, client::Ended)> {
    let start = Instant::now();
    let ended = client::execute(client, client::one_shot(&[raw::true_program()])).await?;
    Ok((start.elapsed(), ended))
}

async fn streams_at_once(bench: &Bench, count: usize) -> Result<Duration> {
    let mut client = bench.gateway.connect();
    let start = Instant::now();
    let mut lanes = JoinSet::new();
    for lane in 0..AT_ONCE {
        let mut client = client.clone();
        lanes.spawn(async move {
            for _ in (lane..count).step_by(AT_ONCE) {
                stream(&mut client).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    client::until_empty(&mut client).await?;
    Ok(start.elapsed())
}
