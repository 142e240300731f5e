//! `cofferdam create`: a sandbox that stays.

use cofferdam_proto::gateway::v1::{CreateSandboxRequest, Sandbox, SandboxState};

use super::DONE;
use crate::cli::Global;
use crate::connect::{self, OPERATION, within};
use crate::environment::EnvironmentFlags;
use crate::error::{CommandError, Kind};
use crate::sandbox_flags::SandboxFlags;
use crate::session::idempotency_key;
use crate::ui::Ui;
use crate::view::sandbox::SandboxView;

/// Create a sandbox and write its id.
///
/// It stays until `cofferdam rm`, or until the end of its lifetime.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not wait until it is ready.
    #[arg(long)]
    no_wait: bool,
    /// The same key with the same request gives the same sandbox.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    sandbox: SandboxFlags,
    #[command(flatten)]
    environment: EnvironmentFlags,
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    let environment = args.environment.resolve(ui)?;
    let request = CreateSandboxRequest {
        sandbox: Some(args.sandbox.into_request(environment)?),
        wait: !args.no_wait,
        idempotency_key: match args.idempotency_key {
            Some(key) => key,
            None => idempotency_key()?,
        },
    };
    let mut client = connect::client(global)?;
    let sandbox = client
        .create_sandbox(within(OPERATION, request))
        .await?
        .into_inner()
        .sandbox
        .unwrap_or_default();
    // Also of a failed one: it is there, and can be inspected and removed.
    if ui.json {
        ui.object(&SandboxView::from(&sandbox))?;
    } else {
        ui.line(&sandbox.sandbox_id)?;
    }
    if sandbox.state() == SandboxState::Failed {
        return Err(failed_sandbox(&sandbox));
    }
    Ok(DONE)
}

pub(crate) fn failed_sandbox(sandbox: &Sandbox) -> CommandError {
    let message = if sandbox.message.is_empty() {
        format!("{} could not be made", sandbox.sandbox_id)
    } else {
        format!(
            "{} could not be made: {}",
            sandbox.sandbox_id, sandbox.message
        )
    };
    let mut error = CommandError::new(Kind::Failed, message).hint(format!(
        "`cofferdam inspect {0}` shows more, `cofferdam rm {0}` removes it",
        sandbox.sandbox_id
    ));
    error.reason = (!sandbox.reason.is_empty()).then(|| sandbox.reason.clone());
    error
}
