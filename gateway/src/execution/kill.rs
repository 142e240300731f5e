//! Ending a process tree: by its supervisor, and if that does not answer by the sandbox's driver.

use std::time::Duration;

use cofferdam_proto::supervisor::v1 as wire;
use tracing::{info, warn};

use super::runner::Runner;
use crate::callback::Session;
use crate::model::{Ending, ExecutionId, SandboxState};
use crate::sandbox::Sandbox;

/// Of a process of which it is not known whether it was started.
const UNCONFIRMED_KILL: Duration = Duration::from_secs(5);

/// True: nothing of it is left. Otherwise that is not known.
pub(super) async fn kill_process(
    session: &Session,
    id: &ExecutionId,
    grace: Duration,
    deadline: Duration,
) -> bool {
    let request = wire::KillProcessRequest {
        process_id: id.to_string(),
        grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
    };
    let mut client = session.client();
    match tokio::time::timeout(deadline, client.kill_process(request)).await {
        Ok(Ok(_)) => return true,
        // It was never started, or is forgotten because it has ended.
        Ok(Err(status)) if status.code() == tonic::Code::NotFound => return true,
        // A new session sends it again.
        Ok(Err(status)) => warn!(execution.id = %id, %status, "kill was not carried out"),
        Err(_) => warn!(execution.id = %id, "kill was not answered"),
    }
    false
}

impl Runner {
    /// The start may have reached the supervisor: its answer is not known.
    pub(super) async fn kill_unconfirmed(&mut self, session: &Session) {
        self.may_have_begun = true;
        let killed = kill_process(session, &self.facts.id, Duration::ZERO, UNCONFIRMED_KILL);
        self.tree_is_dead = killed.await;
    }

    /// A kill that nobody has confirmed: whatever runs in the sandbox goes on. Then its driver ends
    /// it with everything that is in it. Returns as soon as that is on record.
    pub(super) async fn end_what_lives(&self, sandbox: &Sandbox, mut ending: Ending) -> Ending {
        let lives = self.kill.is_some() && self.has_begun() && !self.tree_is_dead;
        let state = sandbox.view().facts.state;
        let is_there = !matches!(
            state,
            SandboxState::Stopped | SandboxState::Deleting | SandboxState::Deleted
        );
        // One for a single execution is removed in any case.
        if !lives || !is_there || self.facts.one_shot {
            return ending;
        }
        warn!(execution.id = %self.facts.id, "the process tree did not end after a kill");
        let end = match self.can_stop() {
            true => sandbox.stop(Duration::ZERO).await.map(|()| "stopped"),
            false => {
                let message = format!("what {} had started could not be ended", self.facts.id);
                let deleted = sandbox.delete("EXECUTION_NOT_ENDED", message).await;
                deleted.map(|()| "deleted")
            }
        };
        let what = match end {
            Ok(what) => format!("its sandbox is {what}"),
            Err(error) => {
                info!(sandbox.id = %sandbox.id(), %error, "it cannot be ended");
                format!("its sandbox could not be stopped: {error}")
            }
        };
        let more = format!("; its processes could not be ended in time: {what}");
        ending.message.push_str(&more);
        ending
    }

    fn can_stop(&self) -> bool {
        let driver = self.shared.drivers.get(&self.facts.driver);
        let can = driver.and_then(|driver| driver.view().capabilities.clone());
        can.is_none_or(|can| can.stop_start)
    }
}
