//! Agreeing on a version of the API: the newest that both sides know.

use super::QUICK;
use super::error::{EngineError, Kind};
use super::request::Ask;
use super::wire::{InfoJson, VersionJson};
use crate::transport::{DialError, Transport};

/// Docker 20.10, the oldest that distributions still carry.
const OLDEST: (u32, u32) = (1, 41);

/// What our requests and models were written for.
const NEWEST: (u32, u32) = (1, 53);

/// There is no working connection to an engine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Files for TLS.
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Too old, or so new that it has forgotten what we know.
    #[error(
        "the engine speaks API versions {oldest} to {newest}, and this driver speaks {}.{} to {}.{}",
        OLDEST.0, OLDEST.1, NEWEST.0, NEWEST.1
    )]
    Version { oldest: String, newest: String },
}

pub(super) async fn agree(transport: &Transport) -> Result<(VersionJson, InfoJson), ConnectError> {
    let ask = Ask {
        operation: "ask",
        object: "the engine for its version",
        limit: QUICK,
    };
    let version: VersionJson = transport.get_json(ask, "/version").await?;
    let (major, minor) =
        common(&version.min_api_version, &version.api_version).ok_or_else(|| {
            ConnectError::Version {
                oldest: version.min_api_version.clone(),
                newest: version.api_version.clone(),
            }
        })?;
    transport.agree(major, minor);
    let ask = Ask {
        object: "the engine what it is",
        ..ask
    };
    let info: InfoJson = transport.get_json(ask, "/info").await?;
    if info.os_type != "linux" {
        let message = format!(
            "it runs {} containers, and sandboxes are Linux",
            info.os_type
        );
        return Err(EngineError::new("use", "the engine", Kind::Invalid, message).into());
    }
    Ok((version, info))
}

/// The newest version within both ranges.
fn common(engine_oldest: &str, engine_newest: &str) -> Option<(u32, u32)> {
    let newest = parse(engine_newest)?.min(NEWEST);
    let oldest = parse(engine_oldest).unwrap_or((1, 0)).max(OLDEST);
    (newest >= oldest).then_some(newest)
}

fn parse(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_chosen() {
        assert_eq!(common("1.12", "1.41"), Some((1, 41)));
        assert_eq!(common("1.24", "1.47"), Some((1, 47)));
        assert_eq!(common("1.44", "1.99"), Some(NEWEST));
        assert_eq!(common("", "1.43"), Some((1, 43)));
    }

    #[test]
    fn engines_that_are_too_old_or_too_new_are_refused() {
        assert_eq!(common("1.12", "1.40"), None);
        assert_eq!(common("1.98", "1.99"), None);
        assert_eq!(common("1.12", "new"), None);
    }
}
