//! Which sandbox a call is about, read from its bytes before anything else is done with them.

use bytes::Bytes;
use prost::Message as _;

use super::answers::PREFIX_BYTES;
use crate::proto::RestoreSandboxRequest;

/// What these requests have in common: their first field.
#[derive(Clone, PartialEq, prost::Message)]
struct About {
    #[prost(string, tag = "1")]
    sandbox_id: String,
}

/// Requests that begin with the id of a sandbox.
const ABOUT_ONE: [&str; 11] = [
    "CreateSandbox",
    "StartSandbox",
    "StopSandbox",
    "DeleteSandbox",
    "GetSandbox",
    "ReadConsole",
    "SandboxStats",
    "RunCommand",
    "PauseSandbox",
    "ResumeSandbox",
    "SnapshotSandbox",
];

/// The id; empty if it is about none, or cannot be read.
pub(super) fn of(rpc: &str, framed: &Bytes) -> String {
    let Some(message) = framed.get(PREFIX_BYTES..) else {
        return String::new();
    };
    if rpc == "RestoreSandbox" {
        let request = RestoreSandboxRequest::decode(message).unwrap_or_default();
        return request.create.unwrap_or_default().sandbox_id;
    }
    if !ABOUT_ONE.contains(&rpc) {
        return String::new();
    }
    About::decode(message).unwrap_or_default().sandbox_id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{CreateSandboxRequest, HandshakeRequest, VersionRange};

    fn framed(message: &impl prost::Message) -> Bytes {
        [vec![0; PREFIX_BYTES], message.encode_to_vec()]
            .concat()
            .into()
    }

    #[test]
    fn the_id_is_found_where_there_is_one() {
        let create = CreateSandboxRequest {
            sandbox_id: "sbx-1".to_owned(),
            ..CreateSandboxRequest::default()
        };
        assert_eq!(of("CreateSandbox", &framed(&create)), "sbx-1");
        let restore = RestoreSandboxRequest {
            create: Some(create),
            ..RestoreSandboxRequest::default()
        };
        assert_eq!(of("RestoreSandbox", &framed(&restore)), "sbx-1");
        let handshake = HandshakeRequest {
            contract: Some(VersionRange { min: 1, max: 1 }),
            ..HandshakeRequest::default()
        };
        assert_eq!(of("Handshake", &framed(&handshake)), "");
        assert_eq!(of("GetSandbox", &Bytes::new()), "");
    }
}
