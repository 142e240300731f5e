//! `cofferdam inspect`: everything about one sandbox or execution.

use cofferdam_proto::gateway::v1::{GetExecutionRequest, GetSandboxRequest};
use tonic::{Code, Status};

use super::DONE;
use crate::cli::Global;
use crate::connect::{self, Client, QUERY, within};
use crate::error::CommandError;
use crate::name;
use crate::ui::Ui;
use crate::view::execution::{self, ExecutionView};
use crate::view::sandbox::{self, SandboxView};

const EXECUTION_PREFIX: &str = "exec-";

/// Show everything about a sandbox or an execution.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id of an execution, or id or name of a sandbox.
    id: String,
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    name::check([&args.id])?;
    let client = connect::client(global)?;
    // A sandbox may be named like an execution: what the id looks like only says where to ask
    // first, and whose "not found" is shown.
    let looks_like_execution = args.id.starts_with(EXECUTION_PREFIX);
    let first = show(client.clone(), &args.id, looks_like_execution, ui).await;
    match first {
        Err(Shown::Not(status)) if status.code() == Code::NotFound => {
            match show(client, &args.id, !looks_like_execution, ui).await {
                Ok(()) => Ok(DONE),
                Err(Shown::Failed(error)) => Err(error),
                Err(Shown::Not(_)) => Err(status.into()),
            }
        }
        Err(Shown::Not(status)) => Err(status.into()),
        Err(Shown::Failed(error)) => Err(error),
        Ok(()) => Ok(DONE),
    }
}

/// Why nothing was shown.
#[derive(Debug)]
enum Shown {
    Not(Status),
    Failed(CommandError),
}

async fn show(client: Client, id: &str, as_execution: bool, ui: &Ui) -> Result<(), Shown> {
    if as_execution {
        show_execution(client, id, ui).await
    } else {
        show_sandbox(client, id, ui).await
    }
}

async fn show_sandbox(mut client: Client, id: &str, ui: &Ui) -> Result<(), Shown> {
    let request = GetSandboxRequest {
        sandbox: id.to_owned(),
    };
    let found = client
        .get_sandbox(within(QUERY, request))
        .await
        .map_err(Shown::Not)?
        .into_inner()
        .sandbox
        .unwrap_or_default();
    let written = if ui.json {
        ui.object(&SandboxView::from(&found))
    } else if ui.quiet {
        ui.line(&found.sandbox_id)
    } else {
        ui.out(&sandbox::lines(&found).render(ui))
    };
    written.map_err(Shown::Failed)
}

async fn show_execution(mut client: Client, id: &str, ui: &Ui) -> Result<(), Shown> {
    let request = GetExecutionRequest {
        execution_id: id.to_owned(),
        wait_ms: 0,
    };
    let found = client
        .get_execution(within(QUERY, request))
        .await
        .map_err(Shown::Not)?
        .into_inner()
        .execution
        .unwrap_or_default();
    let written = if ui.json {
        ui.object(&ExecutionView::from(&found))
    } else if ui.quiet {
        ui.line(&found.execution_id)
    } else {
        ui.out(&execution::lines(&found).render(ui))
    };
    written.map_err(Shown::Failed)
}
