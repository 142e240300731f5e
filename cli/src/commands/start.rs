//! `cofferdam start`: start stopped sandboxes again.

use cofferdam_proto::gateway::v1::StartSandboxRequest;

use super::Each;
use crate::cli::Global;
use crate::connect::{self, OPERATION, within};
use crate::error::CommandError;
use crate::name;
use crate::ui::Ui;
use crate::view::sandbox::SandboxView;

/// Start stopped sandboxes again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ids or names.
    #[arg(required = true, value_name = "SANDBOX")]
    sandboxes: Vec<String>,
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    name::check(&args.sandboxes)?;
    let mut client = connect::client(global)?;
    let mut each = Each::default();
    for sandbox in args.sandboxes {
        let request = StartSandboxRequest {
            sandbox: sandbox.clone(),
        };
        let result = client.start_sandbox(within(OPERATION, request)).await;
        if let Some(response) = each.take(ui, result.map_err(CommandError::from)) {
            let started = response.into_inner().sandbox.unwrap_or_default();
            if ui.json {
                ui.object(&SandboxView::from(&started))?;
            } else {
                ui.line(&sandbox)?;
            }
        }
    }
    Ok(each.exit_code())
}
