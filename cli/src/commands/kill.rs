//! `cofferdam kill`: end executions at once, or send them a signal.

use cofferdam_proto::gateway::v1::SignalExecutionRequest;
use serde_json::json;

use super::{Each, cancel, missing};
use crate::cli::Global;
use crate::connect::{self, QUERY, within};
use crate::error::CommandError;
use crate::name;
use crate::outcome::{parse_signal, signal_name};
use crate::ui::Ui;

/// The contract's 0 means its default.
const NO_GRACE_MS: u64 = 1;

/// Kill executions with all their processes, or send a signal.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only send this signal to the process group: HUP, SIGUSR1, 15.
    #[arg(long, short, value_name = "SIGNAL", value_parser = parse_signal)]
    signal: Option<u32>,
    /// Ids.
    #[arg(required = true, value_name = "EXECUTION")]
    executions: Vec<String>,
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    name::check(&args.executions)?;
    let Some(signal) = args.signal else {
        return cancel::cancel(args.executions, NO_GRACE_MS, global, ui).await;
    };
    let mut client = connect::client(global)?;
    let mut each = Each::default();
    for execution_id in args.executions {
        let request = SignalExecutionRequest {
            execution_id: execution_id.clone(),
            signal,
        };
        let result = match client.signal_execution(within(QUERY, request)).await {
            Ok(response) => Ok(response),
            Err(status) => Err(missing::execution(client.clone(), &execution_id, status).await),
        };
        if each.take(ui, result).is_some() {
            if ui.json {
                ui.object(&json!({ "execution_id": execution_id, "signal": signal_name(signal) }))?;
            } else {
                ui.line(&execution_id)?;
            }
        }
    }
    Ok(each.exit_code())
}
