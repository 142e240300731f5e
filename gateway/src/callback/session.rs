//! A live session with a supervisor.

use std::future::Future;
use std::sync::Arc;

use cofferdam_proto::supervisor::v1::supervisor_client::SupervisorClient;

use crate::transport::Channel;

/// An authenticated connection on which the supervisor serves. Cheap to clone; holding one does not
/// keep it alive.
#[derive(Debug, Clone)]
pub struct Session(Arc<SessionInner>);

#[derive(Debug)]
struct SessionInner {}

impl Session {
    /// Counts the sessions of this gateway's process: two sessions never have the same.
    pub fn id(&self) -> u64 {
        todo!()
    }

    /// Another one under the same sandbox means that it was stopped and started.
    pub fn boot_id(&self) -> [u8; 16] {
        todo!()
    }

    pub fn supervisor_version(&self) -> &str {
        todo!()
    }

    /// The session protocol in use.
    pub fn protocol(&self) -> u32 {
        todo!()
    }

    /// How many processes the supervisor held at the hello.
    pub fn processes(&self) -> u32 {
        todo!()
    }

    /// A client on this session. Its calls fail once the session is closed; set a deadline on each.
    pub fn client(&self) -> SupervisorClient<Channel> {
        todo!()
    }

    pub fn is_closed(&self) -> bool {
        todo!()
    }

    /// Completes when the session has ended, for whatever reason.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        async { todo!() }
    }
}
