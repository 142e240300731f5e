//! The fault driver as a program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;

use super::control::Control;
use super::{FaultDriver, Script, StartError, Variant};
use crate::run::{Args, ListenError, Listeners, Peers, Signals, log_to_stderr};

/// A compute driver that breaks on purpose. It isolates nothing; it is for tests.
#[derive(Debug, clap::Parser)]
struct Options {
    #[command(flatten)]
    driver: Args,

    /// Begin with the script in this file, which is JSON.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,

    /// Break this rule of the contract, whatever the script says.
    #[arg(long, value_name = "NAME")]
    variant: Option<Variant>,

    /// Listen here for other scripts.
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

/// Why the program could not run.
#[derive(Debug, thiserror::Error)]
enum ProgramError {
    #[error("cannot read the script {path}")]
    Script {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is no script")]
    Words {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the runtime cannot be started")]
    Runtime(#[source] std::io::Error),
}

impl From<ListenError> for ProgramError {
    fn from(error: ListenError) -> Self {
        Self::Start(error.into())
    }
}

/// The whole `main` of a program.
#[allow(
    clippy::print_stderr,
    reason = "why the process ends, for whoever started it"
)]
#[must_use]
pub fn run() -> ExitCode {
    let options = Options::parse();
    log_to_stderr(&options.driver);
    let ran = tokio::runtime::Runtime::new()
        .map_err(ProgramError::Runtime)
        .and_then(|runtime| runtime.block_on(serve(&options)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error);
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("fault driver: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: &Options) -> Result<(), ProgramError> {
    let mut script = match &options.script {
        Some(path) => read(path)?,
        None => Script::default(),
    };
    script.variant = options.variant.or(script.variant);
    let control = options.control.as_deref().map(Control::bind).transpose()?;
    let signals = Signals::new().map_err(ProgramError::Runtime)?;
    let listeners = Listeners::open(&options.driver)?;
    let listening = listeners.to_string();
    let peers = Peers::new(&options.driver.allow_uid, listeners.are_inherited());
    let driver = FaultDriver::serve(listeners, peers, script)?;
    tracing::info!(listening, "the driver is up");
    let live = driver.live().clone();
    let controlled = async {
        match control {
            Some(control) => control.serve(live).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = controlled => {}
        () = signals.first() => {}
    }
    driver.stop().await;
    Ok(())
}

fn read(path: &Path) -> Result<Script, ProgramError> {
    let path_buf = || path.to_owned();
    let text = std::fs::read_to_string(path).map_err(|source| ProgramError::Script {
        path: path_buf(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|source| ProgramError::Words {
        path: path_buf(),
        source,
    })
}
