//! Who is calling, and whose objects may he see?

use tonic::Request;
use tonic::transport::server::UdsConnectInfo;

use super::status::ApiError;
use crate::execution::Executions;
use crate::model::{ExecutionFacts, ExecutionId};
use crate::sandbox::{Sandbox, Sandboxes};

/// Of ids and names.
const ID_BYTES_MAX: usize = 63;

/// A caller, as the kernel knows him.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) uid: u32,
    all: bool,
}

impl Caller {
    /// From the socket's peer credentials.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, ApiError> {
        let peer = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|info| info.peer_cred);
        let Some(peer) = peer else {
            return Err(ApiError::new(
                tonic::Code::Unauthenticated,
                "NO_PEER_CREDENTIALS",
                "the kernel does not say who is calling",
            ));
        };
        Ok(Self::with_uid(peer.uid()))
    }

    fn with_uid(uid: u32) -> Self {
        let own = rustix::process::geteuid().as_raw();
        Self {
            uid,
            all: uid == 0 || uid == own,
        }
    }

    /// Root and the gateway's own user see everything, others their own.
    pub(super) fn sees(self, owner_uid: u32) -> bool {
        self.all || self.uid == owner_uid
    }

    /// What a caller may not see does not exist for him.
    pub(super) fn sandbox(self, all: &Sandboxes, name: &str) -> Result<Sandbox, ApiError> {
        if name.is_empty() {
            return Err(ApiError::field(
                "sandbox",
                "give the id or name of a sandbox",
            ));
        }
        // No sandbox can have it, and no list of those that exist is of help.
        if name.len() > ID_BYTES_MAX {
            let message = format!(
                "an id or name of a sandbox has at most {ID_BYTES_MAX} characters, not {}",
                name.len()
            );
            return Err(ApiError::field("sandbox", message));
        }
        all.find(name)
            .filter(|sandbox| self.sees(sandbox.view().facts.owner_uid))
            .ok_or_else(|| ApiError::no_sandbox(name))
    }

    pub(super) async fn execution(
        self,
        all: &Executions,
        text: &str,
    ) -> Result<(ExecutionId, std::sync::Arc<ExecutionFacts>), ApiError> {
        if text.len() > ID_BYTES_MAX {
            let message = format!(
                "an execution's id has at most {ID_BYTES_MAX} characters, not {}",
                text.len()
            );
            return Err(ApiError::field("execution_id", message));
        }
        let missing = || ApiError::no_execution(text);
        let id = ExecutionId::parse(text).map_err(|_| missing())?;
        let facts = all.facts(&id).await?.ok_or_else(missing)?;
        if !self.sees(facts.owner_uid) {
            return Err(missing());
        }
        Ok((id, facts))
    }

    /// The owner to restrict a listing to.
    pub(super) fn owner_filter(self) -> Option<u32> {
        (!self.all).then_some(self.uid)
    }
}
