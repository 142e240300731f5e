//! `cofferdam cp`: files and directories, in and out.

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::DONE;
use crate::cli::Global;
use crate::connect::{self, Client};
use crate::copy::{Copied, Spot, download, upload};
use crate::error::{CommandError, Kind};
use crate::name;
use crate::outcome::signal_code;
use crate::ui::Ui;
use crate::units::show_size;

/// Copy files and directories between this machine and a sandbox.
///
/// One of the two is SANDBOX:PATH, where a relative path is below the workspace; the other is a
/// local path, or - for stdin or stdout. Files are checked by their sha256 and appear whole or not
/// at all. A directory is copied into a directory that is there, or as a new one; DIR/. means its
/// content. As - it is a tar.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Make missing directories above a file in the sandbox.
    #[arg(long, short)]
    parents: bool,
    /// PATH, SANDBOX:PATH or -
    #[arg(value_parser = Spot::parse)]
    source: Spot,
    /// PATH, SANDBOX:PATH or -
    #[arg(value_parser = Spot::parse)]
    target: Spot,
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    let listen =
        |kind| signal(kind).map_err(|error| CommandError::io("cannot listen to signals", error));
    check(&args)?;
    let client = connect::client(global)?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    // Dropping the copy removes what is unfinished, at both ends.
    let copied = tokio::select! {
        copied = copy(client, &args) => copied?,
        _ = interrupt.recv() => return Err(interrupted(SignalKind::interrupt())),
        _ = terminate.recv() => return Err(interrupted(SignalKind::terminate())),
    };
    tell(&args, &copied, ui)?;
    Ok(DONE)
}

fn check(args: &Args) -> Result<(), CommandError> {
    match (&args.source, &args.target) {
        (Spot::Sandbox { .. }, Spot::Sandbox { .. }) => Err(CommandError::usage(
            "one sandbox to another is not possible directly",
        )
        .hint("go through a pipe: cofferdam cp A:DIR - | cofferdam cp - B:DIR")),
        (Spot::Sandbox { sandbox, .. }, _) | (_, Spot::Sandbox { sandbox, .. }) => {
            name::check([sandbox])
        }
        _ => Err(CommandError::usage("neither of the two is in a sandbox")
            .hint("write SANDBOX:PATH for the one that is")),
    }
}

async fn copy(client: Client, args: &Args) -> Result<Copied, CommandError> {
    match (&args.source, &args.target) {
        (Spot::Sandbox { sandbox, path }, local) => download(client, sandbox, path, local).await,
        (local, Spot::Sandbox { sandbox, path }) => {
            upload(client, local, sandbox, path, args.parents).await
        }
        _ => Err(CommandError::usage("neither of the two is in a sandbox")),
    }
}

fn interrupted(kind: SignalKind) -> CommandError {
    let signal = kind.as_raw_value().cast_unsigned();
    CommandError::new(Kind::Failed, "the copy was interrupted").exits_with(signal_code(signal))
}

/// What was copied, on stderr when stdout was the target.
fn tell(args: &Args, copied: &Copied, ui: &Ui) -> Result<(), CommandError> {
    let is_stdout = args.target == Spot::Stdio;
    if ui.json {
        if is_stdout {
            ui.err(&format!("{}\n", json!(copied)));
            return Ok(());
        }
        return ui.object(copied);
    }
    if copied.skipped > 0 {
        ui.remark(&format!(
            "{} devices, sockets or pipes are left out",
            copied.skipped
        ));
    }
    if ui.is_watched() {
        let what = match copied.entries {
            Some(1) | None => String::new(),
            Some(entries) => format!(" in {entries} entries"),
        };
        ui.note(&format!("copied {}{what}", show_size(copied.bytes)));
    }
    Ok(())
}
