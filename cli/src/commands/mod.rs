//! One file per command: its flags, and what it does.

pub(crate) mod attach;
pub(crate) mod cancel;
pub(crate) mod completion;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod doctor;
pub(crate) mod driver;
pub(crate) mod driver_conformance;
pub(crate) mod exec;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod ls;
mod missing;
pub(crate) mod port_forward;
pub(crate) mod ps;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod version;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use bytes::Bytes;

use crate::cli::{Cli, Command};
use crate::error::{CommandError, EXIT_OURS};
use crate::ui::Ui;

/// Exit code of a command of ours that did what it was asked for.
pub(crate) const DONE: u8 = 0;

pub(crate) async fn dispatch(cli: Cli, ui: &Ui) -> Result<u8, CommandError> {
    let global = &cli.global;
    match cli.command {
        Command::Run(args) => run::run(*args, global, ui).await,
        Command::Create(args) => create::run(*args, global, ui).await,
        Command::Exec(args) => exec::run(args, global, ui).await,
        Command::Ls(args) => ls::run(args, global, ui).await,
        Command::Ps(args) => ps::run(args, global, ui).await,
        Command::Inspect(args) => inspect::run(args, global, ui).await,
        Command::Logs(args) => logs::run(args, global, ui).await,
        Command::Attach(args) => attach::run(args, global, ui).await,
        Command::Cp(args) => cp::run(args, global, ui).await,
        Command::PortForward(args) => port_forward::run(args, global, ui).await,
        Command::Start(args) => start::run(args, global, ui).await,
        Command::Stop(args) => stop::run(args, global, ui).await,
        Command::Rm(args) => rm::run(args, global, ui).await,
        Command::Cancel(args) => cancel::run(args, global, ui).await,
        Command::Kill(args) => kill::run(args, global, ui).await,
        Command::Driver(args) => driver::run(args, global, ui).await,
        Command::Doctor(args) => doctor::run(args, global, ui).await,
        Command::Completion(args) => completion::run(args, ui),
        Command::Version(args) => version::run(args, global, ui).await,
    }
}

/// Collects the failures of a command on several objects: one that fails does not stop the rest.
#[derive(Debug, Default)]
pub(crate) struct Each {
    failed: bool,
}

impl Each {
    /// Shows an error at once, or gives the result back.
    pub(crate) fn take<T>(&mut self, ui: &Ui, result: Result<T, CommandError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed = true;
                ui.error(&error);
                None
            }
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        if self.failed { EXIT_OURS } else { DONE }
    }
}

/// Arguments are bytes, whatever the locale says.
pub(crate) fn to_argv(command: Vec<OsString>) -> Vec<Bytes> {
    command
        .into_iter()
        .map(|argument| Bytes::from(argument.into_vec()))
        .collect()
}
