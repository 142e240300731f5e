//! `cofferdam rm`: remove sandboxes, in whatever state they are.

use cofferdam_proto::gateway::v1::{DeleteSandboxRequest, GetSandboxRequest};
use serde_json::json;
use tonic::Code;

use super::Each;
use crate::cli::Global;
use crate::connect::{self, Client, OPERATION, QUERY, within};
use crate::error::{CommandError, Kind};
use crate::name;
use crate::ui::Ui;

/// Remove sandboxes with all that is in them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also if something runs in them; one that is not there is no error.
    #[arg(long, short)]
    force: bool,
    /// Do not wait until nothing is left.
    #[arg(long)]
    no_wait: bool,
    /// Ids or names.
    #[arg(required = true, value_name = "SANDBOX")]
    sandboxes: Vec<String>,
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    name::check(&args.sandboxes)?;
    let client = connect::client(global)?;
    let mut each = Each::default();
    for sandbox in &args.sandboxes {
        let result = remove(client.clone(), sandbox, &args).await;
        match each.take(ui, result) {
            Some(Removed::Now) if ui.json => ui.object(&json!({ "removed": sandbox }))?,
            Some(Removed::Now) => ui.line(sandbox)?,
            Some(Removed::WasNotThere) => ui.note(&format!("there was no sandbox {sandbox:?}")),
            None => {}
        }
    }
    Ok(each.exit_code())
}

/// What is written to stdout is what was removed, and nothing else.
enum Removed {
    Now,
    WasNotThere,
}

async fn remove(mut client: Client, sandbox: &str, args: &Args) -> Result<Removed, CommandError> {
    if !args.force {
        refuse_busy(client.clone(), sandbox).await?;
    }
    let request = DeleteSandboxRequest {
        sandbox: sandbox.to_owned(),
        wait: !args.no_wait,
        // Asked for as an error, it can be told apart from a removal.
        allow_missing: false,
    };
    match client.delete_sandbox(within(OPERATION, request)).await {
        Ok(_) => Ok(Removed::Now),
        Err(status) if args.force && status.code() == Code::NotFound => Ok(Removed::WasNotThere),
        Err(status) => Err(status.into()),
    }
}

/// A person's own work is not ended by a mistyped name.
async fn refuse_busy(mut client: Client, sandbox: &str) -> Result<(), CommandError> {
    let request = GetSandboxRequest {
        sandbox: sandbox.to_owned(),
    };
    let response = client.get_sandbox(within(QUERY, request)).await?;
    let found = response.into_inner().sandbox.unwrap_or_default();
    let anyway = format!("`cofferdam rm -f {sandbox}` ends and removes it");
    let several;
    let (what, hint) = match (found.running_executions, found.running_transfers) {
        (0, 0) => return Ok(()),
        (0, 1) => ("1 copy or forwarded connection is under way", anyway),
        (0, n) => {
            several = format!("{n} copies or forwarded connections are under way");
            (several.as_str(), anyway)
        }
        (n, _) => {
            let runs = if n == 1 {
                "execution runs"
            } else {
                "executions run"
            };
            let hint = format!("{anyway}, `cofferdam ps {sandbox}` shows what runs");
            several = format!("{n} {runs}");
            (several.as_str(), hint)
        }
    };
    Err(CommandError::new(Kind::Precondition, format!("{what} in {sandbox}")).hint(hint))
}
