//! One start of a container: its supervisor is told who it is.
//!
//! The bootstrap holds the token, so it is in no argument, environment, label or file: it is the
//! first line of the container's stdin, written by an attached connection before the start and read
//! by the supervisor alone.

use std::path::Path;
use std::sync::Arc;

use cofferdam_driver_sdk::supervisor::{Bootstrap, OOM_SCORE_ADJ, Token, Workload};
use tokio::io::AsyncWriteExt as _;

use super::EngineDriver;
use crate::client::{Engine, EngineError};
use crate::flavor::Flavor;
use crate::labels::Record;
use crate::plan::{USER, WORKSPACE_DEFAULT};
use crate::relay;
use crate::sandbox::Tracked;

impl<F: Flavor> EngineDriver<F> {
    /// Starts a container that does not run, and its relay if it needs one.
    pub(super) async fn boot(
        &self,
        engine: &Engine,
        tracked: &Arc<Tracked>,
        container: &str,
        token: Token,
        callback: &Path,
    ) -> Result<(), EngineError> {
        let record = tracked.record();
        let is_relayed = relay::is_for(&record);
        let mut attached = engine.attach(container, is_relayed).await?;
        let failed = |error: std::io::Error| {
            EngineError::transport("attach to container", container, error.into())
        };
        {
            let mut line = bootstrap(&record, token).to_json();
            line.push('\n');
            attached.write_all(line.as_bytes()).await.map_err(failed)?;
            attached.flush().await.map_err(failed)?;
        }
        if !is_relayed {
            attached.shutdown().await.map_err(failed)?;
        }
        engine.start_container(container).await?;
        if is_relayed {
            relay::begin(&self.0.context, engine, tracked, attached, callback);
        }
        Ok(())
    }
}

fn bootstrap(record: &Record, token: Token) -> Bootstrap {
    let workspace = match record.workspace.as_str() {
        "" => WORKSPACE_DEFAULT,
        path => path,
    };
    Bootstrap {
        sandbox_id: record.sandbox_id.clone(),
        token,
        expire_time_unix_ms: record.expire_time_unix_ms,
        workload: Workload {
            uid: record.uid,
            gid: record.gid,
            home: workspace.to_owned(),
            user: USER.to_owned(),
        },
        workspace: workspace.to_owned(),
        oom_score_adj: OOM_SCORE_ADJ,
        environment: record.environment.clone(),
    }
}
