//! Sandbox → this machine.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cofferdam_proto::gateway::v1::file_info::Kind as FileKind;
use cofferdam_proto::gateway::v1::read_file_response::Part;
use cofferdam_proto::gateway::v1::{
    ArchiveChunk, FileInfo, ReadArchiveRequest, ReadFileRequest, archive_chunk,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::pipe::{ChannelReader, Total};
use super::spot::base_name;
use super::unpack::{UnpackError, unpack};
use super::{Copied, QUEUE_CHUNKS, Spot, stat};
use crate::connect::{Client, QUERY, within};
use crate::error::{CommandError, Kind};
use crate::session::{Chunk, Stream, Writer, idempotency_key};

/// Copies a file or a directory out of a sandbox.
pub(crate) async fn download(
    client: Client,
    sandbox: &str,
    path: &str,
    to: &Spot,
) -> Result<Copied, CommandError> {
    let info = stat(client.clone(), sandbox, path).await?.ok_or_else(|| {
        CommandError::new(Kind::NotFound, format!("there is no {path} in {sandbox}"))
    })?;
    match (info.kind(), to) {
        (FileKind::Regular, Spot::Stdio) => {
            file(client, sandbox, path, &mut Target::Stdout(Writer::new())).await
        }
        (FileKind::Regular, Spot::Local(local)) => {
            let local = file_target(local, path)?;
            let mut target = Target::File(NewFile::create(&local)?);
            file(client, sandbox, path, &mut target).await
        }
        (FileKind::Directory, Spot::Stdio) => archive_to_stdout(client, sandbox, path).await,
        (FileKind::Directory, Spot::Local(local)) => {
            archive(client, sandbox, path, directory_target(local, path)?).await
        }
        (FileKind::Regular | FileKind::Directory, Spot::Sandbox { .. }) => Err(CommandError::new(
            Kind::Internal,
            "a download goes to this machine",
        )),
        _ => Err(CommandError::new(
            Kind::Invalid,
            format!("{path} in {sandbox} is neither a file nor a directory"),
        )),
    }
}

/// Into a directory under its own name, or as the name that was given.
fn file_target(local: &Path, path: &str) -> Result<PathBuf, CommandError> {
    if local.is_dir() {
        let name = base_name(path)
            .ok_or_else(|| CommandError::usage(format!("{path} has no name of its own")))?;
        return Ok(local.join(name));
    }
    if local.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(CommandError::usage(format!(
            "there is no directory {}",
            local.display()
        )));
    }
    Ok(local.to_owned())
}

/// Into a directory that is there, or as a new one. "DIR/." means its content.
fn directory_target(local: &Path, path: &str) -> Result<PathBuf, CommandError> {
    match (local.is_dir(), base_name(path)) {
        (true, Some(name)) => Ok(local.join(name)),
        (false, _) if local.exists() => Err(CommandError::usage(format!(
            "{} is not a directory",
            local.display()
        ))),
        _ => Ok(local.to_owned()),
    }
}

/// Where a file's bytes go.
#[derive(Debug)]
enum Target {
    File(NewFile),
    Stdout(Writer),
}

async fn file(
    mut client: Client,
    sandbox: &str,
    path: &str,
    target: &mut Target,
) -> Result<Copied, CommandError> {
    let request = ReadFileRequest {
        sandbox: sandbox.to_owned(),
        path: path.to_owned(),
    };
    let mut parts = client.read_file(within(QUERY, request)).await?.into_inner();
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut info = None;
    while let Some(message) = parts.message().await? {
        match message.part {
            Some(Part::Info(first)) => info = Some(first),
            Some(Part::Data(data)) => {
                hash.update(&data);
                target.write(bytes, data.clone()).await?;
                bytes += data.len() as u64;
            }
            Some(Part::Sha256(theirs)) => {
                let ours = hash.finalize();
                if *ours != *theirs {
                    return Err(differs(path));
                }
                target.finish(info.as_ref()).await?;
                return Ok(Copied {
                    bytes,
                    entries: Some(1),
                    sha256: Some(hex::encode(ours)),
                    skipped: 0,
                });
            }
            None => {}
        }
    }
    Err(CommandError::new(
        Kind::DataLoss,
        format!("{path} ended early: its checksum is missing"),
    ))
}

pub(super) fn differs(path: &str) -> CommandError {
    CommandError::new(
        Kind::DataLoss,
        format!("what arrived of {path} is not what was sent: the checksums differ"),
    )
    .hint("copy it again; if it was written to meanwhile, wait until that is done")
}

impl Target {
    async fn write(&mut self, offset: u64, data: Bytes) -> Result<(), CommandError> {
        match self {
            Self::File(new) => new
                .file
                .write_all(&data)
                .map_err(|error| CommandError::io(new.cannot_write(), error)),
            Self::Stdout(writer) => {
                let chunk = Chunk {
                    stream: Stream::Stdout,
                    offset,
                    data,
                };
                writer.write(chunk).await.map_err(CommandError::output)
            }
        }
    }

