//! What the variants do that cannot be said of one message alone.

use cofferdam_proto::compute::v1::compute_driver_server::ComputeDriver as Service;
use futures_util::StreamExt as _;
use tonic::{Code, Extensions, Request, Response, Status};

use super::platform::{Shared, likewise};
use super::variant::Variant;
use crate::fake::FakeDriver;
use crate::proto::watch_sandboxes_response::Event;
use crate::proto::*;
use crate::server::{Connection, ResponseStream, Server};

type Fake = Server<FakeDriver>;
type Answer<T> = Result<Response<T>, Status>;

/// How much later an ignored deadline is: ten years, so that specs with different ones still
/// differ.
const LATER_MS: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// Every page that there is.
const PAGE_SIZE_MAX: u32 = 1000;

/// What a sandbox looks like.
pub(super) fn show(live: &Shared, sandbox: &mut Sandbox) {
    if live.breaks(Variant::LeakedSecretInLabel) {
        let token = live.memory().tokens.get(&sandbox.sandbox_id).cloned();
        if let Some(token) = token {
            sandbox.platform_id = format!("fake-{token}");
        }
    }
    if live.breaks(Variant::TerminationLost) {
        sandbox.termination = None;
    }
    if let Some(termination) = &mut sandbox.termination
        && live.breaks(Variant::ExitCodeLost)
    {
        termination.exit_code = 0;
    }
}

/// Shakes hands for callers that did not, and configures.
pub(super) async fn let_in<T>(server: &Fake, request: &Request<T>) {
    let connection = request.extensions().get::<std::sync::Arc<Connection>>();
    if connection.is_none_or(|connection| connection.is_known()) {
        return;
    }
    let hello = HandshakeRequest {
        contract: Some(VersionRange { min: 1, max: 1 }),
        gateway_id: "nobody".to_owned(),
        ..HandshakeRequest::default()
    };
    let extensions = request.extensions();
    // What is refused here is refused again by the call itself.
    let _ = Service::handshake(server, likewise(extensions, hello)).await;
    let settings = ConfigureRequest::default();
    let _ = Service::configure(server, likewise(extensions, settings)).await;
}

pub(super) async fn create(
    live: &Shared,
    server: &Fake,
    mut request: Request<CreateSandboxRequest>,
) -> Answer<CreateSandboxResponse> {
    let id = request.get_ref().sandbox_id.clone();
    if live.breaks(Variant::IgnoredDeadline)
        && let Some(spec) = &mut request.get_mut().spec
        && spec.expire_time_unix_ms > 0
    {
        spec.expire_time_unix_ms = spec.expire_time_unix_ms.saturating_add(LATER_MS);
    }
    let extensions = request.extensions().clone();
    let known = known(server, &extensions, &id).await;
    if known.is_some() && live.breaks(Variant::NonIdempotentCreate) {
        return Err(Status::already_exists(format!("{id} is in use")));
    }
    if known.is_some() && live.breaks(Variant::DuplicateCreate) {
        delete(server, &extensions, &id).await?;
    }
    let token = hex::encode(&request.get_ref().bootstrap_token);
    let created = Service::create_sandbox(server, request).await;
    match (created, known) {
        (Err(status), Some(sandbox))
            if status.code() == Code::AlreadyExists && live.breaks(Variant::SpecIgnored) =>
        {
            let handle = live.memory().handles.get(&id).cloned();
            let sandbox = Some(sandbox);
            Ok(Response::new(CreateSandboxResponse { handle, sandbox }))
        }
        (created, known) => {
            let created = created?;
            let mut memory = live.memory();
            if known.is_none() {
                memory.tokens.insert(id.clone(), token);
            }
            if let Some(handle) = &created.get_ref().handle {
                memory.handles.insert(id, handle.clone());
            }
            Ok(created)
        }
    }
}

