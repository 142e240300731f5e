//! `cofferdam version`: of this command, and of the gateway if one runs.

use cofferdam_proto::gateway::v1::{GetInfoRequest, GetInfoResponse};
use serde_json::json;

use super::DONE;
use crate::cli::Global;
use crate::connect::{self, QUERY, within};
use crate::error::CommandError;
use crate::render::Block;
use crate::ui::Ui;

/// Show the versions of this command and of the gateway.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

const OWN: &str = env!("CARGO_PKG_VERSION");

pub(crate) async fn run(_: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    let info = match connect::find(global) {
        Ok(found) => {
            let path = found.path.clone();
            Some((path, info(connect::open(found)?).await?))
        }
        // Asked for by name, it has to be there.
        Err(looked) if global.named_gateway().is_some() => {
            return Err(connect::no_gateway(&looked));
        }
        Err(_) => None,
    };
    if ui.json {
        ui.object(&json!({
            "client": OWN,
            "gateway": info.as_ref().map(|(path, info)| json!({
                "socket": path,
                "version": info.version,
                "gateway_id": info.gateway_id,
                "ready": info.ready,
                "draining": info.draining,
                "default_driver": info.default_driver,
                "start_time_unix_ms": info.start_time_unix_ms,
                "caller_uid": info.caller_uid,
            })),
        }))?;
        return Ok(DONE);
    }
    let mut block = Block::default();
    block.add("client", OWN);
    match info {
        Some((path, info)) => {
            block.add("gateway", format!("{} at {}", info.version, path.display()))
        }
        None => block.add("gateway", "none runs"),
    };
    ui.out(&block.render(ui))?;
    Ok(DONE)
}

pub(super) async fn info(mut client: connect::Client) -> Result<GetInfoResponse, CommandError> {
    Ok(client
        .get_info(within(QUERY, GetInfoRequest {}))
        .await?
        .into_inner())
}
