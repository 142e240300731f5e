//! Drivers that break one rule and keep all others: the suite fails each, in the case that is about
//! that rule and with what is wrong there, and passes the same case on the same driver unbroken.

use std::path::PathBuf;

use cofferdam_conformance::report::{CaseReport, Outcome};
use cofferdam_conformance::{Report, Tier};
use cofferdam_driver_sdk::faults::{FaultDriver, Script, Variant};

use crate::support::{Place, built, must_have_skipped};

/// What a broken driver must be told.
struct Proof {
    variant: Variant,
    /// The case that is about the rule.
    case: &'static str,
    /// Cases that must have run before, for those that tell what was seen in others.
    with: &'static [&'static str],
    /// A part of what is seen.
    seen: &'static str,
    /// Also fails, about what the driver has left.
    leaves: bool,
}

const fn proof(variant: Variant, case: &'static str, seen: &'static str) -> Proof {
    Proof {
        variant,
        case,
        with: &[],
        seen,
        leaves: false,
    }
}

/// Of the case about what is left when everything was deleted: told whatever was asked for.
const LEFT: &str = "core.leaks.none";

/// Runs these cases against the driver with this script.
async fn run(script: Script, cases: Vec<String>, patience_s: u64) -> Report {
    let mut place = Place::new();
    place.options.cases = cases;
    place.options.config.timing.patience_s = patience_s;
    run_at(place, script).await
}

async fn run_at(place: Place, script: Script) -> Report {
    let driver = FaultDriver::start(&place.options.socket, script).unwrap();
    let report = place.run().await.unwrap();
    driver.stop().await;
    report
}

fn case<'a>(report: &'a Report, id: &str) -> &'a CaseReport {
    let found = report.cases.iter().find(|case| case.id == id);
    found.unwrap_or_else(|| panic!("{id} was not run"))
}

async fn must_be_noticed(proof: Proof) {
    let Proof {
        variant,
        case: id,
        with,
        seen,
        leaves,
    } = proof;
    let cases = || {
        let ids = with.iter().chain([&id]);
        ids.map(|id| (*id).to_owned()).collect::<Vec<_>>()
    };
    // It fails, so it need not wait long for what never comes.
    let report = run(Script::variant(variant), cases(), 10).await;
    let expected = if leaves { vec![id, LEFT] } else { vec![id] };
    assert_eq!(report.failed(), expected, "{variant}: {}", variant.rule());
    let failed = case(&report, id);
    let said = failed.seen.clone().unwrap_or_default();
    assert!(said.contains(seen), "{variant}: {said:?} without {seen:?}");
    assert!(failed.fix.is_some() && !failed.says.is_empty());

    let report = run(Script::default(), cases(), 30).await;
    assert_eq!(report.failed(), Vec::<&str>::new(), "unbroken");
    assert_eq!(case(&report, id).outcome, Outcome::Passed, "unbroken: {id}");
}

macro_rules! noticed {
    ($($name:ident: $proof:expr;)*) => {
        const PROVED: &[Variant] = &[$($proof.variant),*];

        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            must_be_noticed($proof).await;
        })*
    };
}

/// Proved with a driver that the suite starts.
const PROVED_STARTED: &[Variant] = &[Variant::IncarnationUnreported];

#[test]
fn every_broken_rule_has_a_case_that_notices() {
    let proved: Vec<&Variant> = PROVED.iter().chain(PROVED_STARTED).collect();
    for variant in Variant::ALL {
        assert!(proved.contains(&variant), "{variant}: {}", variant.rule());
    }
}

