//! `cofferdam driver conformance`: whether what listens on a socket is a driver as the contract
//! means it. No gateway takes part: the suite speaks for one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cofferdam_conformance::{CannotRun, Config, Options, Outcome, Tier, report};
use tokio_util::sync::CancellationToken;

use super::DONE;
use crate::error::{CommandError, Kind};
use crate::libexec;
use crate::ui::Ui;

/// Some case failed, or the measurement.
const EXIT_FAILED: u8 = 1;

const NOTHING_TRIED: &str = "each says why; ask for a tier that this driver claims something of";

const SUPERVISOR: &str = "cofferdam-supervisor";

/// Try a driver against the contract, case by case.
///
/// Exits with 0 if no case failed, with 1 if some did or the measurement ended early, and with 125 if
/// nothing could be tried.
/// It takes a gateway's place, so use a driver that no gateway uses just now, and one that may be
/// given other settings. docs/conformance.md says how to read the result.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The socket that the driver listens on.
    #[arg(long, value_name = "PATH", required_unless_present = "list")]
    socket: Option<PathBuf>,

    /// What this driver needs to be told: settings, image, patience (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Only this part of the suite; repeatable. `all` is every part, which is the default.
    #[arg(long, value_name = "TIER", value_delimiter = ',', value_parser = tiers)]
    tier: Vec<Tiers>,

    /// Only this case, or this group of cases (`core.create`); repeatable.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    case: Vec<String>,

    /// Print the cases as a table and exit.
    #[arg(long)]
    list: bool,

    /// Also write the result as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Measure how long create, ready, exec and delete take.
    #[arg(long)]
    bench: bool,

    /// The supervisor to hand to the driver, instead of the installed one.
    #[arg(long, value_name = "FILE")]
    supervisor: Option<PathBuf>,

    /// Start the driver with this command, which may then be killed and started again. Everything
    /// after it belongs to the command, which must be the driver itself and no shell around it.
    #[arg(long, value_name = "COMMAND", num_args = 1.., allow_hyphen_values = true)]
    start_command: Vec<OsString>,
}

/// What one word of `--tier` means.
#[derive(Debug, Clone)]
struct Tiers(Vec<Tier>);

fn tiers(word: &str) -> Result<Tiers, String> {
    match word {
        "all" => Ok(Tiers(Tier::ALL.to_vec())),
        word => word.parse().map(|tier| Tiers(vec![tier])),
    }
}

pub(crate) async fn run(args: Args, ui: &Ui) -> Result<u8, CommandError> {
    if args.list {
        ui.out(&report::list_lines(cofferdam_conformance::cases()))?;
        return Ok(DONE);
    }
    let junit = args.junit.clone();
    let options = options(args)?;
    let mut output = Ok(());
    let watched = |case: &report::CaseReport| {
        let is_news = !ui.quiet || case.outcome == Outcome::Failed;
        if output.is_ok() && !ui.json && is_news {
            output = ui.out(&report::case_lines(case));
        }
    };
    let interrupt = options.interrupt.clone();
    let interrupted = async {
        ctrl_c().await;
        interrupt.cancel();
        // What was made is being removed; who is in a hurry presses again.
        ctrl_c().await;
    };
    let result = tokio::select! {
        result = cofferdam_conformance::run(options, watched) => result,
        () = interrupted => Err(CannotRun::Interrupted),
    };
    output?;
    let result = result.map_err(cannot_run)?;
    if let Some(path) = junit {
        write(&path, &report::junit(&result))?;
    }
    if ui.json {
        ui.object(&result)?;
    } else {
        if let Some(bench) = &result.bench {
            ui.out(&report::bench_lines(bench))?;
        }
        ui.out(&report::driver_lines(&result.driver))?;
        ui.out(&report::summary_line(&result.summary))?;
    }
    if !result.is_conformant() || !result.is_measured() {
        return Ok(EXIT_FAILED);
    }
    if !result.has_tried_anything() {
        let count = result.summary.skipped;
        let told = format!("nothing could be tried: {count} cases were skipped");
        return Err(CommandError::new(Kind::Precondition, told).hint(NOTHING_TRIED));
    }
    Ok(DONE)
}

/// Waits until somebody presses Ctrl-C: for ever, where nobody can be told of that.
async fn ctrl_c() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn options(args: Args) -> Result<Options, CommandError> {
    let config = match &args.config {
        Some(path) => Config::load(path).map_err(|error| {
            let told = CommandError::usage(error.to_string());
            match std::error::Error::source(&error) {
                Some(cause) => told.caused_by(cause.to_string()),
                None => told,
            }
        })?,
        None => Config::default(),
    };
    let supervisor = match args.supervisor {
        Some(path) => path,
        None => libexec::find()?.join(SUPERVISOR),
    };
    Ok(Options {
        socket: args.socket.unwrap_or_default(),
        supervisor,
        config,
        tiers: args.tier.into_iter().flat_map(|tiers| tiers.0).collect(),
        cases: args.case,
        start_command: args.start_command,
        bench: args.bench,
        interrupt: CancellationToken::new(),
    })
}

fn cannot_run(error: CannotRun) -> CommandError {
    let kind = match error {
        CannotRun::NoSuchCase { .. } | CannotRun::NothingSelected => Kind::Usage,
        _ => Kind::Precondition,
    };
    let told = CommandError::new(kind, error.to_string());
    let told = match error.fix() {
        fix if fix.is_empty() => told,
        fix => told.hint(fix),
    };
    match std::error::Error::source(&error) {
        Some(cause) => told.caused_by(cause.to_string()),
        None => told,
    }
}

fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    std::fs::write(path, text)
        .map_err(|error| CommandError::io(format!("cannot write {}", path.display()), error))
}
