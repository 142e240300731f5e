//! SnapshotSandbox, RestoreSandbox, DeleteSnapshot.

use cofferdam_proto::compute::v1 as wire;
use tonic::Code;

use crate::answer::{Refused, refused_with};
use crate::case::{Case, Stop, Verdict, ensure, run};
use crate::driver::Driver;
use crate::needs::Need;
use crate::process::say;
use crate::random;
use crate::subject::Subject;
use crate::suite::Suite;

pub(super) const CASES: &[Case] = &[
    Case {
        id: "snapshot.store.restores",
        source: "SnapshotSandbox, RestoreSandbox",
        says: "Stores a sandbox, and makes a new one from it, with what was in its workspace, when \
               the first is long gone.",
        fix: "store what the sandbox has written, not a reference to it",
        needs: &[Need::Supervised, Need::Snapshot],
        run: run!(restores),
    },
    Case {
        id: "snapshot.store.identity",
        source: "SnapshotSandbox",
        says: "A restored sandbox has its own identity: the token of its own request.",
        fix: "start a new supervisor with a new bootstrap in what was restored",
        needs: &[Need::Supervised, Need::Snapshot],
        run: run!(identity),
    },
    Case {
        id: "snapshot.store.independent",
        source: "RestoreSandbox",
        says: "What is done later in the first sandbox is not in the snapshot, and what is done in \
               one that was restored is in no other.",
        fix: "copy, or copy on write; never share",
        needs: &[Need::Supervised, Need::Snapshot],
        run: run!(independent),
    },
    Case {
        id: "snapshot.store.idempotent",
        source: "SnapshotSandbox, RestoreSandbox",
        says: "Idempotent on `snapshot_id`, and a restore on its sandbox's id.",
        fix: "keep the first snapshot of an id, and the first sandbox of an id, and answer with them",
        needs: &[Need::Supervised, Need::Snapshot],
        run: run!(idempotent),
    },
    Case {
        id: "snapshot.store.deleted",
        source: "DeleteSnapshot",
        says: "OK for an id that is not known; a snapshot that was deleted is NOT_FOUND.",
        fix: "forget it, with what it takes on the disk",
        needs: &[Need::Snapshot],
        run: run!(deleted),
    },
    Case {
        id: "snapshot.store.unknown",
        source: "SnapshotSandbox, RestoreSandbox",
        says: "NOT_FOUND for a sandbox, or a snapshot, that is not known; nothing is made.",
        fix: "look it up first",
        needs: &[Need::Snapshot],
        run: run!(unknown),
    },
];

/// A snapshot of this run.
struct Taken {
    id: String,
    handle: Option<wire::Handle>,
}

async fn take(driver: &Driver, sandbox_id: &str, id: &str) -> Result<Taken, Refused> {
    let request = wire::SnapshotSandboxRequest {
        sandbox_id: sandbox_id.to_owned(),
        snapshot_id: id.to_owned(),
        operation_id: "op-snapshot".to_owned(),
    };
    let answer = driver.snapshot_with(request).await?;
    Ok(Taken {
        id: id.to_owned(),
        handle: answer.handle,
    })
}

fn new_id() -> String {
    format!("snap-{}", random::word())
}

async fn restore(
    driver: &Driver,
    taken: &Taken,
    subject: &Subject,
) -> Result<wire::RestoreSandboxResponse, Refused> {
    let request = wire::RestoreSandboxRequest {
        snapshot_id: taken.id.clone(),
        handle: taken.handle.clone(),
        create: Some(subject.request()),
    };
    driver.restore_with(request).await
}

/// A sandbox of its own, made from a snapshot, ready.
async fn restored(suite: &Suite, driver: &Driver, taken: &Taken) -> Result<Subject, Stop> {
    let subject = suite.subject()?;
    restore(driver, taken, &subject).await?;
    subject.running(driver).await?;
    subject.session().await?;
    Ok(subject)
}

async fn forget(driver: &Driver, taken: Taken) -> Result<(), Refused> {
    let request = wire::DeleteSnapshotRequest {
        snapshot_id: taken.id,
        handle: taken.handle,
    };
    driver.delete_snapshot_with(request).await.map(|_| ())
}

