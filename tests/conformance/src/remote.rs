//! What is asked of a supervisor besides running processes: files, archives, signals. Each call has
//! a deadline, and answers with what the supervisor said.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_proto::supervisor::v1 as wire;
use cofferdam_proto::supervisor::v1::archive_chunk::Part as ArchivePart;
use cofferdam_proto::supervisor::v1::read_file_response::Part as ReadPart;
use cofferdam_proto::supervisor::v1::write_archive_request::Part as UnpackPart;
use cofferdam_proto::supervisor::v1::write_file_request::Part as WritePart;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tonic::{Code, Response, Status};

use crate::answer::code_name;
use crate::callback::Session;
use crate::case::Stop;
use crate::suite::Suite;

/// Of a message with data: well below what one may have.
const CHUNK_BYTES: usize = 32 * 1024;

/// A session, for calls that are waited for so long.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    suite: Suite,
    session: Session,
    patience: Duration,
}

/// A file as it was read.
#[derive(Debug)]
pub(crate) struct ReadFile {
    pub(crate) info: wire::FileInfo,
    pub(crate) data: Vec<u8>,
}

/// How a stream of requests ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With what belongs there.
    Whole,
    /// With a digest of other bytes.
    WrongDigest,
    /// Without its last message.
    Cut,
}

impl Remote {
    pub(crate) fn new(suite: &Suite, session: &Session) -> Self {
        Self {
            suite: suite.clone(),
            session: session.clone(),
            patience: suite.patience(),
        }
    }