noticed! {
    a_create_that_is_not_idempotent: proof(
        Variant::NonIdempotentCreate,
        "core.create.idempotent",
        "CreateSandbox answered ALREADY_EXISTS",
    );
    a_stop_that_is_only_said: Proof {
        leaves: true,
        ..proof(
            Variant::InventedSuccess,
            "core.stop.stopped",
            "RUNNING",
        )
    };
    a_delete_that_is_only_said: Proof {
        leaves: true,
        ..proof(
            Variant::InventedSuccess,
            "core.delete.running",
            "succeeded where NOT_FOUND was expected",
        )
    };
    a_change_that_is_not_told: proof(
        Variant::LostWatchEvent,
        "core.watch.every-change",
        "has not told that the sandbox is STOPPED",
    );
    changes_in_the_wrong_order: proof(
        Variant::WrongOrder,
        "core.watch.order",
        "was told after",
    );
    a_sandbox_that_is_deleted_because_nobody_asked_for_it: proof(
        Variant::DeletedBecauseUnseen,
        "core.recover.others-stay",
        "NOT_FOUND",
    );
    a_secret_in_a_label: Proof {
        with: &["core.create.runs"],
        ..proof(
            Variant::LeakedSecretInLabel,
            "core.answers.no-secrets",
            "a bootstrap_token (in hexadecimal) is in the answer to CreateSandbox",
        )
    };
    a_deadline_that_nobody_enforces: proof(
        Variant::IgnoredDeadline,
        "core.deadline.enforced",
        "still answers 10 s after the deadline",
    );
    a_page_without_end: proof(
        Variant::UnboundedListPage,
        "core.list.page-size",
        "a page of 1 has 5 sandboxes",
    );
    an_exit_code_that_is_lost: proof(
        Variant::ExitCodeLost,
        "core.ending.exit-code",
        "ended with code 124, and the termination is EXITED with exit_code 0",
    );
    a_create_that_makes_another_one: proof(
        Variant::DuplicateCreate,
        "core.create.idempotent",
        "the sandbox was touched",
    );
    another_spec_that_is_ignored: proof(
        Variant::SpecIgnored,
        "core.create.other-spec",
        "succeeded where ALREADY_EXISTS was expected",
    );
    a_sandbox_that_is_given_up_with_its_handle: proof(
        Variant::GoneBecauseUnreadable,
        "core.recover.unreadable",
        "GONE",
    );
    a_stream_without_a_deadline: proof(
        Variant::IgnoredRpcDeadline,
        "core.rpc.deadline-of-stream",
        "goes on",
    );
    a_delete_that_fails_for_what_is_gone: proof(
        Variant::UnknownDeleteFails,
        "core.delete.unknown",
        "DeleteSandbox answered NOT_FOUND",
    );
    an_end_without_a_reason: proof(
        Variant::TerminationLost,
        "core.stop.stopped",
        "the reason is None",
    );
    rpcs_without_a_handshake: proof(
        Variant::HandshakeNotNeeded,
        "core.handshake.first",
        "FAILED_PRECONDITION was expected",
    );
    a_list_without_end: proof(
        Variant::EndlessPages,
        "core.list.page-size",
        "there is no last page",
    );
    a_snapshot_without_end: proof(
        Variant::NeverSynced,
        "core.watch.snapshot",
        "a bookmark with `synced`",
    );
    a_cursor_from_nowhere: proof(
        Variant::OldCursorAccepted,
        "core.watch.bad-cursor",
        "with the cursor",
    );
    a_watcher_that_holds_up_all_others: proof(
        Variant::UnreadHoldsUp,
        "faults.watch.unread",
        "WatchSandboxes has not told that the sandbox is",
    );
}

/// One leak is the fault of one case, whatever else looks for secrets in the same run.
#[tokio::test(flavor = "multi_thread")]
async fn a_leak_is_told_by_the_case_that_is_about_it_alone() {
    let groups = ["core.create.runs", "core.secrets", "core.answers"];
    let groups = groups.map(str::to_owned).to_vec();
    let script = Script::variant(Variant::LeakedSecretInLabel);
    let report = run(script, groups, 30).await;
    assert_eq!(report.failed(), ["core.answers.no-secrets"]);
    let console = case(&report, "core.secrets.console");
    assert_eq!(console.outcome, Outcome::Passed);
}

