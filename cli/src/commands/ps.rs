//! `cofferdam ps`: the executions.

use cofferdam_proto::gateway::v1::{Execution, ListExecutionsRequest};

use super::DONE;
use super::ls::{age, now_ms};
use crate::cli::Global;
use crate::connect::{self, QUERY, within};
use crate::error::CommandError;
use crate::render::{Cell, shorten, table};
use crate::ui::Ui;
use crate::units::show_span_us;
use crate::view::execution::{ExecutionView, command, exit_text, state, state_tone};

const COMMAND_WIDTH: usize = 48;
const PAGE_MAX: u32 = 500;

/// List executions, newest first.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also those that have ended.
    #[arg(long, short)]
    all: bool,
    /// At most so many, newest first; implies --all.
    #[arg(long, short = 'n', value_name = "N")]
    last: Option<u32>,
    /// Show whole commands.
    #[arg(long)]
    no_trunc: bool,
    /// Only of this sandbox.
    sandbox: Option<String>,
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    let mut client = connect::client(global)?;
    let mut left = args.last.unwrap_or(u32::MAX);
    let mut request = ListExecutionsRequest {
        sandbox: args.sandbox.unwrap_or_default(),
        running_only: !args.all && args.last.is_none(),
        ..Default::default()
    };
    let command_width = if args.no_trunc {
        usize::MAX
    } else {
        COMMAND_WIDTH
    };
    let mut rows = Vec::new();
    while left > 0 {
        request.page_size = left.min(PAGE_MAX);
        let page = client
            .list_executions(within(QUERY, request.clone()))
            .await?
            .into_inner();
        for execution in page.executions.iter().take(left as usize) {
            if ui.json {
                ui.object(&ExecutionView::from(execution))?;
            } else if ui.quiet {
                ui.line(&execution.execution_id)?;
            } else {
                rows.push(row(execution, command_width));
            }
        }
        left = left.saturating_sub(u32::try_from(page.executions.len()).unwrap_or(u32::MAX));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if !ui.json && !ui.quiet {
        let titles = ["ID", "SANDBOX", "STATE", "EXIT", "AGE", "RAN", "COMMAND"];
        ui.out(&table(ui, titles, &rows))?;
    }
    Ok(DONE)
}

fn row(execution: &Execution, command_width: usize) -> [Cell; 7] {
    let ran = match execution.running_us {
        0 => String::new(),
        micros => show_span_us(micros),
    };
    [
        execution.execution_id.as_str().into(),
        execution.sandbox_id.as_str().into(),
        Cell::toned(state(execution), state_tone(execution)),
        exit_text(execution).into(),
        age(execution.create_time_unix_ms, now_ms()).into(),
        ran.into(),
        shorten(&command(execution), command_width).into(),
    ]
}
