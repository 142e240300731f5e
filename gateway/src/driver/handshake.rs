//! The first calls on a connection: who is there, do we understand each other, and its settings.

use std::time::Duration;

use cofferdam_proto::compute::v1 as wire;
use serde_json::{Map, Value};
use tokio::time::timeout;
use tonic::{Code, Request, Status};

use super::call::Client;
use super::convert;
use super::schema::Schema;
use super::status::Answer;
use super::trouble::Trouble;
use super::{Capabilities, Violation};
use crate::transport::{Channel, PeerKind};

/// Revisions of the contract that this gateway speaks.
pub(super) const CONTRACT: wire::VersionRange = wire::VersionRange { min: 1, max: 1 };

/// What a driver said about itself.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) response: wire::HandshakeResponse,
    pub(super) capabilities: Capabilities,
    pub(super) settings: Schema,
    pub(super) driver_config: Schema,
}

/// Handshakes. Errors say what kind of thing is there instead of a driver.
pub(super) async fn handshake(
    channel: &Channel,
    hello: wire::HandshakeRequest,
    deadline: Duration,
) -> Result<Greeting, Trouble> {
    let mut client = Client::new(channel.clone());
    let mut request = Request::new(hello);
    request.set_timeout(deadline);
    let response = match timeout(deadline, client.handshake(request)).await {
        Err(_) => return Err(no_answer(channel.peer_kind())),
        Ok(Err(status)) => return Err(failed(channel, &status)),
        Ok(Ok(response)) => response.into_inner(),
    };
    check_contract(&response)?;
    let invalid = |what: &str| {
        let error = format!("the driver's answer to Handshake is not valid: {what}");
        Trouble::refused(error, "install a driver that passes the conformance suite")
    };
    let capabilities = response.capabilities.clone().unwrap_or_default();
    let capabilities = convert::capabilities_from_wire(capabilities)
        .ok_or_else(|| invalid("capabilities.execution is not set"))?;
    if !is_incarnation(&response.incarnation) {
        return Err(invalid("incarnation is not 8 to 64 bytes of [A-Za-z0-9-]"));
    }
    let schema = |name: &str, text: &str| {
        Schema::compile(text).map_err(|error| invalid(&format!("{name}: {error}")))
    };
    Ok(Greeting {
        capabilities,
        settings: schema("settings_schema", &response.settings_schema)?,
        driver_config: schema("driver_config_schema", &response.driver_config_schema)?,
        response,
    })
}

/// Checks the settings against the driver's schema, then hands them over. Returns what the driver
/// can do with them, if it says so.
pub(super) async fn configure(
    channel: &Channel,
    greeting: &Greeting,
    settings: &Map<String, Value>,
    deadline: Duration,
) -> Result<Option<Capabilities>, Trouble> {
    let violations = greeting.settings.violations(settings);
    if !violations.is_empty() {
        return Err(wrong_settings(&violations));
    }
    let mut request = Request::new(wire::ConfigureRequest {
        settings: Some(convert::struct_to_wire(settings)),
    });
    request.set_timeout(deadline);
    let mut client = Client::new(channel.clone());
    match timeout(deadline, client.configure(request)).await {
        Err(_) => Err(Trouble::silent(" Configure")),
        Ok(Ok(response)) => {
            let capabilities = response.into_inner().capabilities;
            Ok(capabilities.and_then(convert::capabilities_from_wire))
        }
        Ok(Err(status)) => {
            let answer = Answer::of(&status);
            match answer.code {
                Code::InvalidArgument if !answer.violations.is_empty() => {
                    Err(wrong_settings(&answer.violations))
                }
                Code::InvalidArgument => Err(Trouble::refused(
                    format!("the driver refuses its settings: {}", answer.message),
                    "correct the driver's settings",
                )),
                _ => Err(
                    Trouble::failing(format!("Configure failed: {}", describe(&answer)))
                        .with_fix(answer.fix),
                ),
            }
        }
    }
}

