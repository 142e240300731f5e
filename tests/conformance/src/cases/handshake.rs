//! Handshake: who is there, and do we understand each other.

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::{Execution, Isolation, VersionRange};
use tonic::Code;

use crate::answer::refused_with;
use crate::case::{Case, Verdict, ensure, run};
use crate::driver::CONTRACT;
use crate::suite::Suite;

/// Far beyond any revision that there will be.
const FAR: u32 = 1_000_000;

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.handshake.first",
        source: "rule 1",
        says: "Handshake comes first on every connection; before it every other RPC is \
               FAILED_PRECONDITION.",
        fix: "remember for each connection whether it has shaken hands, and check that before \
              anything else",
        needs: &[],
        run: run!(first),
    },
    Case {
        id: "core.handshake.revision",
        source: "Handshake",
        says: "The driver states its range of contract revisions and chooses the highest that is \
               also the gateway's.",
        fix: "choose min(gateway.max, driver.max), and check that it is in both ranges",
        needs: &[],
        run: run!(revision),
    },
    Case {
        id: "core.handshake.no-overlap",
        source: "Handshake",
        says: "Ranges that do not overlap are FAILED_PRECONDITION with a violation of the type \
               CONTRACT_VERSION, and the message states both ranges.",
        fix: "answer with a google.rpc.PreconditionFailure; name both ranges and what to install",
        needs: &[],
        run: run!(no_overlap),
    },
    Case {
        id: "core.handshake.bad-range",
        source: "Handshake",
        says: "No version range, or min > max, is INVALID_ARGUMENT.",
        fix: "check `contract` before anything else is done with it",
        needs: &[],
        run: run!(bad_range),
    },
    Case {
        id: "core.handshake.repeated",
        source: "Handshake",
        says: "It may be repeated: the same driver process gives the same incarnation, on the same \
               connection and on others.",
        fix: "make the incarnation once, when the process starts",
        needs: &[],
        run: run!(repeated),
    },
    Case {
        id: "core.handshake.identity",
        source: "HandshakeResponse",
        says: "The driver says its name and version, and an incarnation of 8 to 64 bytes of \
               [A-Za-z0-9-].",
        fix: "fill in all of HandshakeResponse",
        needs: &[],
        run: run!(identity),
    },
    Case {
        id: "core.handshake.capabilities",
        source: "Capabilities",
        says: "The driver says how commands are executed, what isolates, which images it takes and \
               which network classes it enforces.",
        fix: "set execution, isolation, images and networks to what the platform really gives",
        needs: &[],
        run: run!(capabilities),
    },
];

async fn first(suite: Suite) -> Verdict {
    let stranger = suite.stranger().await?;
    let get = wire::GetSandboxRequest {
        sandbox_id: "conf-nobody".to_owned(),
    };
    refused_with(stranger.get_with(get).await, Code::FailedPrecondition)?;
    let list = wire::ListSandboxesRequest::default();
    refused_with(stranger.list_with(list).await, Code::FailedPrecondition)?;
    let configure = wire::ConfigureRequest::default();
    refused_with(
        stranger.configure_with(configure).await,
        Code::FailedPrecondition,
    )?;
    // The connection is still good for what comes first.
    let driver = stranger.shake_hands_as(suite.gateway_id()).await?;
    driver.configure(&suite.options().config.settings).await
}

async fn revision(suite: Suite) -> Verdict {
    let stranger = suite.stranger().await?;
    let mut hello = stranger.hello(suite.gateway_id());
    let answer = stranger.handshake(hello.clone()).await?;
    let own = answer.contract.unwrap_or_default();
    ensure!(
        own.min > 0 && own.min <= own.max,
        "the driver's own range is {} to {}",
        own.min,
        own.max
    );
    ensure!(
        answer.chosen == own.max.min(CONTRACT.max),
        "of {} to {} and the driver's {} to {} it chose {}",
        CONTRACT.min,
        CONTRACT.max,
        own.min,
        own.max,
        answer.chosen
    );
    hello.contract = Some(VersionRange { min: 1, max: FAR });
    let answer = stranger.handshake(hello).await?;
    ensure!(
        answer.chosen == own.max,
        "a gateway that speaks 1 to {FAR} got revision {} of a driver that speaks up to {}",
        answer.chosen,
        own.max
    );
    Ok(())
}

