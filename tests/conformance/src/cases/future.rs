//! Rule 4: what a later revision adds does not trouble this one.

use cofferdam_proto::compute::v1 as wire;

use crate::case::{Case, Verdict, ensure, run};
use crate::raw::{call, with_unknown_field};
use crate::suite::Suite;

const IGNORE: &str = "let the protobuf library ignore fields that it does not know";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.future.handshake",
        source: "rule 4",
        says: "Unknown fields are ignored: in a handshake.",
        fix: IGNORE,
        needs: &[],
        run: run!(handshake),
    },
    Case {
        id: "core.future.create",
        source: "rule 4",
        says: "Unknown fields are ignored: in a create, and in the spec in it.",
        fix: IGNORE,
        needs: &[],
        run: run!(create),
    },
    Case {
        id: "core.future.enums",
        source: "rule 4",
        says: "A value that asks for something is a violation if it is not known: nothing else is \
               given in its place.",
        fix: "refuse values of `isolation_min`, `network.class` and `image.pull` that you do not know",
        needs: &[],
        run: run!(enums),
    },
];

/// What no revision has yet, in any of the enums.
const FUTURE: i32 = 77;

macro_rules! path {
    ($rpc:literal) => {
        concat!("/cofferdam.compute.v1.ComputeDriver/", $rpc)
    };
}

async fn handshake(suite: Suite) -> Verdict {
    let stranger = suite.stranger().await?;
    let hello = stranger.hello(suite.gateway_id());
    let bytes = with_unknown_field(&hello);
    let answer: wire::HandshakeResponse =
        call(&stranger, "Handshake", path!("Handshake"), bytes).await?;
    ensure!(
        !answer.incarnation.is_empty(),
        "the answer has no incarnation"
    );
    Ok(())
}

async fn create(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    let spec = with_unknown_field(&subject.spec);
    let mut bytes = with_unknown_field(&wire::CreateSandboxRequest {
        spec: None,
        ..subject.request()
    });
    // Field 2: the spec, with what nobody knows in it.
    prost::encoding::bytes::encode(2, &spec, &mut bytes);
    let made: wire::CreateSandboxResponse =
        call(&driver, "CreateSandbox", path!("CreateSandbox"), bytes).await?;
    let id = made.sandbox.unwrap_or_default().sandbox_id;
    ensure!(id == subject.id, "the answer's sandbox is {id:?}");
    subject.running(&driver).await?;
    Ok(())
}

async fn enums(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let mut spec = suite.spec();
    spec.isolation_min = FUTURE;
    spec.network.get_or_insert_default().class = FUTURE;
    spec.image.get_or_insert_default().pull = FUTURE;
    let request = wire::ValidateSandboxRequest { spec: Some(spec) };
    let answer = driver.validate_with(request).await?;
    let refused = |field: &str| answer.violations.iter().any(|one| one.field == field);
    for field in ["isolation_min", "network.class", "image.pull"] {
        ensure!(
            refused(field),
            "{field} = {FUTURE} is no violation; those are {:?}",
            answer.violations
        );
    }
    Ok(())
}
