//! A live session with a supervisor.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cofferdam_proto::supervisor::v1 as wire;
use tokio::time::{sleep, timeout};
use wire::supervisor_client::SupervisorClient;

use super::hello::Proof;
use crate::transport::{Channel, KeepAlive};

/// Whether the other side is there at all is found out below the calls, where bulk that nobody reads
/// cannot get in the way. A machine may be busy for seconds.
pub(super) const KEEP_ALIVE: KeepAlive = KeepAlive {
    interval: Duration::from_secs(5),
    timeout: Duration::from_secs(15),
};
/// Between pings of a live session.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Pings without an answer for so long end a session although the other side is there: its calls
/// stand still, and a new session is better.
const STALL_MAX: Duration = Duration::from_secs(60);
/// For the first ping, after which a session counts.
const FIRST_PING_DEADLINE: Duration = Duration::from_secs(10);

/// An authenticated connection on which the supervisor serves. Cheap to clone; holding one does not
/// keep it alive.
#[derive(Debug, Clone)]
pub struct Session(Arc<SessionInner>);

#[derive(Debug)]
struct SessionInner {
    id: u64,
    boot_id: [u8; 16],
    supervisor_version: String,
    protocol: u32,
    processes: u32,
    counts_oom_kills: bool,
    channel: Channel,
}

/// A session's number, taken before its hello.
pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Session {
    pub(super) fn new(id: u64, proof: Proof, channel: Channel) -> Self {
        Self(Arc::new(SessionInner {
            id,
            boot_id: proof.boot_id,
            supervisor_version: proof.supervisor_version,
            protocol: proof.protocol,
            processes: proof.processes,
            counts_oom_kills: proof.counts_oom_kills,
            channel,
        }))
    }

    /// Counts the sessions of this gateway's process: no two have the same.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Another one under the same sandbox means that it was stopped and started.
    pub fn boot_id(&self) -> [u8; 16] {
        self.0.boot_id
    }

    /// As the supervisor says.
    pub fn supervisor_version(&self) -> &str {
        &self.0.supervisor_version
    }

    /// The session protocol in use.
    pub fn protocol(&self) -> u32 {
        self.0.protocol
    }

    /// How many processes the supervisor held at the hello.
    pub fn processes(&self) -> u32 {
        self.0.processes
    }

    /// With each end of a process it says how often the kernel killed meanwhile for want of memory.
    pub fn counts_oom_kills(&self) -> bool {
        self.0.counts_oom_kills
    }

    /// A client on this session. Its calls fail once the session is closed; set a deadline on each.
    pub fn client(&self) -> SupervisorClient<Channel> {
        SupervisorClient::new(self.0.channel.clone())
    }

    /// No call can succeed any more.
    pub fn is_closed(&self) -> bool {
        self.0.channel.is_closed()
    }

    /// Completes when the session has ended, for whatever reason.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.0.channel.closed()
    }

    /// Why it ended, for people.
    pub fn end_reason(&self) -> String {
        self.0.channel.end_reason()
    }

    /// Ends it.
    pub(super) fn cut(&self) {
        self.0.channel.cut();
    }

    /// The first call: proves that the supervisor serves, and tells it that the gateway has stored
    /// the next token.
    pub(super) async fn first_ping(&self) -> bool {
        self.ping(FIRST_PING_DEADLINE).await
    }

    /// Pings until it has ended, and ends it when its calls stand still.
    pub(super) async fn watch(&self) {
        let stalled = async {
            while self.ping(STALL_MAX).await {
                sleep(PING_INTERVAL).await;
            }
        };
        tokio::select! {
            () = self.closed() => {}
            () = stalled => {
                tracing::warn!(session.id = self.id(), "the supervisor does not answer calls");
                self.cut();
                self.closed().await;
            }
        }
    }

    async fn ping(&self, deadline: Duration) -> bool {
        let mut request = tonic::Request::new(wire::PingRequest {});
        request.set_timeout(deadline);
        matches!(
            timeout(deadline, self.client().ping(request)).await,
            Ok(Ok(_))
        )
    }
}
