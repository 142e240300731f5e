//! Rule 7: how long things may be, and that longer ones are refused and harm nothing.

use std::collections::BTreeMap;

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::{Handle, SandboxSpec};
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tonic::Code;

use crate::answer::refused_with;
use crate::case::{Case, Verdict, ensure, run};
use crate::needs::Need;
use crate::subject::Subject;
use crate::suite::Suite;

const BEFORE: &str = "check ids and sizes before anything else is done with a request, and answer \
                      INVALID_ARGUMENT with the field's name";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.bounds.ids",
        source: "rule 7",
        says: "Ids are 1 to 63 bytes of [a-z0-9-] not beginning with a dash; anything else is \
               INVALID_ARGUMENT.",
        fix: BEFORE,
        needs: &[],
        run: run!(ids),
    },
    Case {
        id: "core.bounds.the-most",
        source: "rule 7",
        says: "What is within the bounds is taken: an id of 63 bytes, 64 labels of 256 + 4,096 \
               bytes.",
        fix: "if the platform's own bounds are lower, keep the rest in a record of your own",
        needs: &[],
        run: run!(the_most),
    },
    Case {
        id: "core.bounds.labels",
        source: "rule 7",
        says: "Maps have 64 entries of 256 + 4,096 bytes; more is INVALID_ARGUMENT.",
        fix: BEFORE,
        needs: &[],
        run: run!(labels),
    },
    Case {
        id: "core.bounds.strings",
        source: "rule 7",
        says: "Strings have 1,024 bytes, unless a field says otherwise; more is INVALID_ARGUMENT.",
        fix: BEFORE,
        needs: &[],
        run: run!(strings),
    },
    Case {
        id: "core.bounds.driver-config",
        source: "rule 7",
        says: "`driver_config` has 256 KiB; more is INVALID_ARGUMENT.",
        fix: BEFORE,
        needs: &[],
        run: run!(driver_config),
    },
    Case {
        id: "core.bounds.handles",
        source: "rule 7",
        says: "Handles have 64 KiB and lists 1,024 items; more is INVALID_ARGUMENT.",
        fix: BEFORE,
        needs: &[],
        run: run!(handles),
    },
    Case {
        id: "core.bounds.token",
        source: "CreateSandboxRequest.bootstrap_token",
        says: "It has 32 bytes.",
        fix: "refuse any other length: such a supervisor could never prove itself",
        needs: &[Need::Supervised],
        run: run!(token),
    },
    Case {
        id: "core.bounds.message",
        source: "rule 7",
        says: "A message of more than 4 MiB is refused, and nothing else comes of it.",
        fix: "leave the gRPC library's bound on received messages at 4 MiB",
        needs: &[],
        run: run!(message),
    },
];

async fn ids(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let long = "x".repeat(64);
    for id in [
        "",
        &long,
        "Upper",
        "-dash",
        "under_score",
        "dot.ted",
        "sl/ash",
        "..",
        "ümlaut",
    ] {
        let say = |stop: crate::case::Stop| match stop {
            crate::case::Stop::Failed { seen, fix } => crate::case::Stop::Failed {
                seen: format!("with the id {id:?}: {seen}"),
                fix,
            },
            skipped => skipped,
        };
        refused_with(driver.get(id).await, Code::InvalidArgument).map_err(say)?;
        refused_with(driver.delete(id).await, Code::InvalidArgument).map_err(say)?;
        let subject = suite.subject()?;
        let request = wire::CreateSandboxRequest {
            sandbox_id: id.to_owned(),
            ..subject.request()
        };
        refused_with(driver.create_with(request).await, Code::InvalidArgument).map_err(say)?;
    }
    Ok(())
}

async fn the_most(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let labels = (0..64).map(|number| (format!("{number:0>256}"), "v".repeat(4096)));
    let spec = SandboxSpec {
        labels: labels.collect(),
        ..suite.spec()
    };
    let id = format!("{:0<63}", format!("c-{}-", crate::random::word()));
    let subject = Subject::plan_as(&suite, id, suite.gateway_id(), spec)?;
    subject.ready(&driver).await?;
    let again = subject.create(&driver).await?;
    let sandbox = again.sandbox.unwrap_or_default();
    ensure!(
        sandbox.sandbox_id == subject.id,
        "its id became {:?}",
        sandbox.sandbox_id
    );
    Ok(())
}

