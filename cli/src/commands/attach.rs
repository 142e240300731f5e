//! `cofferdam attach`: follow an execution that was started elsewhere.

use cofferdam_proto::gateway::v1::{Execution, GetExecutionRequest};

use super::missing;
use crate::cli::Global;
use crate::connect::{self, Client, QUERY, within};
use crate::error::CommandError;
use crate::name;
use crate::session::{Opening, Plan, ReconnectFlags, follow};
use crate::ui::Ui;

/// Follow an execution and exit as it does.
///
/// Signals are passed on to it. In a terminal session, Ctrl-] d leaves it without ending it, and
/// exits with 0.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not send stdin.
    #[arg(long)]
    no_stdin: bool,
    /// Begin with all the output that is kept, instead of what comes from now on.
    #[arg(long, conflicts_with = "from_offset")]
    from_start: bool,
    /// Begin at this offset in the whole output.
    #[arg(long, value_name = "BYTES")]
    from_offset: Option<u64>,
    #[command(flatten)]
    reconnect: ReconnectFlags,
    /// Id of the execution.
    execution: String,
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    name::check([&args.execution])?;
    let client = connect::client(global)?;
    let execution = get(client.clone(), args.execution).await?;
    let from_offset = match (args.from_offset, args.from_start) {
        (Some(offset), _) => offset,
        (None, true) => 0,
        (None, false) => execution.output_bytes,
    };
    let plan = Plan {
        opening: Opening::Attach {
            execution_id: execution.execution_id,
            from_offset,
        },
        stdin: !args.no_stdin,
        pty: execution.pty,
        reconnect_limit: args.reconnect.limit(),
    };
    follow(client, plan, ui).await.report(ui)
}

async fn get(mut client: Client, execution_id: String) -> Result<Execution, CommandError> {
    let request = GetExecutionRequest {
        execution_id: execution_id.clone(),
        wait_ms: 0,
    };
    match client.get_execution(within(QUERY, request)).await {
        Ok(response) => Ok(response.into_inner().execution.unwrap_or_default()),
        Err(status) => Err(missing::execution(client, &execution_id, status).await),
    }
}
