//! The docker driver against Docker's own tool, on the same engine and image.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cofferdam_proto::gateway::v1::SandboxRequest;
use cofferdam_proto::gateway::v1::execution_request::Place;

use super::settle;
use crate::bench::Bench;
use crate::client::{self, Client};
use crate::docker::{Docker, IMAGE};
use crate::gateway::Gateway;
use crate::raw;
use crate::report::{Bound, Scenario, Table, Unit};
use crate::stats::Samples;

const RUN: &str = "cofferdam: Execute, one-shot";
const RUN_CLI: &str = "cofferdam run (CLI)";
const DOCKER_RUN: &str = "docker run --rm (CLI)";
const EXEC: &str = "cofferdam: Execute in a ready sandbox";
const EXEC_CLI: &str = "cofferdam exec (CLI)";
const DOCKER_EXEC: &str = "docker exec (CLI)";
const STREAM: &str = "cofferdam: Execute, stdout";

/// Of `docker run`'s median.
const RUN_RATIO_MAX: f64 = 0.9;
/// Of `docker exec`'s median: thirty times as fast.
const EXEC_RATIO_MAX: f64 = 1.0 / 30.0;
const WARM_UP_ROUNDS: usize = 3;
const TRUE: &str = "/bin/true";

pub(super) async fn run(bench: &Bench, into: &mut Scenario) -> Result<()> {
    let docker = match &bench.docker {
        Ok(docker) => docker,
        Err(reason) => {
            into.note(format!("skipped ({reason})"));
            return Ok(());
        }
    };
    let home = bench.directory("containers");
    let config = format!(
        "default_driver = \"docker\"\n[drivers.docker.settings]\nhost = {:?}\n",
        docker.host
    );
    let gateway = Gateway::start_with(&bench.staged, &home, &config).await?;
    let measured = measure(bench, docker, &gateway, into).await;
    let emptied = client::delete_all(&mut gateway.connect()).await;
    let stopped = gateway.stop().await;
    measured?;
    emptied?;
    stopped
}

async fn measure(
    bench: &Bench,
    docker: &Docker,
    gateway: &Gateway,
    into: &mut Scenario,
) -> Result<()> {
    one_shot(bench, docker, gateway, into).await?;
    ready(bench, docker, gateway, into).await?;
    for (what, row, base, bound) in [
        ("Execute by docker run, p50", RUN, DOCKER_RUN, RUN_RATIO_MAX),
        (
            "Execute by docker exec, p50",
            EXEC,
            DOCKER_EXEC,
            EXEC_RATIO_MAX,
        ),
    ] {
        let ratio = into.ratio(row, base);
        into.aim(what, ratio, Bound::AtMost, bound, Unit::Times);
    }
    Ok(())
}

async fn one_shot(
    bench: &Bench,
    docker: &Docker,
    gateway: &Gateway,
    into: &mut Scenario,
) -> Result<()> {
    let mut client = gateway.connect();
    let (mut ours, mut cli, mut raw) = <(Samples, Samples, Samples)>::default();
    for _ in 0..WARM_UP_ROUNDS {
        fresh(&mut client).await?;
    }
    for _ in 0..bench.sizes.container_rounds {
        ours.push_ms(fresh(&mut client).await?);
        client::until_empty(&mut client).await?;
        settle().await;
        let words = ["run", "--image", IMAGE, "--", TRUE];
        let mut command = bench.cli(&words);
        command.env("COFFERDAM_GATEWAY", &gateway.socket);
        cli.push_ms(raw::time(&mut command)?);
        client::until_empty(&mut client).await?;
        settle().await;
        raw.push_ms(raw::time(&mut docker.run())?);
        settle().await;
    }
    into.tables.push(Table::new(
        "a command in a fresh container",
        Unit::Milliseconds,
        Some(DOCKER_RUN),
        [(RUN, &ours), (RUN_CLI, &cli), (DOCKER_RUN, &raw)],
    ));
    Ok(())
}

async fn ready(
    bench: &Bench,
    docker: &Docker,
    gateway: &Gateway,
    into: &mut Scenario,
) -> Result<()> {
    let mut client = gateway.connect();
    let sandbox = client::create_sandbox(&mut client, unthrottled(bench)).await?;
    let (mut ours, mut cli, mut raw) = <(Samples, Samples, Samples)>::default();
    for _ in 0..bench.sizes.container_rounds {
        ours.push_ms(took(&mut client, &sandbox, &[TRUE]).await?.0);
        settle().await;
        let mut command = bench.cli(&["exec", &sandbox, TRUE]);
        command.env("COFFERDAM_GATEWAY", &gateway.socket);
        cli.push_ms(raw::time(&mut command)?);
        settle().await;
        raw.push_ms(raw::time(&mut docker.exec(&[TRUE]))?);
        settle().await;
    }
    into.tables.push(Table::new(
        "a command in a container that is ready",
        Unit::Milliseconds,
        Some(DOCKER_EXEC),
        [(EXEC, &ours), (EXEC_CLI, &cli), (DOCKER_EXEC, &raw)],
    ));
    bulk(bench, docker, &mut client, &sandbox, into).await
}

async fn bulk(
    bench: &Bench,
    docker: &Docker,
    client: &mut Client,
    sandbox: &str,
    into: &mut Scenario,
) -> Result<()> {
    let bytes = bench.sizes.bulk_bytes;
    let count = bytes.to_string();
    let rate = |took: Duration| bytes as f64 / 1e6 / took.as_secs_f64();
    let (mut ours, mut raw) = <(Samples, Samples)>::default();
    for _ in 0..bench.sizes.bulk_rounds {
        let words = ["head", "-c", &count, "/dev/zero"];
        let (time, seen) = took(client, sandbox, &words).await?;
        ensure!(seen == bytes, "{seen} of {bytes} bytes came");
        ours.push(rate(time));
        settle().await;
        let line = docker.exec_line(&format!("head -c {bytes} /dev/zero"));
        let line = format!("{line} > /dev/null");
        raw.push(rate(raw::time_long(&mut raw::shell(&line)).await?));
        settle().await;
    }
    into.tables.push(Table::new(
        "stdout of a container",
        Unit::MegabytesPerSecond,
        Some(DOCKER_EXEC),
        [(STREAM, &ours), (DOCKER_EXEC, &raw)],
    ));
    Ok(())
}

fn request() -> SandboxRequest {
    SandboxRequest {
        image: IMAGE.to_owned(),
        ..client::sandbox_request()
    }
}

fn unthrottled(bench: &Bench) -> SandboxRequest {
    SandboxRequest {
        cpu_millis: Some(bench.cpus * 1000),
        ..request()
    }
}

async fn fresh(client: &mut Client) -> Result<Duration> {
    let mut execution = client::one_shot(&[TRUE]);
    execution.place = Some(Place::OneShot(request()));
    let start = Instant::now();
    client::execute(client, execution)
        .await
        .context("run in a fresh container")?;
    Ok(start.elapsed())
}

/// How long a command took, and how much it wrote.
async fn took(client: &mut Client, sandbox: &str, argv: &[&str]) -> Result<(Duration, u64)> {
    let start = Instant::now();
    let ended = client::execute(client, client::in_sandbox(sandbox, argv)).await?;
    Ok((start.elapsed(), ended.output_bytes))
}