    async fn ask<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        self.suite.step(format!("the supervisor's {what}"));
        match timeout(self.patience, call).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(self.late(what)),
        }
    }

    fn late(&self, what: &str) -> Status {
        let seconds = self.patience.as_secs();
        Status::deadline_exceeded(format!("{what} has said nothing for {seconds} s"))
    }

    /// Reads a whole file, and checks what the supervisor says of it.
    pub(crate) async fn read(&self, path: &str) -> Result<ReadFile, Status> {
        let request = wire::ReadFileRequest {
            path: path.to_owned(),
            ..wire::ReadFileRequest::default()
        };
        let mut client = self.session.client();
        let mut parts = self.ask("ReadFile", client.read_file(request)).await?;
        let mut info = None;
        let mut data = Vec::new();
        loop {
            let part = timeout(self.patience, parts.message()).await;
            let part = part.map_err(|_| self.late("ReadFile"))??;
            match part.and_then(|part| part.part) {
                Some(ReadPart::Info(first)) => info = Some(first),
                Some(ReadPart::Data(bytes)) => data.extend_from_slice(&bytes),
                Some(ReadPart::Digest(digest)) => {
                    if digest.sha256 != sha256(&data) || digest.size_bytes != data.len() as u64 {
                        return Err(Status::data_loss(
                            "the bytes that came are not those of the digest",
                        ));
                    }
                    let info = info.ok_or_else(|| Status::internal("a file without metadata"))?;
                    return Ok(ReadFile { info, data });
                }
                None => return Err(Status::data_loss("ReadFile ended without a digest")),
            }
        }
    }

    /// Writes a file.
    pub(crate) async fn write(
        &self,
        open: wire::WriteFileOpen,
        data: &[u8],
        ending: Ending,
    ) -> Result<wire::WriteFileResponse, Status> {
        let mut parts = vec![WritePart::Open(open)];
        parts.extend(chunks(data).map(WritePart::Data));
        match ending {
            Ending::Cut => {}
            Ending::Whole | Ending::WrongDigest => {
                parts.push(WritePart::Finish(wire::WriteFileFinish {
                    sha256: digest(data, ending),
                }));
            }
        }
        let requests = parts
            .into_iter()
            .map(|part| wire::WriteFileRequest { part: Some(part) });
        let requests = tokio_stream::iter(requests.collect::<Vec<_>>());
        let mut client = self.session.client();
        self.ask("WriteFile", client.write_file(requests)).await
    }

    pub(crate) async fn stat(&self, path: &str) -> Result<wire::FileInfo, Status> {
        let request = wire::StatFileRequest {
            path: path.to_owned(),
            follow: true,
        };
        let mut client = self.session.client();
        let answer = self.ask("StatFile", client.stat_file(request)).await?;
        Ok(answer.info.unwrap_or_default())
    }

    /// The names in a directory, asked for in pages of this size.
    pub(crate) async fn names(&self, path: &str, page_size: u32) -> Result<Vec<String>, Status> {
        let mut names: Vec<String> = Vec::new();
        loop {
            let request = wire::ListDirectoryRequest {
                path: path.to_owned(),
                page_size,
                after: names.last().cloned().unwrap_or_default(),
            };
            let mut client = self.session.client();
            let page = self.ask("ListDirectory", client.list_directory(request));
            let page = page.await?;
            if page.entries.is_empty() && page.more {
                return Err(Status::internal("ListDirectory: an empty page, and more"));
            }
            names.extend(page.entries.into_iter().map(|entry| entry.path));
            if !page.more {
                return Ok(names);
            }
        }
    }

    /// The tar of a directory, whole.
    pub(crate) async fn pack(&self, path: &str) -> Result<Vec<u8>, Status> {
        let request = wire::ReadArchiveRequest {
            path: path.to_owned(),
        };
        let mut client = self.session.client();
        let mut parts = self
            .ask("ReadArchive", client.read_archive(request))
            .await?;
        let mut data = Vec::new();
        loop {
            let part = timeout(self.patience, parts.message()).await;
            let part = part.map_err(|_| self.late("ReadArchive"))??;
            match part.and_then(|part| part.part) {
                Some(ArchivePart::Data(bytes)) => data.extend_from_slice(&bytes),
                Some(ArchivePart::End(end)) => {
                    if end.sha256 != sha256(&data) || end.size_bytes != data.len() as u64 {
                        return Err(Status::data_loss(
                            "the bytes that came are not those that the archive's end tells of",
                        ));
                    }
                    return Ok(data);
                }
                None => return Err(Status::data_loss("ReadArchive ended without `end`")),
            }
        }
    }

    pub(crate) async fn unpack(
        &self,
        path: &str,
        tar: &[u8],
        ending: Ending,
    ) -> Result<wire::WriteArchiveResponse, Status> {
        let open = wire::WriteArchiveOpen {
            path: path.to_owned(),
        };
        let mut parts = vec![UnpackPart::Open(open)];
        parts.extend(chunks(tar).map(UnpackPart::Data));
        if ending != Ending::Cut {
            parts.push(UnpackPart::End(wire::ArchiveEnd {
                sha256: digest(tar, ending),
                size_bytes: tar.len() as u64,
                skipped: 0,
            }));
        }
        let requests = parts
            .into_iter()
            .map(|part| wire::WriteArchiveRequest { part: Some(part) });
        let requests = tokio_stream::iter(requests.collect::<Vec<_>>());
        let mut client = self.session.client();
        self.ask("WriteArchive", client.write_archive(requests))
            .await
    }

    pub(crate) async fn signal(
        &self,
        process_id: &str,
        signal: u32,
        scope: wire::signal_process_request::Scope,
    ) -> Result<(), Status> {
        let request = wire::SignalProcessRequest {
            process_id: process_id.to_owned(),
            signal,
            scope: scope.into(),
        };
        let mut client = self.session.client();
        let answer = self.ask("SignalProcess", client.signal_process(request));
        answer.await.map(|_| ())
    }

    /// Ends a process's whole tree.
    pub(crate) async fn kill(&self, process_id: &str) -> Result<u32, Status> {
        let request = wire::KillProcessRequest {
            process_id: process_id.to_owned(),
            grace_ms: 0,
        };
        let mut client = self.session.client();
        let answer = self.ask("KillProcess", client.kill_process(request));
        Ok(answer.await?.killed)
    }

    pub(crate) async fn processes(&self) -> Result<Vec<wire::ProcessInfo>, Status> {
        let mut client = self.session.client();
        let answer = client.list_processes(wire::ListProcessesRequest {});
        Ok(self.ask("ListProcesses", answer).await?.processes)
    }
}

/// What the supervisor said instead of doing it.
pub(crate) fn told(what: &str, status: &Status) -> Stop {
    let code = code_name(status.code());
    Stop::failed(format!("{what}: {code}: {:?}", status.message()))
}

/// It must have been refused with this code.
pub(crate) fn must_be<T>(what: &str, answer: Result<T, Status>, code: Code) -> Result<(), Stop> {
    let wanted = code_name(code);
    match answer {
        Err(status) if status.code() == code => Ok(()),
        Err(status) => Err(told(
            &format!("{what} was expected to be {wanted}"),
            &status,
        )),
        Ok(_) => Err(Stop::failed(format!(
            "{what} succeeded where {wanted} was expected"
        ))),
    }
}

pub(crate) fn sha256(data: &[u8]) -> Vec<u8> {
    Sha256::digest(data).to_vec()
}

fn digest(data: &[u8], ending: Ending) -> Bytes {
    match ending {
        Ending::WrongDigest => sha256(b"something else").into(),
        Ending::Whole | Ending::Cut => sha256(data).into(),
    }
}

fn chunks(data: &[u8]) -> impl Iterator<Item = Bytes> {
    data.chunks(CHUNK_BYTES).map(Bytes::copy_from_slice)
}
