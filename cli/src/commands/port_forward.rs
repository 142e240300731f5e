//! `cofferdam port-forward`: local ports that lead to ports in a sandbox.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use cofferdam_proto::gateway::v1::{
    ForwardOpen, ForwardRequest, ForwardResponse, GetSandboxRequest, forward_request,
    forward_response,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::DONE;
use crate::cli::Global;
use crate::connect::{self, Client, QUERY, within};
use crate::error::CommandError;
use crate::name;
use crate::ui::Ui;

/// Connections at a time: each holds a stream open, and has its windows.
const CONNECTIONS_MAX: usize = 128;
const CHUNK_BYTES: usize = 64 << 10;
const QUEUE_CHUNKS: usize = 4;

/// Make ports of a sandbox reachable on 127.0.0.1, until it is interrupted.
///
/// LOCAL:REMOTE; without LOCAL the same number; 0 as LOCAL picks a free one. Each forward is
/// written to stdout when it is ready: "127.0.0.1:8080 -> 80".
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id or name.
    sandbox: String,
    /// Ports.
    #[arg(required = true, value_name = "[LOCAL:]REMOTE", value_parser = Ports::parse)]
    ports: Vec<Ports>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    local: u16,
    remote: u16,
}

impl Ports {
    fn parse(text: &str) -> Result<Self, String> {
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        match (local.parse(), remote.parse()) {
            (Ok(local), Ok(remote)) if remote > 0 => Ok(Self { local, remote }),
            _ => Err(format!(
                "{text:?} is not [LOCAL:]REMOTE with ports up to 65535"
            )),
        }
    }
}

pub(crate) async fn run(args: Args, global: &Global, ui: &Ui) -> Result<u8, CommandError> {
    name::check([&args.sandbox])?;
    let mut client = connect::client(global)?;
    // A sandbox that is not there is told now, not at the first connection.
    let request = GetSandboxRequest {
        sandbox: args.sandbox.clone(),
    };
    client.get_sandbox(within(QUERY, request)).await?;
    let mut listeners = Vec::new();
    for ports in &args.ports {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.local));
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| CommandError::io(format!("cannot listen on {address}"), error))?;
        listeners.push((listener, ports.remote));
    }
    let listen =
        |kind| signal(kind).map_err(|error| CommandError::io("cannot listen to signals", error));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    for (listener, remote) in &listeners {
        announce(listener, *remote, ui)?;
    }
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let forwards = listeners.into_iter().map(|(listener, remote)| {
        forward(
            listener,
            remote,
            args.sandbox.clone(),
            client.clone(),
            places.clone(),
            ui,
        )
    });
    // To be interrupted is how this ends.
    tokio::select! {
        _ = futures_util::future::join_all(forwards) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(DONE)
}

fn announce(listener: &TcpListener, remote: u16, ui: &Ui) -> Result<(), CommandError> {
    let local = listener
        .local_addr()
        .map_err(|error| CommandError::io("cannot read the local port", error))?;
    if ui.json {
        ui.object(&json!({ "local": local.to_string(), "local_port": local.port(), "remote_port": remote }))
    } else {
        ui.line(&format!("{local} -> {remote}"))
    }
}

/// Accepts for ever. Dropping it ends its connections.
async fn forward(
    listener: TcpListener,
    remote: u16,
    sandbox: String,
    client: Client,
    places: Arc<Semaphore>,
    ui: &Ui,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = accept(&listener, &places) => {
                let Some((stream, place)) = accepted else { continue };
                let open = ForwardOpen { sandbox: sandbox.clone(), port: remote.into() };
                let client = client.clone();
                connections.spawn(async move {
                    let result = connection(client, open, stream).await;
                    drop(place);
                    result
                });
            }
            Some(ended) = connections.join_next() => {
                if let Ok(Err(status)) = ended {
                    let topic = format!("port {remote}");
                    let why = CommandError::from(status).sentence();
                    ui.remark_again(&topic, &format!("{topic}: {why}"));
                }
            }
        }
    }
}

/// A connection and its place. What waits longer waits in the kernel's queue.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    // A peer that gave up before we came is no concern of ours.
    let (stream, _) = listener.accept().await.ok()?;
    // Small messages are not to wait for more.
    stream.set_nodelay(true).ok()?;
    Some((stream, place))
}

async fn connection(
    mut client: Client,
    open: ForwardOpen,
    stream: TcpStream,
) -> Result<(), Status> {
    let (sender, receiver) = mpsc::channel(QUEUE_CHUNKS);
    let opening = ForwardRequest {
        part: Some(forward_request::Part::Open(open)),
    };
    // The queue is new: there is room.
    let _ = sender.try_send(opening);
    let responses = client
        .forward(ReceiverStream::new(receiver))
        .await?
        .into_inner();
    let (from_local, to_local) = stream.into_split();
    let up = pump_up(from_local, sender);
    let down = pump_down(responses, to_local);
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut up => {}
        // The sandbox has nothing more to say; what we would still send nobody reads.
        result = &mut down => return result,
    }
    down.await
}

/// Local → sandbox. Its end closes this half only.
async fn pump_up(mut from: OwnedReadHalf, to: mpsc::Sender<ForwardRequest>) {
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
    loop {
        buffer.reserve(CHUNK_BYTES);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let data = buffer.split().freeze();
                let request = ForwardRequest {
                    part: Some(forward_request::Part::Data(data)),
                };
                if to.send(request).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Sandbox → local.
async fn pump_down(
    mut from: Streaming<ForwardResponse>,
    mut to: OwnedWriteHalf,
) -> Result<(), Status> {
    while let Some(response) = from.message().await? {
        if let Some(forward_response::Part::Data(data)) = response.part
            && to.write_all(&data).await.is_err()
        {
            // The local peer left; dropping the stream tells the other one.
            return Ok(());
        }
    }
    // The peer may have left already.
    let _ = to.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Ports;

    #[test]
    fn ports_are_read() {
        assert_eq!(
            Ports::parse("80"),
            Ok(Ports {
                local: 80,
                remote: 80
            })
        );
        assert_eq!(
            Ports::parse("0:80"),
            Ok(Ports {
                local: 0,
                remote: 80
            })
        );
        for wrong in ["", "0", "80:", "80:0", "99999", "a:b", "1:2:3"] {
            assert!(Ports::parse(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
