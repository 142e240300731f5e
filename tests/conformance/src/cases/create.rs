//! CreateSandbox: responsibility is taken once, and once only.

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::SandboxState;
use futures_util::future::join_all;
use tonic::Code;

use crate::answer::refused_with;
use crate::case::{Case, Verdict, ensure, fail, run};
use crate::needs::Need;
use crate::suite::Suite;

/// Handles are bounded by rule 7.
const HANDLE_BYTES_MAX: usize = 64 * 1024;

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.create.accepts",
        source: "CreateSandbox",
        says: "Answers as soon as the driver has taken responsibility, with a handle and what it \
               observes.",
        fix: "answer with `handle` (up to 64 KiB, it may be empty inside) and `sandbox`",
        needs: &[],
        run: run!(accepts),
    },
    Case {
        id: "core.create.runs",
        source: "SandboxState",
        says: "An accepted sandbox becomes RUNNING, in its first boot.",
        fix: "start what was accepted, and observe it",
        needs: &[],
        run: run!(runs),
    },
    Case {
        id: "core.create.connects",
        source: "CreateSandboxRequest.callback_directory",
        says: "The driver connects the supervisor's byte stream to `gateway.sock` in the callback \
               directory, and passes the bootstrap token on.",
        fix: "start the supervisor as docs/supervisor.md says",
        needs: &[Need::Supervised],
        run: run!(connects),
    },
    Case {
        id: "core.create.idempotent",
        source: "CreateSandbox",
        says: "Idempotent on `sandbox_id`: the same spec again gives the same sandbox and handle.",
        fix: "look the id up first; compare a stored digest of the spec with the new one's, and if \
              they are equal answer with what exists",
        needs: &[],
        run: run!(idempotent),
    },
    Case {
        id: "core.create.token-once",
        source: "CreateSandbox",
        says: "`bootstrap_token` and `image.credentials` count only the first time: they make no \
               other spec.",
        fix: "leave both out of what specs are compared by",
        needs: &[],
        run: run!(token_once),
    },
    Case {
        id: "core.create.other-spec",
        source: "CreateSandbox",
        says: "Another spec under the id of a sandbox that exists is ALREADY_EXISTS, and the \
               sandbox stays as it is.",
        fix: "compare the whole spec before anything is changed",
        needs: &[],
        run: run!(other_spec),
    },
    Case {
        id: "core.create.at-once-twice",
        source: "rule 3",
        says: "Every RPC may come twice, at any time; two calls for one sandbox may wait for each \
               other, or one is ABORTED.",
        fix: "let one call work on a sandbox at a time, by its id",
        needs: &[],
        run: run!(at_once_twice),
    },
    Case {
        id: "core.create.side-by-side",
        source: "rule 5",
        says: "Calls for different sandboxes work side by side.",
        fix: "hold no lock that is wider than one sandbox while the platform works",
        needs: &[],
        run: run!(side_by_side),
    },
    Case {
        id: "core.create.answer-lost",
        source: "rule 2",
        says: "A call that is cancelled leaves a state from which a repeated call continues.",
        fix: "find by its id what a cancelled call has begun, and go on with it",
        needs: &[],
        run: run!(answer_lost),
    },
];

async fn accepts(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    let answer = subject.create(&driver).await?;
    let Some(handle) = answer.handle else {
        fail!("the answer has no handle");
    };
    ensure!(
        handle.data.len() <= HANDLE_BYTES_MAX,
        "the handle has {} bytes",
        handle.data.len()
    );
    let sandbox = answer.sandbox.unwrap_or_default();
    ensure!(
        sandbox.sandbox_id == subject.id,
        "the answer's sandbox is {:?}, and {:?} was asked for",
        sandbox.sandbox_id,
        subject.id
    );
    ensure!(
        matches!(
            sandbox.state(),
            SandboxState::Creating | SandboxState::Running
        ),
        "the accepted sandbox is {}",
        sandbox.state().as_str_name()
    );
    let ids = driver.list_ids().await?;
    ensure!(
        ids.contains(&subject.id),
        "the sandbox was accepted, and ListSandboxes does not have it"
    );
    Ok(())
}

