//! A gateway of our own, for as long as one command runs.
//!
//! The seam to `cofferdam_gateway::embed`: nothing else in this crate knows that library.

use std::path::PathBuf;

use crate::error::{CommandError, Kind};
use crate::libexec;

/// What an embedded gateway is to be.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The driver that is wanted. None: the gateway's own default.
    pub(crate) driver: Option<String>,
    /// Third parties' drivers, by name and socket.
    pub(crate) driver_sockets: Vec<(String, PathBuf)>,
}

/// A gateway that runs in this process.
#[derive(Debug)]
pub(crate) struct Embedded {
    pub(crate) socket: PathBuf,
}

impl Embedded {
    /// Starts it and waits until it answers.
    pub(crate) async fn start(options: Options) -> Result<Self, CommandError> {
        let _libexec = libexec::find()?;
        let _ = options;
        Err(CommandError::new(
            Kind::NoGateway,
            "no gateway runs, and this build cannot bring one along",
        ))
    }

    /// Ends what still runs, removes what is left, and returns when that is done.
    pub(crate) async fn shutdown(self) {}
}

/// "NAME=PATH"
pub(crate) fn parse_driver_socket(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(path)))
        }
        _ => Err(format!("{text:?} is not NAME=PATH")),
    }
}