    async fn finish(&mut self, info: Option<&FileInfo>) -> Result<(), CommandError> {
        match self {
            Self::File(new) => new
                .commit(info.map_or(0o644, |info| info.mode))
                .map_err(|error| CommandError::io(new.cannot_write(), error)),
            Self::Stdout(writer) => {
                let writer = std::mem::replace(writer, Writer::new());
                writer.finish().await.map_err(CommandError::output)
            }
        }
    }
}

/// A file under a temporary name beside its own, removed unless it is committed.
#[derive(Debug)]
struct NewFile {
    file: File,
    path: PathBuf,
    temporary: PathBuf,
    is_committed: bool,
}

impl NewFile {
    fn create(path: &Path) -> Result<Self, CommandError> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}", idempotency_key()?));
        let temporary = path.with_file_name(name);
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|error| CommandError::io(format!("cannot write {}", path.display()), error))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            temporary,
            is_committed: false,
        })
    }

    /// Special bits stay behind: they were given in the sandbox.
    fn commit(&mut self, mode: u32) -> io::Result<()> {
        self.file
            .set_permissions(fs::Permissions::from_mode(mode & 0o777))?;
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.is_committed = true;
        Ok(())
    }

    fn cannot_write(&self) -> String {
        format!("cannot write {}", self.path.display())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_committed {
            // Nothing more can be done about a leftover.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

async fn archive(
    mut client: Client,
    sandbox: &str,
    path: &str,
    directory: PathBuf,
) -> Result<Copied, CommandError> {
    let request = ReadArchiveRequest {
        sandbox: sandbox.to_owned(),
        path: path.to_owned(),
    };
    let chunks = client
        .read_archive(within(QUERY, request))
        .await?
        .into_inner();
    let (sender, receiver) = mpsc::channel(QUEUE_CHUNKS);
    let shown = directory.display().to_string();
    let unpacking =
        tokio::task::spawn_blocking(move || unpack(&directory, ChannelReader::new(receiver)));
    let mut sender = Some(sender);
    let received = receive(chunks, path, async |_, data| {
        // A closed channel has seen enough, or has failed and says why itself.
        if let Some(channel) = &sender
            && channel.send(Ok(data)).await.is_err()
        {
            sender = None;
        }
        Ok(())
    })
    .await;
    if let (Err(_), Some(channel)) = (&received, &sender) {
        let cut = io::Error::other("the stream was cut");
        let _has_seen_enough = channel.send(Err(cut)).await;
    }
    drop(sender);
    let unpacked = unpacking.await.map_err(|error| {
        CommandError::new(Kind::Internal, "the unpacking has failed").caused_by(error)
    })?;
    match (received, unpacked) {
        (Err(error), _) => Err(match error.hint {
            Some(_) => error,
            None => error.hint(format!("what has arrived is in {shown}, and is not whole")),
        }),
        (Ok(received), Ok(copied)) => Ok(Copied {
            skipped: copied.skipped + received.skipped,
            ..copied
        }),
        (Ok(_), Err(UnpackError { path, error })) => Err(CommandError::io(
            format!("cannot unpack {}", path.display()),
            error,
        )),
    }
}

/// An archive that has come whole.
struct Received {
    bytes: u64,
    /// What the other side has left out.
    skipped: u64,
}

/// Takes an archive to its end, which has to be said and to be true.
async fn receive(
    mut chunks: Streaming<ArchiveChunk>,
    path: &str,
    mut take: impl AsyncFnMut(u64, Bytes) -> Result<(), CommandError>,
) -> Result<Received, CommandError> {
    let mut total = Total::default();
    while let Some(chunk) = chunks.message().await? {
        match chunk.part {
            Some(archive_chunk::Part::Data(data)) => {
                let offset = total.bytes();
                total.add(&data);
                take(offset, data).await?;
            }
            Some(archive_chunk::Part::End(theirs)) => {
                let ours = total.end();
                if (&ours.sha256, ours.size_bytes) != (&theirs.sha256, theirs.size_bytes) {
                    return Err(differs(path));
                }
                return Ok(Received {
                    bytes: ours.size_bytes,
                    skipped: theirs.skipped,
                });
            }
            None => {}
        }
    }
    Err(CommandError::new(
        Kind::DataLoss,
        format!("{path} ended early: the end of its archive is missing"),
    ))
}

async fn archive_to_stdout(
    mut client: Client,
    sandbox: &str,
    path: &str,
) -> Result<Copied, CommandError> {
    let request = ReadArchiveRequest {
        sandbox: sandbox.to_owned(),
        path: path.to_owned(),
    };
    let chunks = client
        .read_archive(within(QUERY, request))
        .await?
        .into_inner();
    let mut writer = Writer::new();
    let received = receive(chunks, path, async |offset, data| {
        let chunk = Chunk {
            stream: Stream::Stdout,
            offset,
            data,
        };
        writer.write(chunk).await.map_err(CommandError::output)
    })
    .await;
    let written = writer.finish().await.map_err(CommandError::output);
    let received = received?;
    written?;
    Ok(Copied {
        bytes: received.bytes,
        skipped: received.skipped,
        ..Copied::default()
    })
}
