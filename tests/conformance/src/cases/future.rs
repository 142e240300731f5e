//! Rule 4: what a later revision adds does not trouble this one.

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::SandboxSpec;
use prost::Message as _;

use crate::case::{Case, Verdict, ensure, run};
use crate::raw::{call, with_unknown_field};
use crate::suite::Suite;

const IGNORE: &str = "let the protobuf library ignore fields that it does not know, and take \
                      unknown enum values as unspecified";

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
        says: "Unknown enum values are ignored: a pull policy that this revision does not have.",
        fix: IGNORE,
        needs: &[],
        run: run!(enums),
    },
];

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
    if let Some(image) = spec.image.as_mut() {
        image.pull = 77;
    }
    let request = wire::ValidateSandboxRequest {
        spec: Some(SandboxSpec::decode(spec.encode_to_vec().as_slice()).unwrap_or_default()),
    };
    let answer = driver.validate_with(request).await?;
    ensure!(
        answer.violations.is_empty(),
        "a pull policy of the future has the violations {:?}",
        answer.violations
    );
    Ok(())
}
