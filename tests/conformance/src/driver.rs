//! The gateway's end of a connection to the driver: every call with a deadline, every answer looked
//! at by the recorder.

mod calls;
mod narrow;
mod stream;

use std::time::Duration;

use cofferdam_gateway::driver::convert::struct_to_wire;
use cofferdam_gateway::transport::{self, Channel, ChannelOptions};
use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::compute_driver_client::ComputeDriverClient;
use prost::Message;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request, Response, Status};

use crate::answer::{How, Refused};
use crate::case::Stop;
use crate::suite::Suite;

pub(crate) use stream::Answers;

pub(crate) type Client = ComputeDriverClient<Channel>;

/// Revisions of the contract that this suite speaks.
pub(crate) const CONTRACT: wire::VersionRange = wire::VersionRange { min: 1, max: 1 };

/// Beyond its deadline a call is not waited for longer than this.
pub(crate) const ANSWER_MARGIN: Duration = Duration::from_secs(3);

/// Of streams that go on: longer than any case.
const STREAM_DEADLINE: Duration = Duration::from_secs(3600);

/// As the contract has gateways do after ABORTED.
const ABORTED_PAUSE: Duration = Duration::from_millis(100);

/// A call can learn of the end of its connection a moment before the connection does.
const CUT_NOTICE: Duration = Duration::from_millis(100);

/// What a driver said about itself.
#[derive(Debug, Clone)]
pub(crate) struct Greeting {
    pub(crate) handshake: wire::HandshakeResponse,
    /// Of Configure, once that was called; they are what counts.
    pub(crate) capabilities: wire::Capabilities,
}

/// One connection.
#[derive(Debug, Clone)]
pub(crate) struct Driver {
    suite: Suite,
    channel: Channel,
    /// Of a call, and until a stream's first message.
    deadline: Duration,
    /// Of a whole stream.
    stream_deadline: Duration,
    /// Whether ABORTED is answered as a gateway does: by calling again.
    patient: bool,
    incarnation: String,
    gateway_id: String,
}

impl Driver {
    pub(super) fn suite(&self) -> &Suite {
        &self.suite
    }

    /// Connects, and says nothing.
    pub(crate) async fn connect(suite: Suite) -> Result<Self, Stop> {
        let socket = suite.socket();
        let problem = |error: &dyn std::fmt::Display| {
            Stop::failed(format!("cannot connect to {}: {error}", socket.display()))
                .with_fix("start the driver; if it ran before, see its own log for why it ended")
        };
        let stream = match timeout(suite.patience(), transport::connect(&socket)).await {
            Ok(stream) => stream.map_err(|error| problem(&error))?,
            Err(_) => return Err(problem(&"nobody accepts the connection")),
        };
        let options = ChannelOptions {
            keep_alive: None,
            tasks: suite.tasks(),
            cancel: suite.cancel().child_token(),
        };
        let channel = Channel::open(stream, options).await;
        Ok(Self {
            deadline: suite.patience(),
            stream_deadline: STREAM_DEADLINE,
            channel: channel.map_err(|error| problem(&error))?,
            suite,
            patient: true,
            incarnation: String::new(),
            gateway_id: String::new(),
        })
    }

    pub(crate) fn hello(&self, gateway_id: &str) -> wire::HandshakeRequest {
        let supervisor = self.suite.supervisor();
        wire::HandshakeRequest {
            contract: Some(CONTRACT),
            gateway_id: gateway_id.to_owned(),
            gateway_version: env!("CARGO_PKG_VERSION").to_owned(),
            supervisor: Some(wire::Supervisor {
                path: supervisor.path.to_string_lossy().into_owned(),
                sha256: supervisor.sha256.to_vec().into(),
                version: supervisor.version.clone(),
                architecture: supervisor.architecture.clone(),
            }),
        }
    }

    pub(crate) async fn shake_hands_as(mut self, gateway_id: &str) -> Result<Self, Stop> {
        let handshake = self.handshake(self.hello(gateway_id)).await?;
        self.incarnation.clone_from(&handshake.incarnation);
        gateway_id.clone_into(&mut self.gateway_id);
        self.suite.set_greeting(Greeting {
            capabilities: handshake.capabilities.clone().unwrap_or_default(),
            handshake,
        });
        Ok(self)
    }

