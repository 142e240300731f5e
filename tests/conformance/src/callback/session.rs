//! A session with a supervisor.

use std::time::Duration;

use cofferdam_gateway::transport::Channel;
use cofferdam_proto::hello::BOOT_ID_BYTES;
use cofferdam_proto::supervisor::v1::supervisor_client::SupervisorClient;
use cofferdam_proto::supervisor::v1::{
    ConfigureRequest, PingRequest, PingResponse, ShutdownRequest,
};
use rustix::process::Pid;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::case::Stop;

pub(crate) type SupervisorCalls = SupervisorClient<Channel>;

/// More than a Ping takes on a busy machine.
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// A session. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    boot_id: [u8; BOOT_ID_BYTES],
    version: String,
    /// Who has connected, where that is a process of this host.
    peer: Option<Pid>,
    channel: Channel,
    /// It was cut here, so it is over, though its end takes a moment.
    is_cut: CancellationToken,
}

impl Session {
    pub(super) fn new(
        boot_id: [u8; BOOT_ID_BYTES],
        version: String,
        peer: Option<Pid>,
        channel: Channel,
    ) -> Self {
        Self {
            boot_id,
            version,
            peer,
            channel,
            is_cut: CancellationToken::new(),
        }
    }

    /// Another one means that the sandbox was started anew.
    pub(crate) fn boot_id(&self) -> [u8; BOOT_ID_BYTES] {
        self.boot_id
    }

    /// Of the supervisor.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The process that has connected: the supervisor itself, or who relays for it.
    pub(crate) fn peer(&self) -> Option<Pid> {
        self.peer
    }

    pub(crate) fn client(&self) -> SupervisorCalls {
        SupervisorClient::new(self.channel.clone()).max_decoding_message_size(16 << 20)
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.is_cut.is_cancelled() && !self.channel.is_closed()
    }

    /// Ends the stream; the supervisor calls again.
    pub(crate) fn cut(&self) {
        self.is_cut.cancel();
        self.channel.cut();
    }

    /// Whether the stream ends within so much time.
    pub(crate) async fn ends_within(&self, patience: Duration) -> bool {
        timeout(patience, self.channel.closed()).await.is_ok()
    }

    pub(crate) async fn ping(&self) -> Result<PingResponse, Status> {
        match timeout(
            PING_PATIENCE,
            self.client().ping(Request::new(PingRequest {})),
        )
        .await
        {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("the supervisor did not answer")),
        }
    }

    /// It must answer.
    pub(crate) async fn must_answer(&self) -> Result<(), Stop> {
        self.ping().await.map(|_| ()).map_err(|status| {
            Stop::failed(format!("the supervisor did not answer a Ping: {status}"))
        })
    }

    /// Sets when the supervisor ends itself, whatever the driver told it.
    pub(crate) async fn set_expire_time(&self, expire_time_unix_ms: u64) -> Result<(), Stop> {
        let request = ConfigureRequest {
            expire_time_unix_ms,
            ..ConfigureRequest::default()
        };
        let configured = timeout(PING_PATIENCE, self.client().configure(request)).await;
        match configured {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(Stop::failed(format!(
                "the supervisor's Configure: {status}"
            ))),
            Err(_) => Err(Stop::failed("the supervisor did not answer Configure")),
        }
    }

    /// Asks the supervisor to end itself.
    pub(crate) async fn shut_down(&self) -> Result<(), Stop> {
        let request = ShutdownRequest { grace_ms: 0 };
        match timeout(PING_PATIENCE, self.client().shutdown(request)).await {
            // It may be gone before its answer is.
            Ok(_) => Ok(()),
            Err(_) => Err(Stop::failed("the supervisor did not answer Shutdown")),
        }
    }
}
