//! Files, archives, ports: passed on to the sandbox's supervisor, a piece at a time.

use std::error::Error as _;
use std::pin::Pin;
use std::time::Duration;

use cofferdam_proto::gateway::v1 as wire;
use cofferdam_proto::supervisor::v1 as inner;
use tokio::sync::mpsc::{self, error::SendTimeoutError};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status, Streaming};

use super::intake::not_ready;
use super::status::ApiError;
use crate::callback::Session;
use crate::model::SandboxState;
use crate::sandbox::{Activity, Sandbox, Use};

pub(super) type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Pieces between the two streams.
const PIECES_MAX: usize = 4;
/// The answer to a request that moves no data.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A transfer that the supervisor does not carry on for so long is given up: its disk may be slow,
/// but no piece is larger than a megabyte.
const STALL_MAX: Duration = Duration::from_secs(60);
const SESSION_LOST: &str = "SESSION_LOST";
const SESSION_HINT: &str =
    "`cofferdam inspect` shows the sandbox's state; try again when it is READY";

/// A session, and the sandbox kept from being idle.
pub(super) struct Open {
    session: Session,
    activity: Activity,
}

pub(super) fn open(sandbox: &Sandbox) -> Result<Open, ApiError> {
    let view = sandbox.view();
    match (&view.session, view.facts.state) {
        (Some(session), SandboxState::Ready) => Ok(Open {
            session: session.clone(),
            activity: sandbox.activity(Use::Transfer),
        }),
        _ => Err(not_ready(&view.facts)),
    }
}

/// What the supervisor says is what the caller gets, with our reasons. What the connection says is of
/// no use to him: the session's own word is.
fn refused(status: &Status, session: &Session) -> ApiError {
    // The connection's errors have a source, the supervisor's have none.
    if status.source().is_some() {
        return session_lost(session, status.message());
    }
    let (code, reason) = match status.code() {
        code @ Code::NotFound => (code, "FILE_NOT_FOUND"),
        code @ Code::PermissionDenied => (code, "FILE_ACCESS_DENIED"),
        code @ Code::ResourceExhausted => (code, "NO_SPACE"),
        code @ Code::DataLoss => (code, "DATA_LOSS"),
        _ if session.is_closed() => return session_lost(session, status.message()),
        Code::Unavailable | Code::Cancelled | Code::Unknown => (Code::Unavailable, SESSION_LOST),
        code => (code, "FILE_OPERATION_FAILED"),
    };
    ApiError::new(code, reason, status.message().to_owned())
}

fn session_lost(session: &Session, otherwise: &str) -> ApiError {
    let why = match session.end_reason() {
        // Not told yet: the call has heard of it first.
        reason if reason.is_empty() => otherwise.to_owned(),
        reason => reason,
    };
    let message = format!("the sandbox's session ended ({why}), and the transfer with it");
    ApiError::new(Code::Unavailable, SESSION_LOST, message).hint(SESSION_HINT)
}

fn stalled() -> ApiError {
    let seconds = STALL_MAX.as_secs();
    let message = format!("the sandbox's supervisor made no progress for {seconds} s");
    ApiError::new(Code::DeadlineExceeded, SESSION_LOST, message).hint(SESSION_HINT)
}

async fn answer<T>(
    session: &Session,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refused(&status, session)),
        Err(_) => Err(ApiError::new(
            Code::DeadlineExceeded,
            SESSION_LOST,
            "the sandbox's supervisor did not answer in time",
        )
        .hint(SESSION_HINT)),
    }
}

/// How the pieces of an upload came to their end.
enum Fed {
    /// The caller has sent all, or what nobody can use.
    AllSent,
    /// The supervisor has gone: its answer says why.
    Unwanted,
    /// The supervisor took none for too long.
    Stalled,
}

/// Hands one piece on. `Some`: there is no use in more.
async fn hand_on<T>(sender: &mpsc::Sender<T>, piece: T) -> Option<Fed> {
    match sender.send_timeout(piece, STALL_MAX).await {
        Ok(()) => None,
        Err(SendTimeoutError::Timeout(_)) => Some(Fed::Stalled),
        Err(SendTimeoutError::Closed(_)) => Some(Fed::Unwanted),
    }
}

/// The answer to an upload. A caller may take his time for its pieces, the supervisor may not.
async fn uploaded<T>(
    session: &Session,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    feed: impl Future<Output = Fed>,
) -> Result<T, ApiError> {
    tokio::pin!(call);
    let fed = tokio::select! {
        answered = &mut call => {
            return answered.map(tonic::Response::into_inner).map_err(|status| refused(&status, session));
        }
        fed = feed => fed,
    };
    if matches!(fed, Fed::Stalled) {
        return Err(stalled());
    }
    match tokio::time::timeout(STALL_MAX, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refused(&status, session)),
        Err(_) => Err(stalled()),
    }
}

