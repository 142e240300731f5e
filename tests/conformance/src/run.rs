//! The run: finds out who is there, tries one case after the other, and cleans up behind each.
//!
//! ```text
//!  select ─► start the driver? ─► probe ─► case ─► clean up ─► case … ─► bench? ─► report
//!                                   │ no handshake, no settings, not healthy:
//!                                   └ the cases about that run, all others are skipped
//! ```

mod clean;
mod probe;

use std::os::unix::fs::FileTypeExt as _;
use std::time::{Duration, Instant};

use cofferdam_gateway::driver::{SupervisorBinary, SupervisorBinaryError};
use futures_util::FutureExt as _;
use tokio::time::timeout;

use crate::case::{Case, Stop, Verdict};
use crate::program::Program;
use crate::recorder::Recorder;
use crate::report::{CaseReport, DriverFacts, FORMAT, Outcome, Report, Summary};
use crate::suite::Suite;
use crate::{Options, bench, cases};
use probe::Gate;

/// A case may take this many times the suite's patience,
const CASE_PATIENCES: u32 = 4;
/// and what the contract itself lets pass, which is no matter of patience.
const CASE_EXTRA: Duration = Duration::from_secs(30);

/// Why nothing could be said about the driver. The exit code is 125.
#[derive(Debug, thiserror::Error)]
pub enum CannotRun {
    /// A case that there is not.
    #[error("there is no case or group {selector:?}")]
    NoSuchCase {
        /// As it was given.
        selector: String,
    },
    /// Nothing to try is no success.
    #[error("the tiers and cases that were asked for have no case in common")]
    NothingSelected,
    /// The supervisor that sandboxes need.
    #[error("the supervisor cannot be used")]
    Supervisor(#[source] SupervisorBinaryError),
    /// No place for callback sockets.
    #[error("no temporary directory can be made")]
    Directory(#[source] std::io::Error),
    /// The start command does not bring up a driver.
    #[error("the driver could not be started: {0}")]
    Start(String),
    /// Somebody wanted it to end.
    #[error("the run was interrupted; what it had made is removed")]
    Interrupted,
    /// There is nobody to try.
    #[error("{problem}")]
    NoDriver {
        /// What is wrong.
        problem: String,
        /// What to do.
        fix: String,
    },
}

impl CannotRun {
    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::NoSuchCase { .. } | Self::NothingSelected => "--list shows all cases".to_owned(),
            Self::Supervisor(_) => {
                "name the supervisor's binary with --supervisor, or set COFFERDAM_LIBEXEC"
                    .to_owned()
            }
            Self::Directory(_) => "set TMPDIR to a directory that can be written".to_owned(),
            Self::Start(_) => "correct the words after --start-command".to_owned(),
            Self::Interrupted => String::new(),
            Self::NoDriver { fix, .. } => fix.clone(),
        }
    }
}

/// Tries a driver. `tell` gets every case as it ends, so that somebody may watch.
///
/// # Errors
/// When nothing can be said about the driver; a driver that fails cases is no error.
pub async fn run(options: Options, mut tell: impl FnMut(&CaseReport)) -> Result<Report, CannotRun> {
    let begun = Instant::now();
    let selected = select(&options)?;
    let supervisor = SupervisorBinary::load(&options.supervisor)
        .await
        .map_err(CannotRun::Supervisor)?;
    let runtime_dir = tempfile::Builder::new()
        .prefix("cofferdam-conformance-")
        .tempdir()
        .map_err(CannotRun::Directory)?;
    let recorder = Recorder::default();
    let program = match start(&options, &recorder).await? {
        None => {
            look_for_socket(&options)?;
            None
        }
        started => started,
    };
    let (bench, interrupt) = (options.bench, options.interrupt.clone());
    let suite = Suite::new(
        options,
        supervisor,
        runtime_dir.path().to_owned(),
        program,
        recorder,
    );
    let mut gate = None;
    let mut reports = Vec::new();
    let mut measured = None;
    let work = async {
        gate = probe::probe(&suite).await;
        for case in selected {
            let report = try_case(&suite, case, gate.as_ref()).await;
            tell(&report);
            reports.push(report);
        }
        if bench && gate.is_none() {
            measured = Some(bench::measure(&suite).await);
        }
    };
    let done = interrupt.run_until_cancelled(work).await;
    let driver = facts(&suite);
    clean::after_case(&suite, "the last case").await;
    clean::stragglers(&suite).await;
    if done.is_some()
        && gate.is_none()
        && let Some(report) = left(&suite, &reports).await
    {
        tell(&report);
        reports.retain(|known| known.id != report.id);
        reports.push(report);
    }
    suite.close().await;
    if done.is_none() {
        return Err(CannotRun::Interrupted);
    }
    let summary = Summary::of(&reports, millis(begun.elapsed()));
    match gate {
        // Nobody has been found wanting, but nothing has been tried either.
        Some(gate) if summary.failed == 0 => Err(CannotRun::NoDriver {
            problem: gate.reason,
            fix: gate.fix,
        }),
        _ => Ok(Report {
            format: FORMAT,
            suite_version: env!("CARGO_PKG_VERSION"),
            driver,
            cases: reports,
            summary,
            bench: measured,
        }),
    }
}

