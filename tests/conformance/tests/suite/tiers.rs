//! The tiers beyond core: all of their cases really run against some driver, and a driver that is
//! wrong is told so, by the case that is about it.

use cofferdam_conformance::report::Outcome;

use crate::support::must_have_skipped;
use crate::twisted::{Twist, run};

/// The other tiers run against the process driver and the fake, whole: see there.
#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_runs_commands_passes_the_command_tier() {
    let report = run(Twist::None, &["command"], true).await;
    assert_eq!(report.failed(), Vec::<&str>::new());
    must_have_skipped(&report, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_driver_does_not_claim_is_skipped_with_the_reason() {
    let groups = ["resources", "command", "interactive.stats"];
    let report = run(Twist::None, &groups, false).await;
    assert_eq!(report.summary.passed + report.summary.failed, 0);
    for case in &report.cases {
        let reason = case.reason.as_deref().unwrap_or_default();
        assert!(reason.starts_with("the driver"), "{}: {reason:?}", case.id);
    }
}

/// What fails of these cases, and what was seen.
async fn failed(twist: Twist, cases: &[&str], runs_commands: bool) -> Vec<(&'static str, String)> {
    let report = run(twist, cases, runs_commands).await;
    let failed = report
        .cases
        .iter()
        .filter(|case| case.outcome == Outcome::Failed);
    failed
        .map(|case| (case.id, case.seen.clone().unwrap_or_default()))
        .collect()
}

/// Each of these fails, for this reason, and nothing else does.
fn must_be(failed: &[(&'static str, String)], expected: &[(&str, &str)]) {
    let ids = |pairs: &[(&'static str, String)]| -> Vec<String> {
        pairs.iter().map(|(id, _)| (*id).to_owned()).collect()
    };
    let wanted: Vec<String> = expected.iter().map(|(id, _)| (*id).to_owned()).collect();
    assert_eq!(ids(failed), wanted, "{failed:?}");
    for ((id, seen), (_, why)) in failed.iter().zip(expected) {
        assert!(seen.contains(why), "{id}: {seen:?}, without {why:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_one_connection_only_is_noticed() {
    let cases = ["interactive.exec.output", "interactive.replay.cut"];
    let failed = failed(Twist::RelaysOnce, &cases, false).await;
    must_be(
        &failed,
        &[("interactive.replay.cut", "does not call again")],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_loses_bytes_is_noticed() {
    let cases = ["interactive.exec.output", "interactive.load.large-output"];
    let failed = failed(Twist::LosesBytes, &cases, false).await;
    must_be(&failed, &[("interactive.load.large-output", "broke")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_code_that_is_lost_is_noticed() {
    let cases = ["command.run.exit-codes", "command.run.arguments"];
    let failed = failed(Twist::CommandsSucceed, &cases, true).await;
    must_be(
        &failed,
        &[("command.run.exit-codes", "`exit 1` ended with")],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ends_without_its_exit_is_noticed() {
    let failed = failed(Twist::CommandsEndSilently, &["command.run.output"], true).await;
    must_be(&failed, &[("command.run.output", "without `exited`")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_runs_twice_is_noticed() {
    let cases = ["command.run.idempotent", "command.run.output"];
    let failed = failed(Twist::CommandsRunAgain, &cases, true).await;
    must_be(&failed, &[("command.run.idempotent", "")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_comes_twice_is_noticed() {
    let cases = ["command.run.idempotent", "command.run.cancelled"];
    let failed = failed(Twist::CommandsFromTheStart, &cases, true).await;
    let doubled = "output came from offset 0";
    must_be(
        &failed,
        &[
            ("command.run.idempotent", doubled),
            ("command.run.cancelled", doubled),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_freezes_nothing_is_noticed() {
    let failed = failed(Twist::PausesNothing, &["snapshot.pause.freezes"], false).await;
    must_be(&failed, &[("snapshot.pause.freezes", "goes on writing")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_nothing_is_noticed() {
    let cases = ["snapshot.store.restores", "snapshot.store.identity"];
    let failed = failed(Twist::RestoresNothing, &cases, false).await;
    must_be(&failed, &[("snapshot.store.restores", "No such file")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_do_not_hold_are_noticed() {
    let failed = failed(Twist::LimitsNothing, &["resources"], false).await;
    must_be(
        &failed,
        &[
            ("resources.memory.bound", "four times the limit"),
            ("resources.pids.bound", "and the limit is"),
            ("resources.pids.survives", "and the limit is"),
            ("resources.cpu.bound", "thousandths"),
            ("resources.disk.bound", "could be written"),
            ("resources.disk.tmp", "could be written"),
            ("resources.disk.no-space", "succeeded"),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn zeros_that_nobody_measured_are_noticed() {
    let cases = ["interactive.stats.measured"];
    let failed = failed(Twist::MeasuresNothing, &cases, false).await;
    must_be(&failed, &[("interactive.stats.measured", "cpu_us was 0")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_for_which_all_others_wait_is_noticed() {
    let cases = ["core.stop.others-go-on", "core.stop.stubborn"];
    let broken = failed(Twist::StopsAlone, &cases, false).await;
    must_be(
        &broken,
        &[(
            "core.stop.others-go-on",
            "could not be observed and deleted meanwhile",
        )],
    );
    must_be(&failed(Twist::None, &cases, false).await, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_nobody_checks_is_noticed() {
    let cases = ["core.ending.bad-supervisor", "core.create.connects"];
    let unchecked = failed(Twist::AnySupervisor, &cases, false).await;
    must_be(
        &unchecked,
        &[("core.ending.bad-supervisor", "runs with a supervisor")],
    );
    let wrong_code = failed(Twist::BlamesItself, &cases, false).await;
    must_be(
        &wrong_code,
        &[(
            "core.ending.bad-supervisor",
            "FAILED_PRECONDITION or INVALID_ARGUMENT",
        )],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_by_a_signal_that_is_told_as_an_exit_is_noticed() {
    let cases = ["core.ending.signaled", "core.ending.success"];
    let broken = failed(Twist::SignalsAsCodes, &cases, false).await;
    let told = "EXITED with signal 0 and exit_code 137";
    must_be(&broken, &[("core.ending.signaled", told)]);
    let right = run(Twist::None, &cases, false).await;
    assert_eq!(right.failed(), Vec::<&str>::new());
    must_have_skipped(&right, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_are_not_made_ready_are_noticed() {
    let cases = ["core.images"];
    let right = run(Twist::Archives, &cases, false).await;
    assert_eq!(right.failed(), Vec::<&str>::new());
    must_have_skipped(&right, &[]);
    let invented = failed(Twist::ArchivesInvented, &cases, false).await;
    must_be(
        &invented,
        &[("core.images.missing", "the call succeeded where")],
    );
    let endless = failed(Twist::ArchivesEndless, &cases, false).await;
    must_be(
        &endless,
        &[("core.images.prepared", "of 2 messages 0 have `done`")],
    );
}
