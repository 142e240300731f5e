//! `cofferdam driver`: the platforms that the gateway can use.

use cofferdam_proto::gateway::v1::{Driver, GetDriverRequest, ListDriversRequest};

use super::version::info;
use super::{DONE, driver_conformance};
use crate::cli::Global;
use crate::connect::{self, Client, QUERY, within};
use crate::error::CommandError;
use crate::render::{Cell, table};
use crate::ui::Ui;
use crate::view::driver::{DriverView, condition, isolation, lines, problem};

/// Show the drivers of the gateway, or try one that has none yet.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the drivers.
    Ls,
    /// Show everything about a driver.
    Inspect {
        /// As the gateway calls it.
        name: String,
    },
    Conformance(driver_conformance::Args),
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    match args.command {
        Command::Ls => ls(connect::client(global)?, ui).await,
        Command::Inspect { name } => inspect(connect::client(global)?, name, ui).await,
        Command::Conformance(args) => driver_conformance::run(args, ui).await,
    }
}

async fn ls(client: Client, ui: &Ui) -> Result<u8, CommandError> {
    let drivers = list(client.clone()).await?;
    if ui.json {
        for driver in &drivers {
            ui.object(&DriverView::from(driver))?;
        }
    } else if ui.quiet {
        for driver in &drivers {
            ui.line(&driver.name)?;
        }
    } else {
        let default = info(client).await?.default_driver;
        let rows: Vec<_> = drivers.iter().map(|driver| row(driver, &default)).collect();
        let titles = [
            "NAME",
            "STATE",
            "VERSION",
            "ISOLATION",
            "SANDBOXES",
            "DEFAULT",
            "PROBLEM",
        ];
        ui.out(&table(ui, titles, &rows))?;
        for driver in &drivers {
            if let Some((_, fix)) = problem(driver)
                && !fix.is_empty()
            {
                ui.note(&format!("driver {:?}: {fix}", driver.name));
            }
        }
    }
    Ok(DONE)
}

fn row(driver: &Driver, default: &str) -> [Cell; 7] {
    let (word, tone) = condition(driver);
    [
        driver.name.as_str().into(),
        Cell::toned(word, tone),
        driver.version.as_str().into(),
        isolation(driver).into(),
        driver.sandboxes.to_string().into(),
        if driver.name == default { "yes" } else { "" }.into(),
        problem(driver)
            .map(|(problem, _)| problem)
            .unwrap_or_default()
            .into(),
    ]
}

async fn inspect(mut client: Client, name: String, ui: &Ui) -> Result<u8, CommandError> {
    let response = client
        .get_driver(within(QUERY, GetDriverRequest { name }))
        .await?;
    let driver = response.into_inner().driver.unwrap_or_default();
    if ui.json {
        ui.object(&DriverView::from(&driver))?;
    } else if ui.quiet {
        ui.line(&driver.name)?;
    } else {
        ui.out(&lines(&driver).render(ui))?;
    }
    Ok(DONE)
}

pub(super) async fn list(mut client: Client) -> Result<Vec<Driver>, CommandError> {
    let response = client
        .list_drivers(within(QUERY, ListDriversRequest {}))
        .await?;
    Ok(response.into_inner().drivers)
}