async fn runs(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    subject.create(&driver).await?;
    let sandbox = subject.running(&driver).await?;
    ensure!(
        sandbox.boots == 1,
        "boots is {} after create",
        sandbox.boots
    );
    ensure!(
        sandbox.sandbox_id == subject.id,
        "GetSandbox gave {:?}",
        sandbox.sandbox_id
    );
    Ok(())
}

async fn connects(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    subject.create(&driver).await?;
    let session = subject.session().await?;
    let expected = &suite.supervisor().version;
    ensure!(
        session.version() == expected || expected.is_empty(),
        "the handshake's supervisor is {expected}, and {} has called",
        session.version()
    );
    session.must_answer().await
}

async fn idempotent(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    let first = subject.ready(&driver).await?;
    let before = driver.get(&subject.id).await?;
    let session = subject.current();
    let again = subject.create(&driver).await?;
    ensure!(
        first.handle == again.handle,
        "the repeated call gave another handle"
    );
    subject
        .must_be_untouched(&driver, &before, session.as_ref())
        .await?;
    let ids = driver.list_ids().await?;
    let count = ids.iter().filter(|id| **id == subject.id).count();
    ensure!(count == 1, "ListSandboxes has the sandbox {count} times");
    Ok(())
}

async fn token_once(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let before = driver.get(&subject.id).await?;
    let session = subject.current();
    let mut request = subject.request();
    let other = crate::random::bytes::<32>();
    suite.recorder().keep_secret("a bootstrap_token", &other);
    request.bootstrap_token = other.to_vec().into();
    if let Some(image) = request.spec.as_mut().and_then(|spec| spec.image.as_mut()) {
        image.credentials = Some(wire::RegistryCredentials {
            username: "someone".to_owned(),
            password: crate::random::word(),
            identity_token: String::new(),
        });
    }
    driver.create_with(request).await?;
    subject
        .must_be_untouched(&driver, &before, session.as_ref())
        .await
}

async fn other_spec(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let before = driver.get(&subject.id).await?;
    let session = subject.current();
    let mut more_labels = subject.request();
    let mut less_memory = subject.request();
    if let Some(spec) = more_labels.spec.as_mut() {
        spec.labels.insert("another".to_owned(), "label".to_owned());
    }
    if let Some(limits) = less_memory
        .spec
        .as_mut()
        .and_then(|spec| spec.limits.as_mut())
    {
        limits.memory_bytes -= 1 << 20;
    }
    for request in [more_labels, less_memory] {
        refused_with(driver.create_with(request).await, Code::AlreadyExists)?;
    }
    subject
        .must_be_untouched(&driver, &before, session.as_ref())
        .await
}

async fn at_once_twice(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    let calls = (0..5).map(|_| subject.create(&driver));
    let answers: Result<Vec<_>, _> = join_all(calls).await.into_iter().collect();
    let answers = answers?;
    let handles: Vec<_> = answers.iter().map(|answer| &answer.handle).collect();
    ensure!(
        handles.windows(2).all(|pair| pair[0] == pair[1]),
        "five calls for one sandbox gave different handles"
    );
    subject.running(&driver).await?;
    let ids = driver.list_ids().await?;
    let count = ids.iter().filter(|id| **id == subject.id).count();
    ensure!(count == 1, "five calls for one sandbox made {count}");
    Ok(())
}

async fn side_by_side(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subjects = suite.several(&driver, 6).await?;
    let ids = driver.list_ids().await?;
    let missing = subjects
        .iter()
        .filter(|subject| !ids.contains(&subject.id))
        .count();
    ensure!(
        missing == 0,
        "{missing} of six sandboxes are not in ListSandboxes"
    );
    Ok(())
}

async fn answer_lost(suite: Suite) -> Verdict {
    let subject = suite.subject()?;
    for pause_ms in [0, 5, 25] {
        let driver = suite.driver().await?;
        let pause = std::time::Duration::from_millis(pause_ms);
        // Whether it was answered or not: the gateway is gone.
        let _ = tokio::time::timeout(pause, subject.create(&driver)).await;
        driver.hang_up().await;
    }
    let driver = suite.driver().await?;
    subject.ready(&driver).await?;
    let ids = driver.list_ids().await?;
    let count = ids.iter().filter(|id| **id == subject.id).count();
    ensure!(count == 1, "ListSandboxes has the sandbox {count} times");
    Ok(())
}