    pub(crate) async fn configure(&self, settings: &Map<String, Value>) -> Result<(), Stop> {
        let request = wire::ConfigureRequest {
            settings: Some(struct_to_wire(settings)),
        };
        let answer = self.configure_with(request).await.map_err(|refused| {
            Stop::from(refused).with_fix(
                "correct [settings] in the file of --config, which the driver has to accept",
            )
        })?;
        if let (Some(capabilities), Some(greeting)) = (answer.capabilities, self.suite.greeting()) {
            self.suite.set_greeting(Greeting {
                capabilities,
                ..greeting
            });
        }
        Ok(())
    }

    /// Whose connection it is.
    pub(crate) fn gateway_id(&self) -> &str {
        &self.gateway_id
    }

    /// Of this connection's handshake.
    pub(crate) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// The same connection, for calls and streams that have so much time.
    pub(crate) fn within(&self, deadline: Duration) -> Self {
        Self {
            deadline,
            stream_deadline: deadline,
            ..self.clone()
        }
    }

    /// The same connection, for calls that take ABORTED as an answer.
    pub(crate) fn once(&self) -> Self {
        Self {
            patient: false,
            ..self.clone()
        }
    }

    /// Ends the connection, as a gateway's death does.
    pub(crate) async fn hang_up(self) {
        self.channel.cut();
        self.channel.closed().await;
    }

    pub(crate) fn client(&self) -> Client {
        ComputeDriverClient::new(self.channel.clone())
    }

    /// A call of the suite's own making, on the bare connection.
    pub(crate) async fn custom<M, R, F>(
        &self,
        rpc: &'static str,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<R, Refused>
    where
        M: Clone,
        R: Message,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let send = |_: Client, request| send(self.channel.clone(), request);
        self.call(rpc, message, send).await
    }

    /// Calls, and calls again after ABORTED as long as there is time.
    pub(super) async fn call<M, R, F>(
        &self,
        rpc: &'static str,
        message: M,
        send: impl Fn(Client, Request<M>) -> F,
    ) -> Result<R, Refused>
    where
        M: Clone,
        R: Message,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let end = Instant::now() + self.deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let request = timed(message.clone(), left);
            let refused = match self.attempt(rpc, request, &send, left).await {
                Ok(answer) => {
                    self.suite.recorder().answer(rpc, &answer);
                    return Ok(answer);
                }
                Err(refused) => refused,
            };
            let again = self.patient && refused.code() == Some(Code::Aborted);
            if !again || Instant::now() + ABORTED_PAUSE >= end {
                return Err(refused);
            }
            sleep(ABORTED_PAUSE).await;
        }
    }

    pub(super) async fn attempt<M, R, F>(
        &self,
        rpc: &'static str,
        request: Request<M>,
        send: &impl Fn(Client, Request<M>) -> F,
        left: Duration,
    ) -> Result<R, Refused>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.suite.step(format!("waiting for the answer to {rpc}"));
        match timeout(left + ANSWER_MARGIN, send(self.client(), request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refused(rpc, status).await),
            Err(_) => Err(Refused {
                rpc,
                how: How::Silent(left + ANSWER_MARGIN),
            }),
        }
    }

    /// A status of the driver, or the end of the connection.
    pub(super) async fn refused(&self, rpc: &'static str, status: Status) -> Refused {
        // A status that came over the wire has no source.
        let is_ours = std::error::Error::source(&status).is_some();
        if is_ours && timeout(CUT_NOTICE, self.channel.closed()).await.is_ok() {
            let reason = self.channel.end_reason();
            return Refused {
                rpc,
                how: How::Cut(reason),
            };
        }
        self.suite.recorder().status(rpc, &status);
        Refused {
            rpc,
            how: How::Status(Box::new(status)),
        }
    }
}

/// A request with this deadline.
fn timed<M>(message: M, deadline: Duration) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}