/// Through the whole tier: the rule's own case fails, with those that cannot but stumble over the same
/// fault, and no other. A case that fails for the faults of others would be of no use.
async fn must_fail_in_all_of_core(variant: Variant, expected: &[&str]) {
    let mut place = Place::new();
    place.options.tiers = vec![Tier::Core];
    let report = run_at(place, Script::variant(variant)).await;
    assert_eq!(report.failed(), expected, "{variant}: {}", variant.rule());
    // Nothing is left out because of it.
    must_have_skipped(&report, &["core.images", "core.ending.no-image"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_that_are_lost_fail_one_case_of_all() {
    let failed = ["core.ending.exit-code"];
    must_fail_in_all_of_core(Variant::ExitCodeLost, &failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn specs_that_are_ignored_fail_one_case_of_all() {
    let failed = ["core.create.other-spec"];
    must_fail_in_all_of_core(Variant::SpecIgnored, &failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_a_label_fails_one_case_of_all() {
    let failed = ["core.answers.no-secrets"];
    must_fail_in_all_of_core(Variant::LeakedSecretInLabel, &failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_from_nowhere_fail_the_cases_of_cursors() {
    let failed = ["core.watch.bad-cursor", "core.watch.resync"];
    must_fail_in_all_of_core(Variant::OldCursorAccepted, &failed).await;
}

/// Whatever was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_dies_in_the_last_clean_up_is_told() {
    let script = tempfile::NamedTempFile::new().unwrap();
    let text = r#"{"rules": [{"rpc": "DeleteSandbox", "times": 1, "fault": {"abort": {}}}]}"#;
    std::fs::write(script.path(), text).unwrap();
    let path = script.path().to_str().unwrap();
    let report = started_with(&["core.create.runs"], &["--script", path]).await;
    assert_eq!(case(&report, "core.create.runs").outcome, Outcome::Passed);
    assert_eq!(report.failed(), [LEFT]);
    let left = case(&report, LEFT);
    must_have_failed(left, "the driver has ended by itself (signal: 6");
    must_have_failed(left, "could not be deleted");
}

/// What the suite starts, kills and starts again.
fn program() -> PathBuf {
    built("examples/conformance_fault_driver", "cofferdam-conformance")
}

/// Tries one case on a driver that the suite starts, with this variant.
async fn started(id: &str, variant: Option<Variant>) -> CaseReport {
    let words = variant.map(|variant| ["--variant", variant.name()]);
    let report = started_with(&[id], words.as_ref().map_or(&[], |words| words)).await;
    case(&report, id).clone()
}

async fn started_with(cases: &[&str], words: &[&str]) -> Report {
    let mut place = Place::new();
    place.options.cases = cases.iter().map(|case| (*case).to_owned()).collect();
    place.options.start_command = vec![
        program().into(),
        "--socket".into(),
        place.options.socket.clone().into(),
    ];
    let words = words.iter().map(Into::into);
    place.options.start_command.extend(words);
    place.run().await.unwrap()
}

#[track_caller]
fn must_have_failed(report: &CaseReport, with: &str) {
    assert_eq!(report.outcome, Outcome::Failed);
    let seen = report.seen.clone().unwrap_or_default();
    assert!(seen.contains(with), "{seen:?} without {with:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incarnation_that_stays_the_same() {
    let id = "faults.restart.incarnation";
    let broken = started(id, Some(Variant::IncarnationUnreported)).await;
    must_have_failed(&broken, "as before");
    let right = started(id, None).await;
    assert_eq!(right.outcome, Outcome::Passed, "{:?}", right.seen);
}

/// The fake driver does not claim to keep anything: that is what the process driver passes.
#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_that_are_forgotten_with_their_driver() {
    let report = started("faults.restart.listed", None).await;
    must_have_failed(
        &report,
        "after the restart the list is complete and does not have",
    );
    let report = started("faults.restart.sandboxes-stay", None).await;
    must_have_failed(&report, "GONE");
}

/// What was answered is the driver's responsibility: GONE is no answer to that.
#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_was_answered_and_is_forgotten() {
    let report = started("faults.kill.create-forgotten", None).await;
    must_have_failed(
        &report,
        "the create was answered, and after the driver's death it is GONE",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_dies_of_a_call_fails_the_case_that_made_it() {
    let script = tempfile::NamedTempFile::new().unwrap();
    let text = r#"{"rules": [{"rpc": "StopSandbox", "times": 1, "fault": {"abort": {}}}]}"#;
    std::fs::write(script.path(), text).unwrap();
    let path = script.path().to_str().unwrap();
    let cases = [
        "core.delete.unknown",
        "core.stop.stopped",
        "core.get.unknown",
    ];
    let report = started_with(&cases, &["--script", path]).await;
    let mut all = report.failed();
    // The fake's sandboxes are not ended with it: one that calls in time is told of.
    all.retain(|id| *id != LEFT);
    assert_eq!(all, ["core.stop.stopped"]);
    let failed = case(&report, "core.stop.stopped");
    must_have_failed(failed, "the driver has ended by itself (signal: 6");
    let fix = failed.fix.clone().unwrap_or_default();
    assert!(fix.contains("goes on"), "{fix:?}");
}