async fn labels(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let many = (0..65).map(|number| (format!("l{number}"), String::new()));
    let maps: [BTreeMap<String, String>; 3] = [
        many.collect(),
        BTreeMap::from([("k".repeat(257), String::new())]),
        BTreeMap::from([("key".to_owned(), "v".repeat(4097))]),
    ];
    for labels in maps {
        let subject = suite.subject_with(SandboxSpec {
            labels,
            ..suite.spec()
        })?;
        refused_with(subject.create(&driver).await, Code::InvalidArgument)?;
        subject.must_be_gone(&driver).await?;
    }
    Ok(())
}

async fn strings(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let long = "x".repeat(1025);
    let subject = suite.subject()?;
    let request = wire::CreateSandboxRequest {
        operation_id: long.clone(),
        ..subject.request()
    };
    refused_with(driver.create_with(request).await, Code::InvalidArgument)?;
    let request = wire::DeleteSandboxRequest {
        sandbox_id: subject.id.clone(),
        operation_id: long.clone(),
    };
    refused_with(driver.delete_with(request).await, Code::InvalidArgument)?;
    let request = wire::CreateSandboxRequest {
        spec: Some(SandboxSpec {
            workspace: format!("/{long}"),
            ..suite.spec()
        }),
        ..subject.request()
    };
    refused_with(driver.create_with(request).await, Code::InvalidArgument)?;
    let request = wire::ListSandboxesRequest {
        page_token: long,
        ..wire::ListSandboxesRequest::default()
    };
    refused_with(driver.list_with(request).await, Code::InvalidArgument)?;
    Ok(())
}

async fn driver_config(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let text = Value {
        kind: Some(Kind::StringValue("x".repeat(256 * 1024 + 1))),
    };
    let subject = suite.subject_with(SandboxSpec {
        driver_config: Some(Struct {
            fields: BTreeMap::from([("conformance".to_owned(), text)]),
        }),
        ..suite.spec()
    })?;
    refused_with(subject.create(&driver).await, Code::InvalidArgument)?;
    subject.must_be_gone(&driver).await
}

async fn handles(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let item = |number: usize, bytes: usize| wire::recover_sandboxes_request::Item {
        sandbox_id: format!("conf-none-{number}"),
        handle: Some(Handle {
            version: 1,
            data: vec![b'x'; bytes].into(),
        }),
        callback_directory: String::new(),
    };
    let large = wire::RecoverSandboxesRequest {
        items: vec![item(0, 64 * 1024 + 1)],
    };
    refused_with(driver.recover_with(large).await, Code::InvalidArgument)?;
    let many = wire::RecoverSandboxesRequest {
        items: (0..1025).map(|number| item(number, 1)).collect(),
    };
    refused_with(driver.recover_with(many).await, Code::InvalidArgument)?;
    Ok(())
}

async fn token(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    for length in [0, 16, 31, 33] {
        let request = wire::CreateSandboxRequest {
            bootstrap_token: vec![7; length].into(),
            ..subject.request()
        };
        let refused = refused_with(driver.create_with(request).await, Code::InvalidArgument)?;
        let fields = refused.fields();
        ensure!(
            fields.iter().any(|field| field == "bootstrap_token"),
            "a token of {length} bytes: the violations name {fields:?}"
        );
    }
    subject.must_be_gone(&driver).await
}

async fn message(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    let request = wire::CreateSandboxRequest {
        operation_id: "x".repeat(5 << 20),
        ..subject.request()
    };
    ensure!(
        driver.create_with(request).await.is_err(),
        "a message of 5 MiB was taken"
    );
    // A connection may be the price of it; the driver is not.
    let driver = suite.driver().await?;
    subject.must_be_gone(&driver).await
}
