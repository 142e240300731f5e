//! This machine → sandbox.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use cofferdam_proto::gateway::v1::file_info::Kind as FileKind;
use cofferdam_proto::gateway::v1::{
    WriteArchiveOpen, WriteArchiveRequest, WriteFileFinish, WriteFileOpen, WriteFileRequest,
    write_archive_request, write_file_request,
};
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::download::differs;
use super::pack::{PackError, pack};
use super::pipe::ChannelWriter;
use super::spot::{base_name, join};
use super::{CHUNK_BYTES, Copied, QUEUE_CHUNKS, Spot, stat};
use crate::connect::Client;
use crate::error::{CommandError, Kind};

/// What the umask leaves of a new file, usually.
const STDIN_MODE: u32 = 0o644;

/// Copies a file, a directory or stdin into a sandbox.
pub(crate) async fn upload(
    client: Client,
    from: &Spot,
    sandbox: &str,
    path: &str,
    parents: bool,
) -> Result<Copied, CommandError> {
    let is_directory = stat(client.clone(), sandbox, path)
        .await?
        .is_some_and(|info| info.kind() == FileKind::Directory);
    if !is_directory && path.ends_with('/') && !matches!(from, Spot::Local(local) if local.is_dir())
    {
        return Err(CommandError::new(
            Kind::NotFound,
            format!("there is no directory {path} in {sandbox}"),
        ));
    }
    match from {
        Spot::Stdio if is_directory => archive_from_stdin(client, sandbox, path).await,
        Spot::Stdio => {
            file(
                client,
                io::stdin(),
                "stdin",
                STDIN_MODE,
                open(sandbox, path, parents),
            )
            .await
        }
        Spot::Local(local) => {
            let name = is_directory.then(|| own_name(local)).transpose()?.flatten();
            let target = name.map_or_else(|| path.to_owned(), |name| join(path, &name));
            if local.is_dir() {
                archive(client, local, sandbox, target).await
            } else {
                let (source, mode) = open_local(local)?;
                let shown = local.display().to_string();
                file(
                    client,
                    source,
                    &shown,
                    mode,
                    open(sandbox, &target, parents),
                )
                .await
            }
        }
        Spot::Sandbox { .. } => Err(CommandError::new(
            Kind::Internal,
            "an upload comes from this machine",
        )),
    }
}

/// The name under which it goes into a directory. None for "DIR/.": its content goes there.
fn own_name(local: &Path) -> Result<Option<String>, CommandError> {
    if !local.exists() {
        return Err(CommandError::new(
            Kind::NotFound,
            format!("there is no {}", local.display()),
        ));
    }
    let text = local.to_str().ok_or_else(|| {
        CommandError::usage(format!("{} is not UTF-8", local.display()))
            .hint("name the target in the sandbox in full")
    })?;
    Ok(base_name(text).map(str::to_owned))
}

fn open_local(local: &Path) -> Result<(File, u32), CommandError> {
    let cannot_read = |error| CommandError::io(format!("cannot read {}", local.display()), error);
    let file = File::open(local).map_err(cannot_read)?;
    let metadata = file.metadata().map_err(cannot_read)?;
    Ok((file, metadata.permissions().mode() & 0o777))
}

fn open(sandbox: &str, path: &str, parents: bool) -> WriteFileOpen {
    WriteFileOpen {
        sandbox: sandbox.to_owned(),
        path: path.to_owned(),
        mode: 0,
        parents,
    }
}

async fn file(
    mut client: Client,
    source: impl Read + Send + 'static,
    shown: &str,
    mode: u32,
    open: WriteFileOpen,
) -> Result<Copied, CommandError> {
    let (sender, receiver) = mpsc::channel(QUEUE_CHUNKS);
    let (done, sent) = oneshot::channel();
    let makes_parents = open.parents;
    let open = WriteFileOpen { mode, ..open };
    // On a thread: a disk or a terminal may be slow. It ends when the stream does.
    std::thread::spawn(move || {
        let _ = done.send(send_file(source, open, &sender));
    });
    let response = client.write_file(ReceiverStream::new(receiver)).await;
    // What went wrong here is why the gateway saw no end.
    let sent = sent
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
    let (bytes, ours) = match (sent, response) {
        (Ok(sent), Ok(response)) => {
            let theirs = response.into_inner().sha256;
            if *sent.1 != *theirs {
                return Err(differs(shown));
            }
            sent
        }
        (Err(error), Err(status)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Err(status.into());
        }
        (Ok(_), Err(status)) if status.code() == Code::NotFound && !makes_parents => {
            let error = CommandError::from(status);
            return Err(match error.hint {
                Some(_) => error,
                None => error.hint("--parents makes missing directories"),
            });
        }
        (Ok(_), Err(status)) => return Err(status.into()),
        (Err(error), _) => return Err(CommandError::io(format!("cannot read {shown}"), error)),
    };
    Ok(Copied {
        bytes,
        entries: Some(1),
        sha256: Some(hex::encode(ours)),
        skipped: 0,
    })
}