/// Ends with an error once nothing has come for too long.
fn lively<T: Send + 'static>(
    stream: Streaming<T>,
) -> impl Stream<Item = Result<T, Option<Status>>> + Send {
    futures_util::stream::unfold(Some(stream), |stream| async {
        let mut stream = stream?;
        match tokio::time::timeout(STALL_MAX, stream.message()).await {
            Ok(Ok(piece)) => Some((Ok(piece?), Some(stream))),
            Ok(Err(status)) => Some((Err(Some(status)), None)),
            Err(_) => Some((Err(None), None)),
        }
    })
}

/// The next piece, or `None` at the end. A stream that is cut has no end: this then waits until the
/// call that it belongs to is dropped, so that a part is never taken for the whole.
async fn whole<T>(pieces: &mut Streaming<T>) -> Option<T> {
    match pieces.message().await {
        Ok(piece) => piece,
        Err(_) => std::future::pending().await,
    }
}

fn passed_on<A, B>(
    open: Open,
    stream: impl Stream<Item = Result<A, Option<Status>>> + Send + 'static,
    convert: impl Fn(A) -> Option<B> + Send + 'static,
) -> Out<B>
where
    A: Send + 'static,
    B: Send + 'static,
{
    let Open { session, activity } = open;
    Box::pin(stream.filter_map(move |piece| {
        let _in_use = &activity;
        match piece {
            Ok(piece) => convert(piece).map(Ok),
            Err(Some(status)) => Some(Err(refused(&status, &session).into())),
            Err(None) => Some(Err(stalled().into())),
        }
    }))
}

fn info(info: inner::FileInfo) -> wire::FileInfo {
    use wire::file_info::Kind;
    let kind = match info.kind() {
        inner::FileKind::Regular => Kind::Regular,
        inner::FileKind::Directory => Kind::Directory,
        inner::FileKind::Symlink => Kind::Symlink,
        inner::FileKind::Special => Kind::Special,
        inner::FileKind::Unspecified => Kind::Unspecified,
    };
    wire::FileInfo {
        path: info.path,
        kind: kind.into(),
        size_bytes: info.size_bytes,
        mode: info.mode,
        uid: info.uid,
        gid: info.gid,
        modify_time_unix_ms: info.modify_time_unix_ms,
        link_target: info.link_target,
    }
}

pub(super) async fn read_file(
    open: Open,
    path: String,
) -> Result<Out<wire::ReadFileResponse>, ApiError> {
    use inner::read_file_response::Part as In;
    use wire::read_file_response::Part;
    let request = inner::ReadFileRequest {
        path,
        ..Default::default()
    };
    let mut client = open.session.client();
    let stream = answer(&open.session, client.read_file(request)).await?;
    Ok(passed_on(
        open,
        lively(stream),
        |piece: inner::ReadFileResponse| {
            let part = match piece.part? {
                In::Info(file) => Part::Info(info(file)),
                In::Data(data) => Part::Data(data),
                In::Digest(digest) => Part::Sha256(digest.sha256),
            };
            Some(wire::ReadFileResponse { part: Some(part) })
        },
    ))
}

pub(super) async fn stat(
    open: Open,
    request: wire::StatFileRequest,
) -> Result<wire::StatFileResponse, ApiError> {
    let request = inner::StatFileRequest {
        path: request.path,
        follow: request.follow,
    };
    let mut client = open.session.client();
    let found = answer(&open.session, client.stat_file(request)).await?;
    Ok(wire::StatFileResponse {
        info: found.info.map(info),
    })
}

/// Pieces go on as they come; without `finish` the supervisor writes nothing.
pub(super) async fn write_file(
    open: Open,
    first: wire::WriteFileOpen,
    mut pieces: Streaming<wire::WriteFileRequest>,
) -> Result<wire::WriteFileResponse, ApiError> {
    use inner::write_file_request::Part;
    use wire::write_file_request::Part as In;
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let request = |part| inner::WriteFileRequest { part: Some(part) };
    let head = Part::Open(inner::WriteFileOpen {
        path: first.path,
        mode: first.mode,
        parents: first.parents,
    });
    let feed = async move {
        if let Some(end) = hand_on(&sender, request(head)).await {
            return end;
        }
        while let Some(piece) = whole(&mut pieces).await {
            let part = match piece.part {
                Some(In::Data(data)) => Part::Data(data),
                Some(In::Finish(finish)) => Part::Finish(inner::WriteFileFinish {
                    sha256: finish.sha256,
                }),
                Some(In::Open(_)) | None => return Fed::AllSent,
            };
            if let Some(end) = hand_on(&sender, request(part)).await {
                return end;
            }
        }
        Fed::AllSent
    };
    let mut client = open.session.client();
    let call = client.write_file(ReceiverStream::new(receiver));
    let written = uploaded(&open.session, call, feed).await?;
    Ok(wire::WriteFileResponse {
        info: written.info.map(info),
        sha256: written.sha256,
    })
}

