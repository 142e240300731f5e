//! The engines that a run of the tests has for itself, for as long as it lasts.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{DOCKERD, PODMAN, docker, on_path, podman};

/// A kind of engine that is started for tests.
#[derive(Debug, Clone, Copy)]
struct Kind {
    program: &'static str,
    /// By which tests find it.
    variable: &'static str,
    start: fn(&Path) -> Result<PathBuf>,
    stop: fn(&Path) -> Result<()>,
}

const KINDS: [Kind; 2] = [
    Kind {
        program: DOCKERD,
        variable: "COFFERDAM_TEST_DOCKER",
        start: docker::start,
        stop: docker::stop,
    },
    Kind {
        program: PODMAN,
        variable: "COFFERDAM_TEST_PODMAN",
        start: podman::start,
        stop: podman::stop,
    },
];

/// Engines that were started. Dropped, they are stopped, and nothing is left of them.
#[derive(Debug, Default)]
pub(crate) struct Own(Vec<OwnEngine>);

#[derive(Debug)]
struct OwnEngine {
    kind: Kind,
    host: String,
    dir: TempDir,
}

impl Own {
    /// Starts what is installed. Engines are started by root only; without them the tests that need
    /// one say so.
    ///
    /// # Errors
    /// When one that is installed does not start, and they are required.
    pub(crate) fn start(are_required: bool) -> Result<Self> {
        let mut own = Self::default();
        if !rustix::process::geteuid().is_root() {
            return Ok(own);
        }
        for kind in KINDS {
            if on_path(kind.program).is_none() {
                continue;
            }
            let started = OwnEngine::start(kind)
                .with_context(|| format!("start {} for the tests", kind.program));
            match started {
                Ok(engine) => own.0.push(engine),
                Err(error) if are_required => return Err(error),
                Err(error) => eprintln!("{error:#}"),
            }
        }
        Ok(own)
    }

    /// Tells tests where the engines are.
    pub(crate) fn point(&self, command: &mut Command) {
        for engine in &self.0 {
            command.env(engine.kind.variable, &engine.host);
        }
    }
}

impl OwnEngine {
    fn start(kind: Kind) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("cofferdam-engine-")
            .tempdir()
            .context("make a directory")?;
        let socket = (kind.start)(dir.path())?;
        Ok(Self {
            kind,
            host: format!("unix://{}", socket.display()),
            dir,
        })
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if let Err(error) = (self.kind.stop)(self.dir.path()) {
            eprintln!("{} was not stopped: {error:#}", self.kind.program);
        }
    }
}
