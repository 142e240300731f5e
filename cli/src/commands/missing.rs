//! An execution was asked for, and there is none of this id: perhaps a sandbox was meant.

use cofferdam_proto::gateway::v1::{GetSandboxRequest, ListExecutionsRequest};
use tonic::{Code, Status};

use crate::connect::{Client, QUERY, within};
use crate::error::CommandError;

/// The error for what the gateway has answered, with a better hint where there is one.
pub(super) async fn execution(client: Client, id: &str, status: Status) -> CommandError {
    let is_missing = status.code() == Code::NotFound;
    let error = CommandError::from(status);
    if !is_missing {
        return error;
    }
    match newest_in(client, id).await {
        // What is missing is known; that nobody can say more about it is no other error.
        Err(_) => error,
        Ok(newest) => error.hint(match newest {
            Some(newest) => format!(
                "{id} is a sandbox; its newest execution is {newest}, and `cofferdam ps -a {id}` \
                 lists all"
            ),
            None => format!("{id} is a sandbox, in which nothing was executed yet"),
        }),
    }
}

/// The newest execution of a sandbox, if there is such a sandbox.
async fn newest_in(mut client: Client, sandbox: &str) -> Result<Option<String>, Status> {
    let request = GetSandboxRequest {
        sandbox: sandbox.to_owned(),
    };
    client.get_sandbox(within(QUERY, request)).await?;
    let request = ListExecutionsRequest {
        sandbox: sandbox.to_owned(),
        page_size: 1,
        ..Default::default()
    };
    let page = client.list_executions(within(QUERY, request)).await?;
    let newest = page.into_inner().executions.into_iter().next();
    Ok(newest.map(|execution| execution.execution_id))
}
