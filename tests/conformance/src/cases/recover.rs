//! RecoverSandboxes: handles come back, and the driver says what has become of each.

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::recover_sandboxes_request::Item;
use cofferdam_proto::compute::v1::recover_sandboxes_response::{Outcome, Result as Recovered};
use cofferdam_proto::compute::v1::{Handle, SandboxState};

use crate::case::{Case, Stop, Verdict, ensure, run};
use crate::driver::Driver;
use crate::needs::Need;
use crate::subject::Subject;
use crate::suite::Suite;

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.recover.there",
        source: "RecoverSandboxes",
        says: "RECOVERED: it is there, as `sandbox` says, and is left alone.",
        fix: "find the sandbox by its id on the platform, and observe it",
        needs: &[],
        run: run!(there),
    },
    Case {
        id: "core.recover.without-handle",
        source: "RecoverSandboxesRequest",
        says: "Without a handle (the answer to the create was lost) the driver looks for the id on \
               its platform.",
        fix: "name what you make on the platform after the sandbox's id",
        needs: &[],
        run: run!(without_handle),
    },
    Case {
        id: "core.recover.gone",
        source: "RecoverSandboxesResponse",
        says: "GONE: the platform says for certain that it is not there any more.",
        fix: "answer GONE only after the platform has been asked, and has answered",
        needs: &[],
        run: run!(gone),
    },
    Case {
        id: "core.recover.unreadable",
        source: "RecoverSandboxes",
        says: "A handle that the driver cannot read (of a newer version, damaged) is UNKNOWN, not \
               an error.",
        fix: "check the handle's version and content, and answer UNKNOWN with a message",
        needs: &[],
        run: run!(unreadable),
    },
    Case {
        id: "core.recover.in-order",
        source: "RecoverSandboxesResponse",
        says: "One result for each item, in the same order.",
        fix: "answer for every item, whatever became of the others",
        needs: &[],
        run: run!(in_order),
    },
    Case {
        id: "core.recover.runs-nothing",
        source: "RecoverSandboxes",
        says: "Starts and runs nothing: a sandbox that has stopped is recovered as stopped.",
        fix: "only look",
        needs: &[Need::StopStart],
        run: run!(runs_nothing),
    },
    Case {
        id: "core.recover.others-stay",
        source: "RecoverSandboxes",
        says: "It is about the items that are handed over; sandboxes that are not among them stay.",
        fix: "delete nothing because it was not mentioned",
        needs: &[],
        run: run!(others_stay),
    },
];

pub(super) fn item(subject: &Subject, handle: Option<Handle>) -> Item {
    Item {
        sandbox_id: subject.id.clone(),
        handle,
        callback_directory: subject.request().callback_directory,
    }
}

pub(super) async fn recover(
    suite: &Suite,
    driver: &Driver,
    items: Vec<Item>,
) -> Result<Vec<Recovered>, Stop> {
    let asked: Vec<String> = items.iter().map(|item| item.sandbox_id.clone()).collect();
    let answer = driver
        .recover_with(wire::RecoverSandboxesRequest { items })
        .await?;
    let answered: Vec<String> = answer
        .results
        .iter()
        .map(|result| result.sandbox_id.clone())
        .collect();
    ensure!(
        asked == answered,
        "for the items {asked:?} came results for {answered:?}"
    );
    for result in &answer.results {
        if let (Outcome::Recovered, Some(sandbox)) = (result.outcome(), &result.sandbox) {
            suite.recorder().observation("RecoverSandboxes", sandbox);
        }
    }
    Ok(answer.results)
}

pub(super) fn must_be(result: &Recovered, expected: Outcome) -> Verdict {
    let (is, wanted) = (result.outcome().as_str_name(), expected.as_str_name());
    ensure!(
        is == wanted,
        "{is} ({:?}) where {wanted} was expected",
        result.message
    );
    Ok(())
}

async fn there(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    let made = subject.ready(&driver).await?;
    let before = driver.get(&subject.id).await?;
    let session = subject.current();
    for _ in 0..2 {
        let items = vec![item(&subject, made.handle.clone())];
        let results = recover(&suite, &driver, items).await?;
        must_be(&results[0], Outcome::Recovered)?;
        let sandbox = results[0].sandbox.clone().unwrap_or_default();
        ensure!(
            sandbox.state() == SandboxState::Running && sandbox.boots == before.boots,
            "it was recovered as {} of boot {}",
            sandbox.state().as_str_name(),
            sandbox.boots
        );
    }
    subject
        .must_be_untouched(&driver, &before, session.as_ref())
        .await
}

async fn without_handle(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let results = recover(&suite, &driver, vec![item(&subject, None)]).await?;
    must_be(&results[0], Outcome::Recovered)
}

async fn gone(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    let made = subject.ready(&driver).await?;
    driver.delete(&subject.id).await?;
    let never = suite.subject()?;
    let items = vec![
        item(&subject, made.handle),
        item(&subject, None),
        item(&never, None),
    ];
    for result in recover(&suite, &driver, items).await? {
        must_be(&result, Outcome::Gone)?;
    }
    Ok(())
}

async fn unreadable(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    let made = subject.ready(&driver).await?;
    let good = made.handle.unwrap_or_default();
    let newer = Handle {
        version: u32::MAX,
        data: good.data,
    };
    let results = recover(&suite, &driver, vec![item(&subject, Some(newer))]).await?;
    must_be(&results[0], Outcome::Unknown)?;
    ensure!(!results[0].message.is_empty(), "UNKNOWN without a message");
    let ids = driver.list_ids().await?;
    ensure!(
        ids.contains(&subject.id),
        "the sandbox is not listed any more"
    );
    Ok(())
}

async fn in_order(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subjects = suite.several(&driver, 2).await?;
    let never = suite.subject()?;
    let items = vec![
        item(&subjects[1], None),
        item(&never, None),
        item(&subjects[0], None),
    ];
    let results = recover(&suite, &driver, items).await?;
    must_be(&results[0], Outcome::Recovered)?;
    must_be(&results[1], Outcome::Gone)?;
    must_be(&results[2], Outcome::Recovered)?;
    let none = recover(&suite, &driver, Vec::new()).await?;
    ensure!(none.is_empty(), "for no items came results");
    Ok(())
}

async fn runs_nothing(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    let made = subject.ready(&driver).await?;
    driver.stop(&subject.id, 1000).await?;
    let before = driver.get(&subject.id).await?;
    let results = recover(&suite, &driver, vec![item(&subject, made.handle)]).await?;
    must_be(&results[0], Outcome::Recovered)?;
    let sandbox = results[0].sandbox.clone().unwrap_or_default();
    ensure!(
        sandbox.state() == SandboxState::Stopped && sandbox.termination == before.termination,
        "a stopped sandbox was recovered as {} with the termination {:?}",
        sandbox.state().as_str_name(),
        sandbox.termination
    );
    subject.must_be_untouched(&driver, &before, None).await
}

async fn others_stay(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subjects = suite.several(&driver, 2).await?;
    recover(&suite, &driver, vec![item(&subjects[0], None)]).await?;
    recover(&suite, &driver, Vec::new()).await?;
    for subject in &subjects {
        subject.running(&driver).await?;
    }
    Ok(())
}
