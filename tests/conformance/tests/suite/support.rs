//! A place for a driver's socket, and a run of the suite against it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use cofferdam_conformance::report::case_lines;
use cofferdam_conformance::{CannotRun, Config, Options, Outcome, Report};
use cofferdam_tests::conformance::selected;
use tokio_util::sync::CancellationToken;

/// A directory of its own, and what a run is told.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) options: Options,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("cofferdam-conf-")
            .tempdir()
            .expect("a directory");
        // A process driver's workloads have users of their own.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711))
            .expect("the mode of an own directory");
        let options = Options {
            socket: directory.path().join("driver.sock"),
            supervisor: libexec().join("cofferdam-supervisor"),
            config: Config::default(),
            tiers: Vec::new(),
            cases: Vec::new(),
            start_command: Vec::new(),
            bench: false,
            interrupt: CancellationToken::new(),
        };
        Self { directory, options }
    }

    /// Runs it, and shows every case as it ends.
    pub(crate) async fn run(&self) -> Result<Report, CannotRun> {
        let tell = |case: &cofferdam_conformance::CaseReport| print!("{}", case_lines(case));
        cofferdam_conformance::run(self.options.clone(), tell).await
    }
}

/// Exactly these cases, and groups of cases, could not be tried. Whoever wants it to be otherwise says
/// so here: nothing is skipped unseen.
#[track_caller]
pub(crate) fn must_have_skipped(report: &Report, expected: &[&str]) {
    let skipped = report.cases.iter();
    let skipped = skipped.filter(|case| case.outcome == Outcome::Skipped);
    let reasons: Vec<_> = skipped
        .clone()
        .map(|case| (case.id, &case.reason))
        .collect();
    let skipped: Vec<_> = skipped.map(|case| case.id).collect();
    let all: Vec<_> = report.cases.iter().map(|case| case.id).collect();
    assert_eq!(skipped, selected(&all, expected), "{reasons:#?}");
}

/// A program that cargo builds along with the tests of a package.
pub(crate) fn built(name: &str, package: &str) -> PathBuf {
    let own = std::env::current_exe().expect("path of the test");
    let profile = own.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let program = profile.join(name);
    assert!(
        program.is_file(),
        "{} is missing: `cargo test -p {package}` builds it",
        program.display()
    );
    program
}

/// Where `cargo xtask test` has put what a sandbox needs.
pub(crate) fn libexec() -> PathBuf {
    let place = match std::env::var_os("COFFERDAM_LIBEXEC") {
        Some(directory) if !directory.is_empty() => PathBuf::from(directory),
        _ => {
            let own = std::env::current_exe().expect("path of the test");
            let target = own.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
            target.join("cofferdam/libexec")
        }
    };
    let supervisor = place.join("cofferdam-supervisor");
    assert!(
        supervisor.is_file(),
        "{} is missing: `cargo xtask test` builds it",
        supervisor.display()
    );
    place
}
