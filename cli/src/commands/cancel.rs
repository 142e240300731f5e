//! `cofferdam cancel`: end executions with everything they started.

use cofferdam_proto::gateway::v1::CancelExecutionRequest;

use super::{Each, missing};
use crate::cli::Global;
use crate::connect::{self, OPERATION, within};
use crate::error::CommandError;
use crate::name;
use crate::ui::Ui;
use crate::units::parse_duration_ms;
use crate::view::execution::ExecutionView;

/// End executions with all their processes, politely first.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Between SIGTERM and SIGKILL [default: the gateway's].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    grace: Option<u64>,
    /// Ids.
    #[arg(required = true, value_name = "EXECUTION")]
    executions: Vec<String>,
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    name::check(&args.executions)?;
    // 0 means the default there; the shortest grace is as good as none.
    let grace_ms = args.grace.map_or(0, |grace| grace.max(1));
    cancel(args.executions, grace_ms, global, ui).await
}

pub(super) async fn cancel(
    executions: Vec<String>,
    grace_ms: u64,
    global: &Global,
    ui: &Ui,
) -> Result<u8, CommandError> {
    let mut client = connect::client(global)?;
    let mut each = Each::default();
    for execution_id in executions {
        let request = CancelExecutionRequest {
            execution_id: execution_id.clone(),
            grace_ms,
        };
        let result = match client.cancel_execution(within(OPERATION, request)).await {
            Ok(response) => Ok(response),
            Err(status) => Err(missing::execution(client.clone(), &execution_id, status).await),
        };
        if let Some(response) = each.take(ui, result) {
            let execution = response.into_inner().execution.unwrap_or_default();
            if ui.json {
                ui.object(&ExecutionView::from(&execution))?;
            } else {
                ui.line(&execution_id)?;
            }
        }
    }
    Ok(each.exit_code())
}
