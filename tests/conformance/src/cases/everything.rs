//! What was seen in all the other cases together. They come last.

use std::time::Duration;

use crate::case::{Case, Stop, Verdict, ensure, fail, run, skip};
use crate::recorder::Findings;
use crate::suite::Suite;

/// A supervisor that was left behind calls again within two seconds.
const STRAGGLER_PATIENCE: Duration = Duration::from_secs(3);

/// About what is left when everything was deleted.
const NOTHING_LEFT: &str = "core.leaks.none";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.answers.shapes",
        source: "Sandbox",
        says: "An observation has a state, a growing revision, counted boots, times in milliseconds \
               and, in STOPPED and FAILED_STATE, a termination with a reason.",
        fix: "fill in Sandbox as its fields' comments say, in every answer",
        needs: &[],
        run: run!(shapes),
    },
    Case {
        id: "core.answers.codes",
        source: "errors",
        says: "Every error has a code of the contract's table.",
        fix: "map the platform's errors to the table; INTERNAL is for faults of the driver",
        needs: &[],
        run: run!(codes),
    },
    Case {
        id: "core.answers.no-secrets",
        source: "rule 8",
        says: "What is marked secret never appears in a log, a label, an argument list, an error \
               message, or on a disk.",
        fix: "hand secrets on by descriptor, and print requests with the fields marked `secret` \
              left out",
        needs: &[],
        run: run!(no_secrets),
    },
    Case {
        id: NOTHING_LEFT,
        source: "DeleteSandbox",
        says: "Removes a sandbox with all that belongs to it; after the last one the list is empty \
               and complete.",
        fix: "find out what outlives a delete: a process, a mount, a record",
        needs: &[],
        run: run!(none_left),
    },
];

fn findings(suite: &Suite) -> Result<Findings, Stop> {
    let findings = suite.recorder().findings();
    if findings.answers == 0 {
        skip!("there were no answers to look at");
    }
    Ok(findings)
}

async fn shapes(suite: Suite) -> Verdict {
    let found = findings(&suite)?;
    if found.observations == 0 {
        skip!("no sandbox was observed");
    }
    ensure!(found.shapes.is_empty(), "{}", found.shapes.join("; "));
    Ok(())
}

async fn codes(suite: Suite) -> Verdict {
    let found = findings(&suite)?;
    ensure!(found.codes.is_empty(), "{}", found.codes.join("; "));
    Ok(())
}

async fn no_secrets(suite: Suite) -> Verdict {
    findings(&suite)?;
    // What others are about they have told.
    let leaks = suite.recorder().tell_leaks(|_| true);
    ensure!(leaks.is_empty(), "{}", leaks.join("; "));
    Ok(())
}

async fn none_left(suite: Suite) -> Verdict {
    let gone = suite.gone();
    if gone.is_empty() {
        skip!("no sandbox was made");
    }
    let leaks = suite.take_leaks();
    ensure!(leaks.is_empty(), "{}", leaks.join("; "));
    let driver = suite.driver().await?;
    let ids = driver.list_ids().await?;
    ensure!(ids.is_empty(), "ListSandboxes still has {}", ids.join(", "));
    tokio::time::sleep(STRAGGLER_PATIENCE).await;
    if let Some(callers) = callers(&suite) {
        fail!("{callers}");
    }
    let traces = crate::host::traces(suite.runtime_dir());
    ensure!(
        traces.is_empty(),
        "of deleted sandboxes there is left on this host: {}",
        traces.join("; ")
    );
    Ok(())
}

/// Supervisors whose sandboxes were deleted.
fn callers(suite: &Suite) -> Option<String> {
    let gone = suite.gone();
    let called = gone.iter().filter(|one| one.is_called());
    let called: Vec<_> = called.map(|one| one.sandbox_id.as_str()).collect();
    (!called.is_empty()).then(|| {
        let called = called.join(", ");
        format!("supervisors of deleted sandboxes live on and call: {called}")
    })
}

/// The end of a run, after its last clean-up: the case about what is left fails with what nobody has
/// told yet, also in a run that was asked for other cases. None if there is nothing of that kind.
pub(crate) async fn left_at_the_end(suite: &Suite) -> Option<(&'static Case, Stop)> {
    let mut left = suite.take_leaks();
    left.extend(callers(suite));
    // A list that does not work is told by the cases that are about it.
    if !suite.gone().is_empty()
        && let Ok(driver) = suite.driver().await
        && let Ok(ids) = driver.list_ids().await
        && !ids.is_empty()
    {
        left.push(format!("ListSandboxes still has {}", ids.join(", ")));
    }
    let case = CASES.iter().find(|case| case.id == NOTHING_LEFT)?;
    (!left.is_empty()).then(|| (case, Stop::failed(left.join("; "))))
}
