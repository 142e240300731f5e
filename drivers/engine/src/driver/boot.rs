//! One start of a container: its supervisor is told who it is.
//!
//! The bootstrap holds the token, so it is in no argument, environment, label or file: it is the
//! first line of the container's stdin, written by an attached connection before the start and read
//! by the supervisor alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_driver_sdk::supervisor::{Bootstrap, OOM_SCORE_ADJ, Token, Workload};
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;

use super::EngineDriver;
use crate::client::{Engine, EngineError, Kind};
use crate::flavor::Flavor;
use crate::labels::Record;
use crate::plan::{USER, WORKSPACE_DEFAULT};
use crate::relay;
use crate::sandbox::Tracked;

/// Between two attempts at a boot that the engine has undone; doubles.
const AGAIN_MIN: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(8);

impl<F: Flavor> EngineDriver<F> {
    /// Starts a container that has run before. An engine may still be putting its last boot away, and
    /// with it what was made ready for this one: then it is made ready again.
    pub(super) async fn boot_again(
        &self,
        engine: &Engine,
        tracked: &Arc<Tracked>,
        container: &str,
        token: Token,
        callback: &Path,
    ) -> Result<(), EngineError> {
        let mut pause = AGAIN_MIN;
        loop {
            let booted = self
                .boot(engine, tracked, container, token.clone(), callback)
                .await;
            let Err(failed) = booted else { return Ok(()) };
            let is_undone = matches!(failed.kind, Kind::Server | Kind::Conflict);
            if !F::PUTS_AWAY_LATE || !is_undone || pause > AGAIN_MAX {
                return Err(failed);
            }
            tracing::info!(container, error = failed.chain(), "booted again");
            engine.stop_container(container).await?;
            // Until what puts that away has come and gone.
            sleep(pause).await;
            pause *= 2;
        }
    }

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
        let told = self.process(engine, container).await?;
        engine.start_container(container).await?;
        let started = self.process(engine, container).await?;
        // Zero: it has ended, which is for others to see.
        if started != told && started != Some(0) {
            return Err(EngineError::new(
                "start container",
                container,
                Kind::Conflict,
                "the engine has started another process than the one that was told who it is",
            ));
        }
        if is_relayed {
            relay::begin(&self.0.context, engine, tracked, attached, callback);
        }
        Ok(())
    }

    /// The process that is, or will be, a container's first; none where that cannot be another one.
    async fn process(&self, engine: &Engine, container: &str) -> Result<Option<i64>, EngineError> {
        if !F::PUTS_AWAY_LATE {
            return Ok(None);
        }
        let seen = engine.inspect_container(container).await?;
        Ok(Some(seen.state.pid))
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
