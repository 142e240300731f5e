//! The `Supervisor` service: decodes, delegates, encodes.

mod archives;
mod attach;
mod convert;
mod files;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_proto::supervisor::v1 as wire;
use cofferdam_proto::supervisor::v1::signal_process_request::Scope;
use cofferdam_proto::supervisor::v1::supervisor_server::Supervisor;
use tonic::{Request, Response, Status, Streaming};

use crate::core::Core;
use crate::process::{SPOOL_BYTES_DEFAULT, check_environment, spool_bytes};
use crate::signal::Signal;

type Answer<T> = Result<Response<T>, Status>;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct SupervisorService {
    core: Arc<Core>,
}

impl SupervisorService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

#[tonic::async_trait]
impl Supervisor for SupervisorService {
    async fn ping(&self, _: Request<wire::PingRequest>) -> Answer<wire::PingResponse> {
        let counts = self.core.table.counts();
        Ok(Response::new(wire::PingResponse {
            boot_id: Bytes::copy_from_slice(&self.core.identity.boot_id),
            uptime_ms: u64::try_from(self.core.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            running: counts.running,
            ended: counts.ended,
            spool_bytes: self.core.table.spool_bytes(),
        }))
    }

    async fn configure(
        &self,
        request: Request<wire::ConfigureRequest>,
    ) -> Answer<wire::ConfigureResponse> {
        let request = request.into_inner();
        check_environment("environment", &request.environment)?;
        let spool = spool_bytes("spool_bytes", request.spool_bytes, SPOOL_BYTES_DEFAULT)?;
        self.core.configure(request.environment, spool);
        let expire = match request.expire_time_unix_ms {
            0 => self.core.first_expire_time_unix_ms,
            time => time,
        };
        self.core.expire_time_unix_ms.send_replace(expire);
        Ok(Response::new(wire::ConfigureResponse {}))
    }

    type ProcessStream = attach::Events;

    async fn process(
        &self,
        request: Request<Streaming<wire::ProcessRequest>>,
    ) -> Answer<Self::ProcessStream> {
        attach::attach(&self.core, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn list_processes(
        &self,
        _: Request<wire::ListProcessesRequest>,
    ) -> Answer<wire::ListProcessesResponse> {
        let processes = self.core.table.list();
        let processes = processes
            .iter()
            .map(|process| convert::info(process))
            .collect();
        Ok(Response::new(wire::ListProcessesResponse { processes }))
    }

    async fn signal_process(
        &self,
        request: Request<wire::SignalProcessRequest>,
    ) -> Answer<wire::SignalProcessResponse> {
        let request = request.into_inner();
        let signal = Signal::new(request.signal)?;
        let process = self.core.table.get(&request.process_id)?;
        match request.scope() {
            Scope::Group => attach::signal_group(&process, signal)?,
            Scope::Process => process
                .signal_main(signal)
                .map_err(|error| Status::internal(format!("cannot signal: {error}")))?,
            Scope::Tree => {
                if let Some(roots) = process.roots() {
                    self.core.signal_tree(roots, signal).await;
                }
            }
        }
        Ok(Response::new(wire::SignalProcessResponse {}))
    }

    async fn kill_process(
        &self,
        request: Request<wire::KillProcessRequest>,
    ) -> Answer<wire::KillProcessResponse> {
        let request = request.into_inner();
        let process = self.core.table.get(&request.process_id)?;
        let grace = Duration::from_millis(request.grace_ms);
        let killed = self.core.kill_tree(&process, grace).await;
        Ok(Response::new(wire::KillProcessResponse { killed }))
    }

    async fn forget_process(
        &self,
        request: Request<wire::ForgetProcessRequest>,
    ) -> Answer<wire::ForgetProcessResponse> {
        self.core.table.forget(&request.into_inner().process_id)?;
        Ok(Response::new(wire::ForgetProcessResponse {}))
    }

    type ReadFileStream = files::ReadFileStream;

    async fn read_file(
        &self,
        request: Request<wire::ReadFileRequest>,
    ) -> Answer<Self::ReadFileStream> {
        files::read(&self.core, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn write_file(
        &self,
        request: Request<Streaming<wire::WriteFileRequest>>,
    ) -> Answer<wire::WriteFileResponse> {
        files::write(&self.core, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn stat_file(
        &self,
        request: Request<wire::StatFileRequest>,
    ) -> Answer<wire::StatFileResponse> {
        files::stat(&self.core, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn list_directory(
        &self,
        request: Request<wire::ListDirectoryRequest>,
    ) -> Answer<wire::ListDirectoryResponse> {
        files::list(&self.core, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn make_directory(
        &self,
        request: Request<wire::MakeDirectoryRequest>,
    ) -> Answer<wire::MakeDirectoryResponse> {
        files::make_directory(&self.core, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn remove_file(
        &self,
        request: Request<wire::RemoveFileRequest>,
    ) -> Answer<wire::RemoveFileResponse> {
        files::remove(&self.core, request.into_inner())
            .await
            .map(Response::new)
    }

    type ReadArchiveStream = archives::ReadArchiveStream;

    async fn read_archive(
        &self,
        request: Request<wire::ReadArchiveRequest>,
    ) -> Answer<Self::ReadArchiveStream> {
        archives::read(&self.core, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn write_archive(
        &self,
        request: Request<Streaming<wire::WriteArchiveRequest>>,
    ) -> Answer<wire::WriteArchiveResponse> {
        archives::write(&self.core, request.into_inner())
            .await
            .map(Response::new)
    }

    type TunnelStream = tunnel::TunnelStream;

    async fn tunnel(
        &self,
        request: Request<Streaming<wire::TunnelRequest>>,
    ) -> Answer<Self::TunnelStream> {
        tunnel::open(&self.core, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn shutdown(
        &self,
        request: Request<wire::ShutdownRequest>,
    ) -> Answer<wire::ShutdownResponse> {
        self.core
            .end(Duration::from_millis(request.into_inner().grace_ms));
        Ok(Response::new(wire::ShutdownResponse {}))
    }
}
