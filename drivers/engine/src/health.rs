//! Why there is no working engine, and what to do about it.

use std::io;

use cofferdam_driver_sdk::DriverError;

use crate::client::{ConnectError, EngineError, Kind};
use crate::discover::Candidate;
use crate::endpoint::Endpoint;
use crate::monitor::Names;

/// What is wrong, in one sentence, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) kind: TroubleKind,
    pub(crate) message: String,
    pub(crate) fix: String,
}

/// In the order in which they tell more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TroubleKind {
    /// There is none here; nothing is broken.
    Absent,
    /// It does not answer, and may tomorrow.
    Silent,
    /// It answers, and cannot be used.
    Unusable,
    /// It would answer somebody else.
    Forbidden,
}

impl Trouble {
    /// Nobody listens anywhere.
    pub(crate) fn nowhere(names: &Names, candidates: &[Candidate]) -> Self {
        let places: Vec<_> = candidates
            .iter()
            .map(|candidate| candidate.endpoint.to_string())
            .collect();
        Self {
            kind: TroubleKind::Absent,
            message: format!(
                "there is no {} here: tried {}",
                names.title,
                places.join(", ")
            ),
            fix: format!(
                "install {} and start it ({}), or set `host` in the driver's settings",
                names.title, names.start_hint
            ),
        }
    }

    /// What kept us from this one.
    pub(crate) fn of(names: &Names, candidate: &Candidate, error: &ConnectError) -> Self {
        let Candidate { endpoint, origin } = candidate;
        let title = names.title;
        match error {
            ConnectError::Dial(error) => Self {
                kind: TroubleKind::Unusable,
                message: format!("{endpoint} ({origin}) cannot be reached: {error}"),
                fix: "correct the files that `tls` names".to_owned(),
            },
            ConnectError::Version { .. } => Self {
                kind: TroubleKind::Unusable,
                message: format!("{title} at {endpoint}: {error}"),
                fix: format!("upgrade {title}, or the driver"),
            },
            ConnectError::Engine(error) => Self::of_request(names, endpoint, origin, error),
        }
    }

    fn of_request(names: &Names, endpoint: &Endpoint, origin: &str, error: &EngineError) -> Self {
        let title = names.title;
        let chain = error.chain();
        let says = |kind: TroubleKind, fix: String| Self {
            kind,
            message: format!("{title} at {endpoint} ({origin}): {chain}"),
            fix,
        };
        let start = || format!("start it: {}", names.start_hint);
        match (error.kind, io_kind(error)) {
            (_, Some(io::ErrorKind::NotFound)) => Self {
                kind: TroubleKind::Absent,
                message: format!("there is no {title} at {endpoint} ({origin})"),
                fix: start(),
            },
            (_, Some(io::ErrorKind::PermissionDenied)) => Self {
                kind: TroubleKind::Forbidden,
                message: format!("the driver may not use {endpoint} ({origin})"),
                fix: forbidden_fix(endpoint),
            },
            (_, Some(io::ErrorKind::ConnectionRefused)) => Self {
                kind: TroubleKind::Silent,
                message: format!("nobody listens at {endpoint} ({origin})"),
                fix: start(),
            },
            (Kind::Timeout, _) => says(
                TroubleKind::Silent,
                format!("see what {title} is doing; its own log may say"),
            ),
            (Kind::Unreachable, _) => says(TroubleKind::Silent, start()),
            _ => says(TroubleKind::Unusable, format!("see {title}'s own log")),
        }
    }

    /// The engine was there, and is not any more.
    pub(crate) fn gone(names: &Names, error: &EngineError) -> Self {
        Self {
            kind: TroubleKind::Silent,
            message: format!(
                "the connection to {} was lost: {}",
                names.title,
                error.chain()
            ),
            fix: format!("start it: {}", names.start_hint),
        }
    }

    pub(crate) fn is_worth_more_than(&self, other: &Self) -> bool {
        self.kind > other.kind
    }

    /// For a call that needs the engine.
    pub(crate) fn to_error(&self) -> DriverError {
        match self.kind {
            TroubleKind::Silent => DriverError::unavailable(self.message.clone()),
            _ => DriverError::precondition(
                "PLATFORM_UNHEALTHY",
                "engine",
                self.message.clone(),
                self.fix.clone(),
            ),
        }
    }
}

fn forbidden_fix(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Unix(path) => {
            use std::os::unix::fs::MetadataExt as _;
            let group = std::fs::metadata(path).map(|meta| meta.gid());
            match group {
                Ok(gid) => format!(
                    "let the driver's user into the group of {} (gid {gid}: usermod -aG), and \
                     restart the gateway; or run a rootless engine",
                    path.display()
                ),
                Err(_) => format!("let the driver's user into {}", path.display()),
            }
        }
        _ => "check the driver's credentials for the engine".to_owned(),
    }
}

/// The system's own reason, however deep it is.
fn io_kind(error: &EngineError) -> Option<io::ErrorKind> {
    let mut next = std::error::Error::source(error);
    let mut kind = None;
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            kind = Some(io.kind());
        }
        next = cause.source();
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = Names {
        title: "Engine",
        client: "engine",
        start_hint: "systemctl start engine",
    };

    fn trouble(kind: io::ErrorKind) -> Trouble {
        let source = Box::new(io::Error::from(kind));
        let error = EngineError::transport("ask", "the engine", source);
        let candidate = Candidate {
            endpoint: Endpoint::Unix("/run/e.sock".into()),
            origin: "a usual place".to_owned(),
        };
        Trouble::of(&NAMES, &candidate, &ConnectError::Engine(error))
    }

    #[test]
    fn what_can_be_mended_comes_with_its_remedy() {
        let absent = trouble(io::ErrorKind::NotFound);
        assert_eq!(absent.kind, TroubleKind::Absent);
        let forbidden = trouble(io::ErrorKind::PermissionDenied);
        assert!(forbidden.is_worth_more_than(&absent));
        assert!(forbidden.message.contains("/run/e.sock"));
        let refused = trouble(io::ErrorKind::ConnectionRefused);
        assert!(refused.fix.contains("systemctl start engine"));
        assert!(!absent.is_worth_more_than(&refused));
    }
}