/// What is left at the end of a run and no case has told.
async fn left(suite: &Suite, reports: &[CaseReport]) -> Option<CaseReport> {
    let (case, left) = cases::left_at_the_end(suite).await?;
    let told = reports.iter().find(|report| report.id == case.id);
    // What it has told once it does not tell again.
    let has_failed = told.is_some_and(|report| report.outcome == Outcome::Failed);
    (!has_failed).then(|| CaseReport::of(case, Err(left), 0))
}

fn select(options: &Options) -> Result<Vec<&'static Case>, CannotRun> {
    for selector in &options.cases {
        if !cases::all().any(|case| case.is_meant_by(selector)) {
            let selector = selector.clone();
            return Err(CannotRun::NoSuchCase { selector });
        }
    }
    let is_selected = |case: &&Case| {
        let by_tier = options.tiers.is_empty() || options.tiers.contains(&case.tier());
        if options.cases.is_empty() {
            // Whatever was asked for, what was seen in it counts.
            return by_tier || cases::is_about_others(case.id);
        }
        let named = |selector: &String| case.is_meant_by(selector);
        by_tier && options.cases.iter().any(named)
    };
    let selected: Vec<_> = cases::all().filter(is_selected).collect();
    if selected.is_empty() {
        return Err(CannotRun::NothingSelected);
    }
    Ok(selected)
}

async fn start(options: &Options, recorder: &Recorder) -> Result<Option<Program>, CannotRun> {
    if options.start_command.is_empty() {
        return Ok(None);
    }
    let patience = options.config.timing.patience();
    let command = options.start_command.clone();
    let program = Program::new(command, options.socket.clone(), patience, recorder.clone());
    let trouble = match options.interrupt.run_until_cancelled(program.start()).await {
        Some(Ok(())) => return Ok(Some(program)),
        Some(Err(problem)) => CannotRun::Start(problem),
        None => CannotRun::Interrupted,
    };
    program.close().await;
    Err(trouble)
}

fn look_for_socket(options: &Options) -> Result<(), CannotRun> {
    let path = options.socket.display();
    let problem = match std::fs::metadata(&options.socket) {
        Ok(metadata) if metadata.file_type().is_socket() => return Ok(()),
        Ok(_) => format!("{path} is not a socket"),
        Err(error) => format!("there is no socket {path}: {error}"),
    };
    Err(CannotRun::NoDriver {
        problem,
        fix: "start the driver first, or give the suite --start-command".to_owned(),
    })
}

async fn try_case(suite: &Suite, case: &'static Case, gate: Option<&Gate>) -> CaseReport {
    if let Some(reason) =
        closed_by(gate, case).or_else(|| case.needs.iter().find_map(|need| need.missing(suite)))
    {
        return CaseReport::of(case, Err(Stop::Skipped(reason)), 0);
    }
    suite.step("nothing yet");
    let begun = Instant::now();
    let verdict = bounded(suite, case).await;
    let took = millis(begun.elapsed());
    let verdict = match suite.crash(verdict.is_err()).await {
        Some(crash) => Err(crashed(verdict, &crash)),
        None => verdict,
    };
    let report = CaseReport::of(case, verdict, took);
    clean::after_case(suite, case.id).await;
    report
}

/// No case passes in which the driver has died of itself.
fn crashed(verdict: Verdict, crash: &str) -> Stop {
    let seen = match verdict {
        Err(Stop::Failed { seen, .. }) => format!("{seen}; {crash}"),
        Ok(()) | Err(Stop::Skipped(_)) => crash.to_owned(),
    };
    Stop::failed(seen).with_fix("whatever a driver is asked for, it answers, and goes on")
}

fn closed_by(gate: Option<&Gate>, case: &Case) -> Option<String> {
    let gate = gate?;
    let is_open = gate.open.iter().any(|group| case.is_meant_by(group));
    (!is_open).then(|| gate.reason.clone())
}

/// A driver that hangs fails its case; it never hangs the suite.
async fn bounded(suite: &Suite, case: &'static Case) -> Verdict {
    let limit = suite.patience() * CASE_PATIENCES + CASE_EXTRA;
    let run = std::panic::AssertUnwindSafe((case.run)(suite.clone())).catch_unwind();
    match timeout(limit, run).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(_)) => Err(Stop::failed(
            "the case itself panicked: a fault of the suite",
        )),
        Err(_) => Err(Stop::failed(format!(
            "not finished after {} s; last seen {}",
            limit.as_secs(),
            suite.last_step()
        ))),
    }
}

fn facts(suite: &Suite) -> DriverFacts {
    let socket = suite.socket().display().to_string();
    let Some(greeting) = suite.greeting() else {
        return DriverFacts {
            socket,
            ..DriverFacts::default()
        };
    };
    let can = &greeting.capabilities;
    DriverFacts {
        socket,
        execution: can.execution().as_str_name().to_owned(),
        isolation: can.isolation().as_str_name().to_owned(),
        name: greeting.handshake.name,
        version: greeting.handshake.version,
        description: greeting.handshake.description,
        incarnation: greeting.handshake.incarnation,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
