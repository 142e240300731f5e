//! Tunnels: both directions, each with its own end.

use bytes::Bytes;
use cofferdam_proto::supervisor::v1::tunnel_request::Part as RequestPart;
use cofferdam_proto::supervisor::v1::tunnel_response::Part;
use cofferdam_proto::supervisor::v1::tunnel_target::Target;
use cofferdam_proto::supervisor::v1::{TunnelRequest, TunnelResponse, TunnelTarget};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::gateway::{Client, soon};
use crate::sandbox::Sandbox;

struct Tunnel {
    requests: mpsc::Sender<TunnelRequest>,
    responses: Streaming<TunnelResponse>,
}

impl Tunnel {
    async fn open(client: &Client, target: Target) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(4);
        let open = RequestPart::Open(TunnelTarget {
            target: Some(target),
        });
        requests
            .send(TunnelRequest { part: Some(open) })
            .await
            .expect("there is room");
        let response = soon(client.clone().tunnel(ReceiverStream::new(receiver))).await?;
        let mut responses = response.into_inner();
        let first = soon(responses.message())
            .await?
            .and_then(|response| response.part);
        assert!(matches!(first, Some(Part::Opened(_))));
        Ok(Self {
            requests,
            responses,
        })
    }

    async fn send(&self, data: &[u8]) {
        let data = RequestPart::Data(Bytes::copy_from_slice(data));
        let sent = self.requests.send(TunnelRequest { part: Some(data) });
        soon(sent).await.expect("sent");
    }

    /// `None` at the end of the call; empty at the end of the target's half.
    async fn receive(&mut self) -> Result<Option<Bytes>, Status> {
        match soon(self.responses.message())
            .await?
            .and_then(|response| response.part)
        {
            Some(Part::Data(data)) => Ok(Some(data)),
            Some(Part::Opened(_)) => panic!("opened twice"),
            None => Ok(None),
        }
    }
}

async fn listener() -> (TcpListener, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    (listener, Target::Port(port.into()))
}

async fn accept(listener: &TcpListener) -> TcpStream {
    soon(listener.accept()).await.expect("accepted").0
}

#[tokio::test]
async fn the_callers_half_ends_first() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let (listener, target) = listener().await;
    let mut tunnel = Tunnel::open(&client, target).await.expect("opened");
    let mut stream = accept(&listener).await;
    tunnel.send(b"question").await;
    let Tunnel {
        requests,
        responses,
    } = tunnel;
    drop(requests);
    let mut question = Vec::new();
    soon(stream.read_to_end(&mut question))
        .await
        .expect("to its end");
    assert_eq!(question, b"question");
    stream.write_all(b"answer").await.expect("still open");
    drop(stream);
    let (requests, _) = mpsc::channel(1);
    tunnel = Tunnel {
        requests,
        responses,
    };
    assert_eq!(
        tunnel.receive().await.expect("goes on"),
        Some(Bytes::from_static(b"answer"))
    );
    assert_eq!(tunnel.receive().await.expect("goes on"), Some(Bytes::new()));
    assert_eq!(tunnel.receive().await.expect("ends well"), None);
}

#[tokio::test]
async fn the_targets_half_ends_first() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let (listener, target) = listener().await;
    let mut tunnel = Tunnel::open(&client, target).await.expect("opened");
    let mut stream = accept(&listener).await;
    stream.write_all(b"greeting").await.expect("written");
    stream.shutdown().await.expect("shut down");
    assert_eq!(
        tunnel.receive().await.expect("goes on"),
        Some(Bytes::from_static(b"greeting"))
    );
    assert_eq!(tunnel.receive().await.expect("goes on"), Some(Bytes::new()));
    tunnel.send(b"late").await;
    let Tunnel {
        requests,
        mut responses,
    } = tunnel;
    drop(requests);
    let mut late = Vec::new();
    soon(stream.read_to_end(&mut late))
        .await
        .expect("to its end");
    assert_eq!(late, b"late");
    assert!(
        soon(responses.message())
            .await
            .expect("ends well")
            .is_none()
    );
}

#[tokio::test]
async fn a_unix_socket_is_reached_by_its_path() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let path = sandbox.workspace().join("service.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&path, open).expect("set");
    let target = Target::UnixPath("service.sock".into());
    let mut tunnel = Tunnel::open(&client, target).await.expect("opened");
    let (mut stream, _) = soon(listener.accept()).await.expect("accepted");
    tunnel.send(b"ping").await;
    let mut four = [0; 4];
    soon(stream.read_exact(&mut four)).await.expect("read");
    stream.write_all(&four).await.expect("written");
    assert_eq!(
        tunnel.receive().await.expect("goes on"),
        Some(Bytes::from_static(b"ping"))
    );
}

#[tokio::test]
async fn where_nobody_listens_there_is_no_tunnel() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let (listener, target) = listener().await;
    drop(listener);
    let refused = async |target| {
        Tunnel::open(&client, target)
            .await
            .err()
            .expect("refused")
            .code()
    };
    assert_eq!(refused(target).await, Code::Unavailable);
    assert_eq!(refused(Target::Port(0)).await, Code::InvalidArgument);
    assert_eq!(refused(Target::Port(70_000)).await, Code::InvalidArgument);
    std::fs::write(sandbox.workspace().join("file"), "").expect("written");
    crate::sandbox::give(&sandbox.workspace());
    assert_eq!(
        refused(Target::UnixPath("file".into())).await,
        Code::Unavailable
    );
    assert_eq!(
        refused(Target::UnixPath("no/such".into())).await,
        Code::NotFound
    );
}

#[tokio::test]
async fn much_goes_through_both_ways_at_once() {
    const TOTAL: usize = 8_000_000;
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    let (listener, target) = listener().await;
    let mut tunnel = Tunnel::open(&client, target).await.expect("opened");
    let echo = tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        let (mut reading, mut writing) = stream.split();
        tokio::io::copy(&mut reading, &mut writing)
            .await
            .expect("copied")
    });
    let data: Vec<u8> = (0..TOTAL as u32).map(|n| (n ^ (n >> 9)) as u8).collect();
    let sending = {
        let (requests, data) = (tunnel.requests.clone(), data.clone());
        tokio::spawn(async move {
            for piece in data.chunks(60_000) {
                let part = Some(RequestPart::Data(Bytes::copy_from_slice(piece)));
                requests.send(TunnelRequest { part }).await.expect("sent");
            }
        })
    };
    let mut back = Vec::new();
    while back.len() < TOTAL {
        back.extend_from_slice(&tunnel.receive().await.expect("goes on").expect("more"));
    }
    assert!(back == data);
    sending.await.expect("sent");
    drop(tunnel);
    assert_eq!(soon(echo).await.expect("no panic"), TOTAL as u64);
}
