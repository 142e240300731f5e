//! Opens one connection to an engine, over whatever it listens on.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower::Service;

use super::tls;
use crate::endpoint::Endpoint;

/// For a handshake over a slow line; a socket on this host takes microseconds.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// A connection could not even be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// A file with key material cannot be used.
    #[error("{path}: {problem}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The engine's name cannot be in a certificate.
    #[error("{0:?} is neither a name nor an address")]
    Name(String),
}

/// Dials one engine. Cheap to clone.
#[derive(Clone)]
pub(super) struct Dialer(Arc<Way>);

enum Way {
    Unix(PathBuf),
    Tcp(String, u16),
    Tls(String, u16, TlsConnector),
    Ssh(Vec<String>),
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    pub(super) fn new(endpoint: &Endpoint, client: &str) -> Result<Self, DialError> {
        let way = match endpoint {
            Endpoint::Unix(path) => Way::Unix(path.clone()),
            Endpoint::Tcp { host, port } => Way::Tcp(host.clone(), *port),
            Endpoint::Tls { host, port, files } => {
                Way::Tls(host.clone(), *port, tls::connector(files)?)
            }
            Endpoint::Ssh {
                destination,
                port,
                socket,
            } => Way::Ssh(ssh_arguments(client, destination, *port, socket.as_deref())),
        };
        Ok(Self(Arc::new(way)))
    }

    async fn dial(self) -> io::Result<Stream> {
        match &*self.0 {
            Way::Unix(path) => Ok(Stream::new(UnixStream::connect(path).await?)),
            Way::Tcp(host, port) => Ok(Stream::new(tcp(host, *port).await?)),
            Way::Tls(host, port, connector) => {
                let name = rustls_pki_types::ServerName::try_from(host.clone())
                    .map_err(|_| io::Error::other(DialError::Name(host.clone())))?;
                let stream = tcp(host, *port).await?;
                Ok(Stream::new(connector.connect(name, stream).await?))
            }
            Way::Ssh(arguments) => Ok(Stream::new(SshStream::open(arguments)?)),
        }
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The remote command is the engine's own client, which every host with an engine has.
fn ssh_arguments(
    client: &str,
    destination: &str,
    port: Option<u16>,
    socket: Option<&str>,
) -> Vec<String> {
    let mut arguments = vec!["-T".to_owned(), "-oBatchMode=yes".to_owned()];
    arguments.extend(port.map(|port| format!("-p{port}")));
    arguments.extend(["--".to_owned(), destination.to_owned(), client.to_owned()]);
    if let Some(socket) = socket {
        let option = if client == "podman" {
            "--url"
        } else {
            "--host"
        };
        arguments.push(format!("{option}=unix://{socket}"));
    }
    arguments.extend(["system".to_owned(), "dial-stdio".to_owned()]);
    arguments
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            match timeout(DIAL_TIMEOUT, dialer.dial()).await {
                Ok(stream) => Ok(TokioIo::new(stream?)),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An open connection, whatever it goes over.
pub(super) struct Stream(Box<dyn Duplex>);

impl Stream {
    fn new(stream: impl Duplex + 'static) -> Self {
        Self(Box::new(stream))
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// `ssh` as a pipe. It ends with the connection.
struct SshStream {
    stdin: ChildStdin,
    stdout: ChildStdout,
    _child: Child,
}

impl SshStream {
    fn open(arguments: &[String]) -> io::Result<Self> {
        let mut child = Command::new("ssh")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or_else(|| io::Error::other("ssh has no pipes"))?;
        Ok(Self {
            stdin,
            stdout,
            _child: child,
        })
    }
}

impl AsyncRead for SshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(context, buffer)
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_gets_the_destination_behind_the_end_of_its_options() {
        let arguments = ssh_arguments("docker", "u@h", Some(2222), Some("/run/e.sock")).join(" ");
        assert_eq!(
            arguments,
            "-T -oBatchMode=yes -p2222 -- u@h docker --host=unix:///run/e.sock system dial-stdio"
        );
    }
}
