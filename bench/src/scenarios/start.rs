//! From the start of the gateway's process until it is ready.

use std::process::Command;

use anyhow::Result;

use crate::bench::Bench;
use crate::gateway::Gateway;
use crate::raw;
use crate::report::{Bound, Scenario, Table, Unit};
use crate::stats::Samples;

const FIRST: &str = "first start, to READY=1";
const AGAIN: &str = "start with a store, to READY=1";
const VERSION: &str = "cofferdam-gateway --version";
const READY_MS_MAX: f64 = 50.0;

pub(super) async fn run(bench: &mut Bench, into: &mut Scenario) -> Result<()> {
    let (mut first, mut first_answered, mut again, mut again_answered, mut version) =
        <(Samples, Samples, Samples, Samples, Samples)>::default();
    for round in 0..bench.sizes.starts {
        let home = bench.directory(&format!("start-{round}"));
        for (notified, answered) in [
            (&mut first, &mut first_answered),
            (&mut again, &mut again_answered),
        ] {
            let gateway = Gateway::start(&bench.staged, &home).await?;
            notified.push_ms(gateway.notified);
            answered.push_ms(gateway.answered);
            gateway.stop().await?;
        }
        version.push_ms(raw::time(
            Command::new(&bench.staged.gateway).arg("--version"),
        )?);
    }
    into.tables.push(Table::new(
        "from spawn",
        Unit::Milliseconds,
        Some(VERSION),
        [
            (FIRST, &first),
            ("first start, to GetInfo.ready", &first_answered),
            (AGAIN, &again),
            ("start with a store, to GetInfo.ready", &again_answered),
            (VERSION, &version),
        ],
    ));
    for row in [FIRST, AGAIN] {
        into.aim(
            row,
            into.p50(row),
            Bound::AtMost,
            READY_MS_MAX,
            Unit::Milliseconds,
        );
    }
    Ok(())
}
