//! The `cofferdam` command: runs things in sandboxes, through a gateway.
//!
//! It knows the callers' contract (`gateway.proto`) and nothing of drivers or supervisors.
//!
//! ```text
//! cli.rs        what can be typed          commands/   one file per command
//! connect.rs    find (places.rs) and reach a gateway   embedded.rs or bring one along
//! session/      follow one execution: output, stdin, signals, terminal, reconnect
//! copy/         files and directories      view/, render.rs  what people and programs get to see
//! error.rs      kind, sentence, hint       status.rs   the only mapping from gRPC errors
//! ```
//!
//! stdout is data, stderr is for people. Exit codes: the remote command's own; 124 timeout,
//! 125 ours, 126 not executable, 127 not found, 128+n signal.

mod cli;
mod commands;
mod connect;
mod copy;
mod embedded;
mod environment;
mod error;
mod libexec;
mod mount;
mod name;
mod outcome;
mod places;
mod render;
mod repeats;
mod sandbox_flags;
mod session;
mod status;
mod ui;
mod units;
mod view;

use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::cli::Cli;
use crate::error::{CommandError, Kind};
use crate::ui::Ui;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::of(&words) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    session::terminal::restore_on_panic();
    let ui = Ui::new(cli.global.json, cli.global.quiet);
    let result = run(cli, &ui);
    ui.tell_withheld();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            ui.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli, ui: &Ui) -> Result<u8, CommandError> {
    // One thread is enough for a client, and starts fastest. An embedded gateway brings its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            CommandError::new(Kind::Internal, "cannot start the event loop").caused_by(error)
        })?;
    let result = runtime.block_on(commands::dispatch(cli, ui));
    // A read of a terminal that never comes back must not hold up the exit.
    runtime.shutdown_background();
    result
}

/// Help and version are data on stdout; everything else that clap says is a usage error of ours.
fn refuse(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        // Who closed our output does not want to hear it.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // Nothing was parsed, so that only the words themselves can say it.
    let wants_json = std::env::args_os()
        .take_while(|word| word != "--")
        .any(|word| word == "--json");
    if wants_json {
        let text = error.to_string();
        let sentence = text.lines().next().unwrap_or_default();
        let sentence = sentence.strip_prefix("error: ").unwrap_or(sentence);
        Ui::new(true, false).error(&CommandError::usage(sentence));
    } else {
        let _ = error.print();
    }
    ExitCode::from(error::EXIT_OURS)
}
