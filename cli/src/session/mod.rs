//! Follows one execution from this terminal until it has ended, across cuts of the stream.
//!
//! ```text
//!   start/attach ──► accepted ──► events … ──► finished ──► flush ──► exit code
//!        ▲                           │ cut
//!        └── attach from the next offset, stdin from where the command is (backoff, limit)
//! ```
//!
//! No exit code is ever made up: without `finished` the result is an error.

mod cursor;
mod detach;
mod ended;
mod follower;
mod link;
mod reconnect;
mod signals;
mod stdin;
pub(crate) mod terminal;
mod writer;

use std::time::Duration;

use clap::Args;
use cofferdam_proto::gateway::v1::{Pty, StartExecution};

pub(crate) use cursor::{Chunk, Cursor, Stream};

pub(crate) use follower::follow;
pub(crate) use reconnect::{Backoff, is_cut};
pub(crate) use writer::Writer;

use crate::error::CommandError;
use crate::ui::Ui;
use crate::units::{parse_duration_ms, show_size};

/// What to follow, and how.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) opening: Opening,
    /// Send our stdin to the command.
    pub(crate) stdin: bool,
    /// The command has a terminal.
    pub(crate) pty: bool,
    pub(crate) reconnect_limit: Duration,
}

#[derive(Debug)]
pub(crate) enum Opening {
    /// Idempotent by its key: it can be sent again as long as it was not accepted.
    Start(Box<StartExecution>),
    Attach {
        execution_id: String,
        from_offset: u64,
    },
}

impl Plan {
    /// Our own terminal passes every key on.
    fn is_interactive(&self) -> bool {
        self.pty && self.stdin && terminal::stdin_is_terminal()
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReconnectFlags {
    /// How long to try to reach the gateway again after a cut; 0s: not at all.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms, default_value = "60s")]
    reconnect_timeout: u64,
}

impl ReconnectFlags {
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_millis(self.reconnect_timeout)
    }
}

/// `-t` asks for a terminal for the command: it needs one here.
pub(crate) fn pty_like_ours(stdin: bool) -> Result<Pty, CommandError> {
    if stdin && !terminal::stdin_is_terminal() {
        return Err(
            CommandError::usage("--tty with --interactive needs a terminal as stdin")
                .hint("leave -t away to stream stdin, or run it under `script -qec '…' /dev/null`"),
        );
    }
    if !terminal::stdin_is_terminal() && !terminal::stdout_is_terminal() {
        return Err(CommandError::usage(
            "--tty needs a terminal, and neither stdin nor stdout is one",
        )
        .hint("leave -t away, or run it under `script -qec '…' /dev/null`"));
    }
    let (rows, columns) = terminal::size().unwrap_or((24, 80));
    let term = std::env::var("TERM")
        .ok()
        .filter(|term| !term.is_empty())
        .unwrap_or_else(|| "xterm".to_owned());
    Ok(Pty {
        rows,
        columns,
        term,
    })
}

/// The record keeps the head and the tail: what is between is not passed over in silence.
pub(crate) fn missing_output(ui: &Ui, bytes: u64) {
    let size = show_size(bytes);
    let text = format!("{size} of output are not kept any more and missing here");
    ui.remark_again("missing output", &text);
}

/// 128 random bits: one for each thing that is asked for.
pub(crate) fn idempotency_key() -> Result<String, CommandError> {
    let mut random = [0_u8; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| CommandError::io("cannot get random bytes", error))?;
    Ok(format!("cli-{}", hex::encode(random)))
}
