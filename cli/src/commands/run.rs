//! `cofferdam run`: a command in a fresh sandbox, which is removed when the command ends.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use cofferdam_proto::gateway::v1::execution_request::Place;
use cofferdam_proto::gateway::v1::{
    CreateSandboxRequest, ExecutionRequest, SandboxRequest, SandboxState,
};

use tokio::signal::unix::{SignalKind, signal};

use super::create::failed_sandbox;
use super::exec::{ExecutionFlags, execute};
use crate::cli::Global;
use crate::connect::{self, Client, OPERATION, within};
use crate::embedded::{self, Embedded, parse_driver_socket};
use crate::error::{CommandError, Kind};
use crate::sandbox_flags::SandboxFlags;
use crate::session::idempotency_key;
use crate::ui::Ui;

/// Run a command in a fresh sandbox.
///
/// The sandbox is removed when the command ends. When no gateway runs, one is brought along for as
/// long as the command takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The command and its arguments.
    // Its own arguments may begin with a hyphen; a first word that does is a mistyped flag of ours.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
    #[command(flatten)]
    execution: ExecutionFlags,
    #[command(flatten)]
    sandbox: SandboxFlags,
    /// Remove the sandbox when the command ends; the default, written out.
    #[arg(long, conflicts_with = "keep")]
    rm: bool,
    /// Keep the sandbox after the command has ended; its id goes to stderr.
    #[arg(long)]
    keep: bool,
    /// Bring a gateway along even if one runs.
    #[arg(long, help_heading = GATEWAY, conflicts_with_all = ["gateway", "keep", "detach"])]
    embedded: bool,
    /// A driver for the gateway that is brought along, by name and socket; can be repeated.
    #[arg(long, value_name = "NAME=PATH", value_parser = parse_driver_socket, help_heading = GATEWAY)]
    compute_driver_socket: Vec<(String, PathBuf)>,
}

const GATEWAY: &str = "Gateway options";

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    // All that can be wrong here is found before anything is started.
    let keep = args.keep;
    let options = embedded::Options {
        driver: args.sandbox.driver.clone(),
        driver_sockets: args.compute_driver_socket.clone(),
    };
    let place = args.sandbox.into_request(BTreeMap::new())?;
    let mut request = args.execution.request(super::to_argv(args.command), ui)?;
    request.labels = place.labels.clone();
    request.user = place.user.clone();
    match reach(global, args.embedded, &options)? {
        Some(client) => run_on(client, &args.execution, place, request, keep, ui).await,
        None if keep || args.execution.detach => Err(needs_a_gateway(keep)),
        None => {
            let embedded = Embedded::start(options).await?;
            let client = connect::open_path(embedded.socket.clone());
            let result = run_on(client, &args.execution, place, request, false, ui).await;
            put_away(embedded, ui).await?;
            result
        }
    }
}

/// Waits until nothing is left, unless somebody is in a hurry.
async fn put_away(embedded: Embedded, ui: &Ui) -> Result<(), CommandError> {
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| CommandError::io("cannot listen to signals", error))?;
    tokio::select! {
        () = embedded.shutdown() => {}
        _ = interrupt.recv() => {
            ui.remark("left before the sandbox was removed: the next `cofferdam run` or `cofferdam doctor` does that");
        }
    }
    Ok(())
}

/// The gateway that runs, or none if one is to be brought along.
fn reach(
    global: &Global,
    embedded: bool,
    options: &embedded::Options,
) -> Result<Option<Client>, CommandError> {
    if embedded {
        return Ok(None);
    }
    match connect::find(global) {
        Ok(found) if !options.driver_sockets.is_empty() => Err(CommandError::usage(format!(
            "the gateway at {} chooses its own drivers: --compute-driver-socket has no effect on it",
            found.path.display()
        ))
        .hint("add the driver to the gateway's configuration, or use --embedded")),
        Ok(found) => connect::open(found).map(Some),
        Err(looked) if global.named_gateway().is_some() => Err(connect::no_gateway(&looked)),
        // A gateway that is there but not for us is not silently replaced.
        Err(looked) if looked.iter().any(connect::Looked::is_denied) => {
            Err(connect::no_gateway(&looked))
        }
        Err(_) => Ok(None),
    }
}

fn needs_a_gateway(keep: bool) -> CommandError {
    let flag = if keep { "--keep" } else { "--detach" };
    CommandError::new(
        Kind::NoGateway,
        format!("{flag} needs a gateway that stays, and none runs"),
    )
    .hint("start one with `systemctl start cofferdam-gateway` or `cofferdam-gateway`")
}

async fn run_on(
    client: Client,
    flags: &ExecutionFlags,
    place: SandboxRequest,
    mut request: ExecutionRequest,
    keep: bool,
    ui: &Ui,
) -> Result<u8, CommandError> {
    request.place = Some(if keep {
        Place::Sandbox(create_kept(client.clone(), place, ui).await?)
    } else {
        Place::OneShot(place)
    });
    execute(client, flags, request, ui).await
}

async fn create_kept(
    mut client: Client,
    place: SandboxRequest,
    ui: &Ui,
) -> Result<String, CommandError> {
    let request = CreateSandboxRequest {
        sandbox: Some(place),
        wait: true,
        idempotency_key: idempotency_key()?,
    };
    let sandbox = client
        .create_sandbox(within(OPERATION, request))
        .await?
        .into_inner()
        .sandbox
        .unwrap_or_default();
    if sandbox.state() == SandboxState::Failed {
        return Err(failed_sandbox(&sandbox));
    }
    ui.note(&format!("{} is kept", sandbox.sandbox_id));
    Ok(sandbox.sandbox_id)
}