async fn restores(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    let make = "mkdir -p a/b && echo kept > a/b/file && echo '#!/bin/sh' > tool && chmod 0755 tool";
    say(&suite, &session, make).await?;
    let taken = take(&driver, &subject.id, &new_id()).await?;
    session.must_answer().await?;
    driver.delete(&subject.id).await?;
    let new = restored(&suite, &driver, &taken).await?;
    let look = "cat a/b/file; test -x tool && echo tool; echo more >> a/b/file && echo writable";
    let seen = say(&suite, &new.session().await?, look).await?;
    ensure!(
        seen == "kept\ntool\nwritable",
        "in the restored workspace there is {seen:?}"
    );
    forget(&driver, taken).await?;
    Ok(())
}

async fn identity(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    let taken = take(&driver, &subject.id, &new_id()).await?;
    // While the first one lives: both must be told apart.
    let new = restored(&suite, &driver, &taken).await?;
    let other = new.session().await?;
    ensure!(
        other.boot_id() != session.boot_id(),
        "both sandboxes have the same boot id"
    );
    let listed = driver.list_ids().await?;
    ensure!(
        listed.contains(&subject.id) && listed.contains(&new.id),
        "of the first sandbox and the restored one ListSandboxes has {listed:?}"
    );
    driver.delete(&subject.id).await?;
    other.must_answer().await?;
    forget(&driver, taken).await?;
    Ok(())
}

async fn independent(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    say(&suite, &session, "echo first > file").await?;
    let taken = take(&driver, &subject.id, &new_id()).await?;
    say(&suite, &session, "echo later > file").await?;
    let one = restored(&suite, &driver, &taken).await?.session().await?;
    let seen = say(&suite, &one, "cat file; echo one > file").await?;
    ensure!(
        seen == "first",
        "the snapshot was taken of \"first\", and restored there is {seen:?}"
    );
    let two = restored(&suite, &driver, &taken).await?.session().await?;
    let seen = say(&suite, &two, "cat file").await?;
    ensure!(
        seen == "first",
        "what another restored sandbox wrote is in the snapshot: {seen:?}"
    );
    let seen = say(&suite, &session, "cat file").await?;
    ensure!(
        seen == "later",
        "what a restored sandbox wrote is in the first one: {seen:?}"
    );
    forget(&driver, taken).await?;
    Ok(())
}

async fn idempotent(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    say(&suite, &session, "echo first > file").await?;
    let taken = take(&driver, &subject.id, &new_id()).await?;
    say(&suite, &session, "echo later > file").await?;
    let again = take(&driver, &subject.id, &taken.id).await?;
    let new = suite.subject()?;
    let made = restore(&driver, &again, &new).await?;
    new.running(&driver).await?;
    let restored = new.session().await?;
    let seen = say(&suite, &restored, "cat file").await?;
    ensure!(
        seen == "first",
        "the same snapshot id again has stored it anew: {seen:?}"
    );
    let before = driver.get(&new.id).await?;
    let same = restore(&driver, &again, &new).await?;
    ensure!(
        same.handle == made.handle,
        "the same restore again answers with another handle"
    );
    new.must_be_untouched(&driver, &before, Some(&restored))
        .await?;
    forget(&driver, taken).await?;
    Ok(())
}

async fn deleted(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let taken = take(&driver, &subject.id, &new_id()).await?;
    for _ in 0..2 {
        let again = Taken {
            id: taken.id.clone(),
            handle: taken.handle.clone(),
        };
        forget(&driver, again).await?;
    }
    let new = suite.subject()?;
    refused_with(restore(&driver, &taken, &new).await, Code::NotFound)?;
    new.must_be_gone(&driver).await
}

async fn unknown(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let nobody = Taken {
        id: new_id(),
        handle: None,
    };
    let taken = take(&driver, "conf-nobody", &nobody.id).await;
    refused_with(taken.map(|taken| taken.id), Code::NotFound)?;
    let subject = suite.subject()?;
    refused_with(restore(&driver, &nobody, &subject).await, Code::NotFound)?;
    subject.must_be_gone(&driver).await?;
    forget(&driver, nobody).await?;
    Ok(())
}