async fn no_overlap(suite: Suite) -> Verdict {
    let stranger = suite.stranger().await?;
    let mut hello = stranger.hello(suite.gateway_id());
    let theirs = stranger
        .handshake(hello.clone())
        .await?
        .contract
        .unwrap_or_default();
    let (min, max) = (FAR, FAR + 1);
    hello.contract = Some(VersionRange { min, max });
    let stranger = suite.stranger().await?;
    let refused = refused_with(stranger.handshake(hello).await, Code::FailedPrecondition)?;
    let types = refused.precondition_types();
    ensure!(
        types.iter().any(|kind| kind == "CONTRACT_VERSION"),
        "the violations' types are {types:?}"
    );
    let message = refused.message();
    let bounds = [min, max, theirs.min, theirs.max];
    ensure!(
        bounds
            .iter()
            .all(|bound| message.contains(&bound.to_string())),
        "the message does not state {min} to {max} and {} to {}: {message:?}",
        theirs.min,
        theirs.max
    );
    Ok(())
}

async fn bad_range(suite: Suite) -> Verdict {
    let stranger = suite.stranger().await?;
    let hello = stranger.hello(suite.gateway_id());
    for contract in [None, Some(VersionRange { min: 2, max: 1 })] {
        let hello = wire::HandshakeRequest {
            contract,
            ..hello.clone()
        };
        refused_with(stranger.handshake(hello).await, Code::InvalidArgument)?;
    }
    Ok(())
}

async fn repeated(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let again = driver.handshake(driver.hello(suite.gateway_id())).await?;
    let elsewhere = suite.driver().await?;
    ensure!(
        again.incarnation == driver.incarnation(),
        "on one connection the incarnation was {:?}, then {:?}",
        driver.incarnation(),
        again.incarnation
    );
    ensure!(
        elsewhere.incarnation() == driver.incarnation(),
        "on two connections the incarnations are {:?} and {:?}",
        driver.incarnation(),
        elsewhere.incarnation()
    );
    Ok(())
}

async fn identity(suite: Suite) -> Verdict {
    let stranger = suite.stranger().await?;
    let answer = stranger
        .handshake(stranger.hello(suite.gateway_id()))
        .await?;
    ensure!(!answer.name.is_empty(), "name is empty");
    ensure!(!answer.version.is_empty(), "version is empty");
    let incarnation = &answer.incarnation;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    ensure!(
        (8..=64).contains(&incarnation.len()) && incarnation.bytes().all(plain),
        "incarnation is {incarnation:?}"
    );
    for (field, text) in [
        ("name", &answer.name),
        ("version", &answer.version),
        ("description", &answer.description),
    ] {
        ensure!(text.len() <= 1024, "{field} has {} bytes", text.len());
    }
    Ok(())
}

async fn capabilities(suite: Suite) -> Verdict {
    let stranger = suite.stranger().await?;
    let answer = stranger
        .handshake(stranger.hello(suite.gateway_id()))
        .await?;
    let Some(can) = answer.capabilities else {
        crate::case::fail!("there are no capabilities");
    };
    ensure!(
        can.execution() != Execution::Unspecified,
        "execution is not set"
    );
    ensure!(
        can.isolation() != Isolation::Unspecified,
        "isolation is not set"
    );
    let images = can.images.unwrap_or_default();
    ensure!(
        images.host || images.registry || images.archive,
        "images has none of host, registry and archive: no sandbox can be asked for"
    );
    ensure!(
        !can.networks.is_empty(),
        "networks is empty: no sandbox can be asked for"
    );
    ensure!(
        can.networks.iter().all(|class| *class != 0),
        "networks has NETWORK_CLASS_UNSPECIFIED in it"
    );
    Ok(())
}