/// All violations in one sentence each.
fn wrong_settings(violations: &[Violation]) -> Trouble {
    let each: Vec<String> = violations
        .iter()
        .map(|v| match v.field.as_str() {
            "" => v.message.clone(),
            field => format!("{field}: {}", v.message),
        })
        .collect();
    Trouble::refused(
        format!("the driver's settings are not valid: {}", each.join("; ")),
        "correct the driver's settings",
    )
}

fn is_incarnation(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (8..=64).contains(&text.len()) && text.bytes().all(plain)
}

/// Both ranges, and what to install.
fn check_contract(response: &wire::HandshakeResponse) -> Result<(), Trouble> {
    let theirs = response.contract.unwrap_or_default();
    let fine =
        |revision: u32, range: wire::VersionRange| (range.min..=range.max).contains(&revision);
    if fine(response.chosen, CONTRACT) && fine(response.chosen, theirs) {
        return Ok(());
    }
    let (newer, older) = match theirs.min > CONTRACT.max {
        true => ("gateway", "driver"),
        false => ("driver", "gateway"),
    };
    let error = format!(
        "the driver ({} {}) speaks revisions {} to {} of the contract and chose {}, \
         this gateway speaks {} to {}",
        convert::plain(response.name.clone()),
        convert::plain(response.version.clone()),
        theirs.min,
        theirs.max,
        response.chosen,
        CONTRACT.min,
        CONTRACT.max
    );
    Err(Trouble::refused(
        error,
        format!("install a newer {newer} or an older {older}"),
    ))
}

const NOT_A_DRIVER_FIX: &str = "correct the path: a driver's socket serves cofferdam.compute.v1";

fn no_answer(peer: PeerKind) -> Trouble {
    match peer {
        PeerKind::Silent => Trouble::silent(""),
        PeerKind::Http2 => Trouble::silent(" Handshake"),
        PeerKind::Http1 | PeerKind::Echo | PeerKind::Other => foreign(peer),
    }
}

fn foreign(peer: PeerKind) -> Trouble {
    let what = match peer {
        PeerKind::Http1 => "speaks HTTP/1, not gRPC",
        PeerKind::Echo => "only repeats what it is sent",
        PeerKind::Silent | PeerKind::Http2 | PeerKind::Other => "does not speak HTTP/2",
    };
    let error = format!("what listens there is not a driver: it {what}");
    Trouble::refused(error, NOT_A_DRIVER_FIX)
}

fn failed(channel: &Channel, status: &Status) -> Trouble {
    let answer = Answer::of(status);
    let peer = channel.peer_kind();
    if matches!(peer, PeerKind::Http1 | PeerKind::Echo | PeerKind::Other) {
        return foreign(peer);
    }
    match answer.code {
        Code::Unimplemented => Trouble::refused(
            "what listens there speaks gRPC but is not a driver: it has no \
             cofferdam.compute.v1.ComputeDriver",
            NOT_A_DRIVER_FIX,
        ),
        Code::FailedPrecondition | Code::InvalidArgument => {
            let fix = match answer.fix.as_str() {
                "" if answer.preconditions.iter().any(|p| p == "CONTRACT_VERSION") => {
                    "install a gateway and a driver whose contract revisions overlap"
                }
                fix => fix,
            };
            Trouble::refused(format!("the driver refuses: {}", answer.message), fix)
        }
        Code::PermissionDenied | Code::Unauthenticated => Trouble::refused(
            format!(
                "the driver does not let this gateway in: {}",
                answer.message
            ),
            answer.fix,
        ),
        _ if channel.is_closed() => {
            let reason = channel.end_reason();
            let uid = rustix::process::geteuid().as_raw();
            Trouble::failing(format!("the connection ended in Handshake: {reason}")).with_fix(
                format!(
                    "see the driver's own log: it may not let in the gateway's user, uid {uid}"
                ),
            )
        }
        _ => Trouble::failing(format!("Handshake failed: {}", describe(&answer)))
            .with_fix(answer.fix),
    }
}

/// The message with its code, for errors that nobody expects.
pub(super) fn describe(answer: &Answer) -> String {
    match answer.message.as_str() {
        "" => format!("{:?}", answer.code),
        message => format!("{message} ({:?})", answer.code),
    }
}