/// Sends the whole of it and its checksum. Without the last message the gateway writes nothing.
fn send_file(
    mut source: impl Read,
    open: WriteFileOpen,
    sender: &mpsc::Sender<WriteFileRequest>,
) -> io::Result<(u64, Vec<u8>)> {
    use write_file_request::Part;
    let send = |part| {
        sender
            .blocking_send(WriteFileRequest { part: Some(part) })
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    };
    send(Part::Open(open))?;
    let mut hash = Sha256::new();
    let mut bytes = 0;
    loop {
        let data = read_chunk(&mut source)?;
        if data.is_empty() {
            break;
        }
        hash.update(&data);
        bytes += data.len() as u64;
        send(Part::Data(data))?;
    }
    let sha256 = hash.finalize().to_vec();
    send(Part::Finish(WriteFileFinish {
        sha256: Bytes::from(sha256.clone()),
    }))?;
    Ok((bytes, sha256))
}

/// As much as one message takes; empty at the end.
fn read_chunk(source: &mut impl Read) -> io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(CHUNK_BYTES);
    let mut filled = 0;
    while filled < CHUNK_BYTES {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.freeze())
}

async fn archive(
    client: Client,
    local: &Path,
    sandbox: &str,
    path: String,
) -> Result<Copied, CommandError> {
    let (sender, receiver) = mpsc::channel(QUEUE_CHUNKS);
    let directory = local.to_owned();
    let packing = tokio::task::spawn_blocking(move || {
        let mut writer = ChannelWriter::new(sender);
        let packed = pack(&directory, &mut writer)?;
        let path = directory;
        writer
            .finish()
            .map(|_| packed)
            .map_err(|error| PackError { path, error })
    });
    let response = send_archive(client, sandbox, path, receiver).await;
    let packed = packing.await.map_err(|error| {
        CommandError::new(Kind::Internal, "the packing has failed").caused_by(error)
    })?;
    match (packed, response) {
        (Ok(packed), Ok(_)) => Ok(packed),
        (Err(PackError { path, error }), _) if error.kind() != io::ErrorKind::BrokenPipe => Err(
            CommandError::io(format!("cannot read {}", path.display()), error),
        ),
        (_, Err(error)) => Err(error),
        (Err(PackError { path, error }), Ok(_)) => Err(CommandError::io(
            format!("cannot send {}", path.display()),
            error,
        )),
    }
}

async fn archive_from_stdin(
    client: Client,
    sandbox: &str,
    path: &str,
) -> Result<Copied, CommandError> {
    let (sender, receiver) = mpsc::channel(QUEUE_CHUNKS);
    let (done, sent) = oneshot::channel();
    std::thread::spawn(move || {
        let mut writer = ChannelWriter::new(sender);
        let copied = io::copy(&mut io::stdin().lock(), &mut writer);
        let _ = done.send(copied.and_then(|_| writer.finish()));
    });
    let unpacked = send_archive(client, sandbox, path.to_owned(), receiver).await;
    // What went wrong here is why the gateway saw no end; not to get rid of it all is why we did.
    match (sent.await, unpacked) {
        (Ok(Ok(bytes)), Ok(entries)) => Ok(Copied {
            bytes,
            entries: Some(entries),
            ..Copied::default()
        }),
        (Ok(Err(error)), _) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CommandError::io("cannot read stdin", error))
        }
        (_, Err(error)) => Err(error),
        _ => Err(CommandError::new(Kind::Internal, "the reading has failed")),
    }
}

/// How many entries were unpacked there.
async fn send_archive(
    mut client: Client,
    sandbox: &str,
    path: String,
    parts: mpsc::Receiver<write_archive_request::Part>,
) -> Result<u64, CommandError> {
    use write_archive_request::Part;
    let open = Part::Open(WriteArchiveOpen {
        sandbox: sandbox.to_owned(),
        path,
    });
    let parts = futures_util::stream::iter([open])
        .chain(ReceiverStream::new(parts))
        .map(|part| WriteArchiveRequest { part: Some(part) });
    let response = client.write_archive(parts).await?;
    Ok(response.into_inner().entries)
}
