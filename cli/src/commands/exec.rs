//! `cofferdam exec`: a command in a sandbox that exists. Also what `run` and `exec` share.

use std::ffi::OsString;

use bytes::Bytes;
use cofferdam_proto::gateway::v1::execution_request::Place;
use cofferdam_proto::gateway::v1::{CreateExecutionRequest, ExecutionRequest, StartExecution};

use super::{DONE, to_argv};
use crate::cli::Global;
use crate::connect::{self, Client, QUERY, within};
use crate::environment::{EnvironmentFlags, parse_pair};
use crate::error::CommandError;
use crate::name;
use crate::session::{Opening, Plan, ReconnectFlags, follow, idempotency_key, pty_like_ours};
use crate::ui::Ui;
use crate::units::{parse_size, parse_time_limit_ms};
use crate::view::execution::ExecutionView;

/// Run a command in a sandbox that exists.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id or name of the sandbox.
    sandbox: String,
    /// The command and its arguments.
    // Its own arguments may begin with a hyphen; a first word that does is a mistyped flag of ours.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
    /// User to run as: UID or UID:GID [default: the sandbox's].
    #[arg(long, short, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Label for finding it again.
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    execution: ExecutionFlags,
}

/// Flags of the command itself, the same for `run` and `exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExecutionFlags {
    /// Send stdin to the command, until its end.
    #[arg(long, short)]
    interactive: bool,
    /// Give the command a terminal; with -i, Ctrl-] d leaves it without ending it.
    #[arg(long, short)]
    tty: bool,
    /// Start it, write its id, and do not follow it.
    #[arg(long, short, conflicts_with_all = ["interactive", "tty"])]
    pub(crate) detach: bool,
    /// Working directory [default: the workspace].
    #[arg(long, short, value_name = "PATH")]
    workdir: Option<String>,
    /// End it after this long: 10s, 5m [default: the gateway's].
    #[arg(long, value_name = "DURATION", value_parser = parse_time_limit_ms)]
    timeout: Option<u64>,
    /// How much output the record keeps, half from the head and half from the tail [default: the
    /// gateway's].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    output_cap: Option<u64>,
    #[command(flatten)]
    reconnect: ReconnectFlags,
    #[command(flatten)]
    environment: EnvironmentFlags,
}

impl ExecutionFlags {
    /// What they ask the gateway for; the place is still missing.
    pub(crate) fn request(
        &self,
        argv: Vec<Bytes>,
        ui: &Ui,
    ) -> Result<ExecutionRequest, CommandError> {
        let pty = self
            .tty
            .then(|| pty_like_ours(self.interactive))
            .transpose()?;
        Ok(ExecutionRequest {
            place: None,
            argv,
            environment: self.environment.resolve(ui)?,
            cwd: self.workdir.clone().unwrap_or_default(),
            stdin: self.interactive,
            timeout_ms: self.timeout.unwrap_or_default(),
            output_cap_bytes: self.output_cap.unwrap_or_default(),
            // A session that one can leave must go on when one has left.
            detachable: self.detach || (self.tty && self.interactive),
            labels: Default::default(),
            user: String::new(),
            pty,
        })
    }
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    name::check([&args.sandbox])?;
    let mut request = args.execution.request(to_argv(args.command), ui)?;
    request.place = Some(Place::Sandbox(args.sandbox));
    request.user = args.user.unwrap_or_default();
    request.labels = args.label.into_iter().collect();
    let client = connect::client(global)?;
    execute(client, &args.execution, request, ui).await
}

/// Starts an execution, and follows it unless it is to go on by itself.
pub(crate) async fn execute(
    mut client: Client,
    flags: &ExecutionFlags,
    request: ExecutionRequest,
    ui: &Ui,
) -> Result<u8, CommandError> {
    let idempotency_key = idempotency_key()?;
    if flags.detach {
        let request = CreateExecutionRequest {
            execution: Some(request),
            idempotency_key,
        };
        let execution = client
            .create_execution(within(QUERY, request))
            .await?
            .into_inner()
            .execution
            .unwrap_or_default();
        if ui.json {
            ui.object(&ExecutionView::from(&execution))?;
        } else {
            ui.line(&execution.execution_id)?;
        }
        return Ok(DONE);
    }
    let plan = Plan {
        stdin: request.stdin,
        pty: request.pty.is_some(),
        reconnect_limit: flags.reconnect.limit(),
        opening: Opening::Start(Box::new(StartExecution {
            execution: Some(request),
            idempotency_key,
        })),
    };
    follow(client, plan, ui).await.report(ui)
}