pub(super) async fn read_archive(
    open: Open,
    path: String,
) -> Result<Out<wire::ArchiveChunk>, ApiError> {
    let mut client = open.session.client();
    let stream = answer(
        &open.session,
        client.read_archive(inner::ReadArchiveRequest { path }),
    )
    .await?;
    Ok(passed_on(
        open,
        lively(stream),
        |piece: inner::ArchiveChunk| {
            let part = match piece.part? {
                inner::archive_chunk::Part::Data(data) => wire::archive_chunk::Part::Data(data),
                inner::archive_chunk::Part::End(end) => {
                    wire::archive_chunk::Part::End(wire::ArchiveEnd {
                        sha256: end.sha256,
                        size_bytes: end.size_bytes,
                        skipped: end.skipped,
                    })
                }
            };
            Some(wire::ArchiveChunk { part: Some(part) })
        },
    ))
}

pub(super) async fn write_archive(
    open: Open,
    path: String,
    mut pieces: Streaming<wire::WriteArchiveRequest>,
) -> Result<wire::WriteArchiveResponse, ApiError> {
    use inner::write_archive_request::Part;
    use wire::write_archive_request::Part as In;
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let request = |part| inner::WriteArchiveRequest { part: Some(part) };
    let feed = async move {
        let head = Part::Open(inner::WriteArchiveOpen { path });
        if let Some(end) = hand_on(&sender, request(head)).await {
            return end;
        }
        while let Some(piece) = whole(&mut pieces).await {
            let part = match piece.part {
                Some(In::Data(data)) => Part::Data(data),
                Some(In::End(end)) => Part::End(inner::ArchiveEnd {
                    sha256: end.sha256,
                    size_bytes: end.size_bytes,
                    skipped: end.skipped,
                }),
                Some(In::Open(_)) | None => return Fed::AllSent,
            };
            if let Some(end) = hand_on(&sender, request(part)).await {
                return end;
            }
        }
        Fed::AllSent
    };
    let mut client = open.session.client();
    let call = client.write_archive(ReceiverStream::new(receiver));
    let written = uploaded(&open.session, call, feed).await?;
    Ok(wire::WriteArchiveResponse {
        entries: written.entries,
        bytes: written.bytes,
    })
}

/// One connection to a port of the sandbox, with half-close in both directions.
pub(super) async fn forward(
    open: Open,
    port: u32,
    mut pieces: Streaming<wire::ForwardRequest>,
) -> Result<Out<wire::ForwardResponse>, ApiError> {
    use inner::tunnel_request::Part;
    use inner::tunnel_response::Part as In;
    use wire::forward_request::Part as Asked;
    use wire::forward_response::Part as Given;
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let request = |part| inner::TunnelRequest { part: Some(part) };
    let mut feeding = JoinSet::new();
    feeding.spawn(async move {
        let target = inner::tunnel_target::Target::Port(port);
        let head = Part::Open(inner::TunnelTarget {
            target: Some(target),
        });
        if sender.send(request(head)).await.is_err() {
            return;
        }
        while let Some(piece) = whole(&mut pieces).await {
            let Some(Asked::Data(data)) = piece.part else {
                return;
            };
            if sender.send(request(Part::Data(data))).await.is_err() {
                return;
            }
        }
    });
    let mut client = open.session.client();
    let stream = answer(&open.session, client.tunnel(ReceiverStream::new(receiver))).await?;
    // Both sides may be silent for as long as they like.
    let stream = stream.map(|piece| piece.map_err(Some));
    Ok(passed_on(
        open,
        stream,
        move |piece: inner::TunnelResponse| {
            // Ends with this stream.
            let _parent = &feeding;
            let part = match piece.part? {
                In::Opened(_) => Given::Opened(wire::ForwardOpened {}),
                In::Data(data) => Given::Data(data),
            };
            Some(wire::ForwardResponse { part: Some(part) })
        },
    ))
}