pub(super) async fn stop(
    live: &Shared,
    server: &Fake,
    request: Request<StopSandboxRequest>,
) -> Answer<StopSandboxResponse> {
    if !live.breaks(Variant::InventedSuccess) {
        return Service::stop_sandbox(server, request).await;
    }
    let sandbox_id = request.get_ref().sandbox_id.clone();
    let get = likewise(request.extensions(), GetSandboxRequest { sandbox_id });
    let mut sandbox = Service::get_sandbox(server, get)
        .await?
        .into_inner()
        .sandbox;
    if let Some(sandbox) = &mut sandbox {
        sandbox.set_state(SandboxState::Stopped);
        sandbox.termination = Some(Termination {
            reason: TerminationReason::StoppedByRequest.into(),
            message: "stopped".to_owned(),
            ..Termination::default()
        });
    }
    Ok(Response::new(StopSandboxResponse { sandbox }))
}

pub(super) async fn delete_sandbox(
    live: &Shared,
    server: &Fake,
    request: Request<DeleteSandboxRequest>,
) -> Answer<DeleteSandboxResponse> {
    if live.breaks(Variant::InventedSuccess) {
        return Ok(Response::new(DeleteSandboxResponse {}));
    }
    let id = &request.get_ref().sandbox_id;
    if live.breaks(Variant::UnknownDeleteFails)
        && known(server, request.extensions(), id).await.is_none()
    {
        return Err(Status::not_found(format!("there is no sandbox {id}")));
    }
    Service::delete_sandbox(server, request).await
}

/// Everything on one page.
pub(super) async fn whole_list(
    server: &Fake,
    request: Request<ListSandboxesRequest>,
) -> Answer<ListSandboxesResponse> {
    let (_, extensions, message) = request.into_parts();
    let mut whole = ListSandboxesResponse::default();
    let mut page_token = message.page_token;
    loop {
        let message = ListSandboxesRequest {
            page_size: PAGE_SIZE_MAX,
            page_token,
        };
        let page = Service::list_sandboxes(server, likewise(&extensions, message)).await?;
        let mut page = page.into_inner();
        whole.sandboxes.append(&mut page.sandboxes);
        whole.incarnation = page.incarnation;
        whole.complete = page.complete;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(Response::new(whole));
        }
    }
}

/// What the gateway does not ask for cannot be there.
pub(super) async fn delete_unseen(
    server: &Fake,
    request: &Request<RecoverSandboxesRequest>,
) -> Result<(), Status> {
    let extensions = request.extensions();
    let list = likewise(extensions, ListSandboxesRequest::default());
    let listed = whole_list(server, list).await?.into_inner();
    let asked = &request.get_ref().items;
    for sandbox in listed.sandboxes {
        let is_asked =
            |item: &recover_sandboxes_request::Item| item.sandbox_id == sandbox.sandbox_id;
        if !asked.iter().any(is_asked) {
            delete(server, extensions, &sandbox.sandbox_id).await?;
        }
    }
    Ok(())
}

/// From now on, whatever the cursor says: the snapshot is swallowed.
pub(super) async fn watch_from_now(
    server: &Fake,
    extensions: &Extensions,
) -> Result<ResponseStream<WatchSandboxesResponse>, Status> {
    let request = likewise(extensions, WatchSandboxesRequest::default());
    let stream = Service::watch_sandboxes(server, request)
        .await?
        .into_inner();
    let is_snapshot = |message: &Result<WatchSandboxesResponse, Status>| {
        let event = message
            .as_ref()
            .ok()
            .and_then(|message| message.event.as_ref());
        match event {
            Some(Event::Snapshot(_)) => true,
            Some(Event::Bookmark(bookmark)) => bookmark.synced,
            _ => false,
        }
    };
    Ok(Box::pin(stream.filter(move |message| {
        let swallowed = is_snapshot(message);
        async move { !swallowed }
    })))
}

async fn known(server: &Fake, extensions: &Extensions, id: &str) -> Option<Sandbox> {
    let sandbox_id = id.to_owned();
    let request = likewise(extensions, GetSandboxRequest { sandbox_id });
    let answer = Service::get_sandbox(server, request).await.ok()?;
    answer.into_inner().sandbox
}

async fn delete(server: &Fake, extensions: &Extensions, id: &str) -> Result<(), Status> {
    let request = DeleteSandboxRequest {
        sandbox_id: id.to_owned(),
        ..DeleteSandboxRequest::default()
    };
    let request = likewise(extensions, request);
    Service::delete_sandbox(server, request).await.map(drop)
}
