//! `cofferdam stop`: end what runs in sandboxes, and keep their workspaces.

use cofferdam_proto::gateway::v1::StopSandboxRequest;

use super::Each;
use crate::cli::Global;
use crate::connect::{self, OPERATION, within};
use crate::error::CommandError;
use crate::name;
use crate::ui::Ui;
use crate::units::parse_duration_ms;
use crate::view::sandbox::SandboxView;

/// Stop sandboxes; their workspaces are kept.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Between asking and killing [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    grace: Option<u64>,
    /// Ids or names.
    #[arg(required = true, value_name = "SANDBOX")]
    sandboxes: Vec<String>,
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    name::check(&args.sandboxes)?;
    let mut client = connect::client(global)?;
    let mut each = Each::default();
    for sandbox in args.sandboxes {
        let request = StopSandboxRequest {
            sandbox: sandbox.clone(),
            // 0 means the default there; the shortest grace is as good as none.
            grace_ms: args.grace.map_or(0, |grace| grace.max(1)),
        };
        let result = client.stop_sandbox(within(OPERATION, request)).await;
        if let Some(response) = each.take(ui, result.map_err(CommandError::from)) {
            let stopped = response.into_inner().sandbox.unwrap_or_default();
            if ui.json {
                ui.object(&SandboxView::from(&stopped))?;
            } else {
                ui.line(&sandbox)?;
            }
        }
    }
    Ok(each.exit_code())
}
