//! The fake driver, with one thing twisted that cannot be said in a script: what is done with a byte
//! stream, with commands, pauses and snapshots, and what is claimed of limits.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_conformance::Report;
use cofferdam_driver_sdk::fake::{FakeDriver, FakeSettings};
use cofferdam_driver_sdk::proto::image_spec::Source;
use cofferdam_driver_sdk::proto::run_command_response::Event;
use cofferdam_driver_sdk::proto::{
    Capabilities, FingerprintResponse, Handle, HostImage, ImageSpec, Limits, PrepareImageResponse,
    ReadConsoleRequest, RunCommandRequest, RunCommandResponse, Sandbox, SandboxStatsResponse,
    SnapshotSandboxResponse, TerminationReason,
};
use cofferdam_driver_sdk::run::{Listeners, Peers, serve};
use cofferdam_driver_sdk::server::Server;
use cofferdam_driver_sdk::supervisor::Token;
use cofferdam_driver_sdk::{
    Call, ComputeDriver, Context, CreateRequest, Created, DriverError, DriverStream, Inventory,
    RecoverItem, Recovered,
};
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::support::Place;

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twist {
    /// Nothing.
    None,
    /// Of each sandbox only the first connection is relayed.
    RelaysOnce,
    /// The relay loses some bytes of each connection's second megabyte.
    LosesBytes,
    /// Every exit code is 0.
    CommandsSucceed,
    /// The stream of a command ends without telling how.
    CommandsEndSilently,
    /// The same command again runs again.
    CommandsRunAgain,
    /// Who attaches gets all output, wherever from.
    CommandsFromTheStart,
    /// A paused sandbox runs.
    PausesNothing,
    /// A restored sandbox is an empty one.
    RestoresNothing,
    /// All limits are claimed, and none is enforced.
    LimitsNothing,
    /// Statistics are claimed, and are zero.
    MeasuresNothing,
    /// While a sandbox is stopped, nothing else is done.
    StopsAlone,
    /// Whatever supervisor there is, is started.
    AnySupervisor,
    /// A supervisor that is not the handshake's is a fault of the driver.
    BlamesItself,
    /// A supervisor that was killed has ended with 128 and the signal's number.
    SignalsAsCodes,
    /// Nothing, and it takes archives.
    Archives,
    /// The same, and every archive is ready, whether it is there or not.
    ArchivesInvented,
    /// The same, and nobody is told that one is ready.
    ArchivesEndless,
}

impl Twist {
    /// Claims that it takes archives, and makes its sandboxes of the host's directories.
    fn takes_archives(self) -> bool {
        let takers = [
            Self::Archives,
            Self::ArchivesInvented,
            Self::ArchivesEndless,
        ];
        takers.contains(&self)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Twisted {
    fake: FakeDriver,
    twist: Twist,
    context: Context,
    /// For relays.
    directory: PathBuf,
    /// Of one that stops alone.
    turn: Arc<tokio::sync::Mutex<()>>,
    commands: Arc<AtomicU64>,
}

/// Runs these cases against a driver that is twisted like this.
pub(crate) async fn run(twist: Twist, cases: &[&str], runs_commands: bool) -> Report {
    let mut place = Place::new();
    place.options.cases = cases.iter().map(|case| (*case).to_owned()).collect();
    place.options.config.timing.patience_s = 15;
    if twist.takes_archives() {
        let archive = place.directory.path().join("image.tar");
        std::fs::write(&archive, "an image").unwrap();
        place.options.config.sandbox.archive = Some(archive);
    }
    let settings = &mut place.options.config.settings;
    settings.insert("run_commands".to_owned(), runs_commands.into());
    let listeners = Listeners::bind(&place.options.socket, 0o600).unwrap();
    let context = Context::new();
    let twisted = Twisted {
        fake: FakeDriver::new(context.clone()),
        twist,
        context: context.clone(),
        directory: place.directory.path().to_owned(),
        turn: Arc::default(),
        commands: Arc::default(),
    };
    let server = Server::new(twisted, context).unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(
        server,
        listeners,
        Peers::new(&[], false),
        stop.clone().cancelled_owned(),
        Duration::from_secs(5),
        std::future::pending(),
    ));
    let report = place.run().await.unwrap();
    stop.cancel();
    serving.await.unwrap();
    report
}

impl Twisted {
    /// Puts a relay of its own between the supervisor and the gateway's socket.
    fn relayed(&self, sandbox_id: &str, gateway: &Path) -> PathBuf {
        let directory = self.directory.join(sandbox_id);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        let socket = directory.join("gateway.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
        let gateway = gateway.join("gateway.sock");
        let (twist, shutdown) = (self.twist, self.context.shutdown.clone());
        self.context.tasks.spawn(async move {
            let relay = async {
                while let Ok((near, _)) = listener.accept().await {
                    let Ok(far) = UnixStream::connect(&gateway).await else {
                        continue;
                    };
                    carry(near, far, twist).await;
                    if twist == Twist::RelaysOnce {
                        return;
                    }
                }
            };
            shutdown.run_until_cancelled(relay).await;
        });
        directory
    }
}

/// Both ways, until one of them ends.
async fn carry(near: UnixStream, far: UnixStream, twist: Twist) {
    let (mut from_sandbox, mut to_sandbox) = near.into_split();
    let (mut from_gateway, mut to_gateway) = far.into_split();
    let down = tokio::io::copy(&mut from_gateway, &mut to_sandbox);
    let up = async {
        let mut buffer = vec![0; 16 * 1024];
        let mut carried = 0;
        while let Ok(count @ 1..) = from_sandbox.read(&mut buffer).await {
            let before = carried;
            carried += count;
            let loses = twist == Twist::LosesBytes && before < 1 << 20 && carried >= 1 << 20;
            let kept = if loses { count / 2 } else { count };
            if to_gateway.write_all(&buffer[..kept]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = down => {}
        () = up => {}
    }
}

/// Of a file's bytes.
fn digest(path: &str) -> Bytes {
    let bytes = std::fs::read(path).unwrap();
    Bytes::copy_from_slice(&Sha256::digest(bytes))
}

fn all_limits() -> Limits {
    Limits {
        memory: true,
        cpu: true,
        pids: true,
        disk: true,
    }
}

impl ComputeDriver for Twisted {
    const NAME: &'static str = "twisted";
    const VERSION: &'static str = FakeDriver::VERSION;
    type Settings = FakeSettings;

    fn description(&self) -> String {
        self.fake.description()
    }

    fn settings_schema() -> &'static str {
        FakeDriver::settings_schema()
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = self.fake.capabilities();
        match self.twist {
            Twist::LimitsNothing => can.limits = Some(all_limits()),
            Twist::MeasuresNothing => can.stats = true,
            twist if twist.takes_archives() => {
                can.images.get_or_insert_default().archive = true;
            }
            _ => {}
        }
        can
    }

    async fn configure(&self, settings: FakeSettings) -> Result<(), DriverError> {
        self.fake.configure(settings).await
    }

    async fn fingerprint(&self) -> FingerprintResponse {
        let mut print = self.fake.fingerprint().await;
        if self.twist == Twist::LimitsNothing {
            print.limits = Some(all_limits());
        }
        print
    }

    async fn create(&self, call: &Call, request: CreateRequest) -> Result<Created, DriverError> {
        let mut request = request;
        let mut call = call.clone();
        if self.twist.takes_archives() {
            let image = request.spec.image.get_or_insert_default();
            image.source = Some(Source::Host(HostImage {}));
        }
        if let Some(supervisor) = &mut Arc::make_mut(&mut call.gateway).supervisor {
            let is_right = digest(&supervisor.path) == supervisor.sha256;
            match self.twist {
                Twist::AnySupervisor => supervisor.sha256 = digest(&supervisor.path),
                Twist::BlamesItself if !is_right => {
                    return Err(DriverError::internal("looking at the supervisor"));
                }
                _ => {}
            }
        }
        if matches!(self.twist, Twist::RelaysOnce | Twist::LosesBytes)
            && let Some(directory) = request.callback_directory.take()
        {
            let relayed = self.relayed(&request.sandbox_id, &directory);
            request.callback_directory = Some(relayed);
        }
        self.fake.create(&call, request).await
    }

    async fn recover(&self, call: &Call, item: RecoverItem) -> Recovered {
        self.fake.recover(call, item).await
    }

    async fn start(&self, call: &Call, id: &str, token: Token) -> Result<Sandbox, DriverError> {
        self.fake.start(call, id, token).await
    }

    async fn stop(&self, call: &Call, id: &str, grace: Duration) -> Result<Sandbox, DriverError> {
        let turn = match self.twist {
            Twist::StopsAlone => Some(self.turn.lock().await),
            _ => None,
        };
        let stopped = self.fake.stop(call, id, grace).await;
        drop(turn);
        stopped
    }

    async fn delete(&self, call: &Call, id: &str) -> Result<(), DriverError> {
        drop(self.turn.lock().await);
        self.fake.delete(call, id).await
    }

    async fn get(&self, call: &Call, id: &str) -> Result<Sandbox, DriverError> {
        let mut sandbox = self.fake.get(call, id).await?;
        if self.twist == Twist::SignalsAsCodes
            && let Some(ended) = &mut sandbox.termination
            && ended.reason() == TerminationReason::Signaled
        {
            ended.set_reason(TerminationReason::Exited);
            ended.exit_code = 128 + i32::try_from(std::mem::take(&mut ended.signal)).unwrap();
        }
        Ok(sandbox)
    }

    async fn prepare_image(
        &self,
        _call: &Call,
        image: ImageSpec,
    ) -> Result<DriverStream<PrepareImageResponse>, DriverError> {
        let Some(Source::Archive(path)) = image.source else {
            return Err(DriverError::invalid_field("image", "must be an archive"));
        };
        if !Path::new(&path).exists() && self.twist != Twist::ArchivesInvented {
            return Err(DriverError::not_found("image", path));
        }
        let told = [false, self.twist != Twist::ArchivesEndless].map(|done| {
            Ok(PrepareImageResponse {
                done,
                digest: "sha256:0123".to_owned(),
                ..PrepareImageResponse::default()
            })
        });
        Ok(Box::pin(futures_util::stream::iter(told)))
    }

    async fn list(&self, call: &Call) -> Result<Inventory, DriverError> {
        self.fake.list(call).await
    }

    async fn read_console(
        &self,
        call: &Call,
        request: ReadConsoleRequest,
    ) -> Result<DriverStream<Bytes>, DriverError> {
        self.fake.read_console(call, request).await
    }

    async fn stats(&self, call: &Call, id: &str) -> Result<SandboxStatsResponse, DriverError> {
        let sandbox = self.fake.get(call, id).await?;
        Ok(SandboxStatsResponse {
            time_unix_ms: sandbox.start_time_unix_ms,
            cpu_us: Some(0),
            memory_bytes: Some(0),
            pids: Some(0),
            ..SandboxStatsResponse::default()
        })
    }

    async fn run_command(
        &self,
        call: &Call,
        mut request: RunCommandRequest,
    ) -> Result<DriverStream<RunCommandResponse>, DriverError> {
        let twist = self.twist;
        match twist {
            Twist::CommandsRunAgain => {
                let number = self.commands.fetch_add(1, Ordering::Relaxed);
                request.command_id = format!("run-{number}");
            }
            Twist::CommandsFromTheStart => request.from_offset = 0,
            _ => {}
        }
        let events = self.fake.run_command(call, request).await?;
        Ok(Box::pin(events.filter_map(move |event| async move {
            twisted(twist, event)
        })))
    }

    async fn pause(&self, call: &Call, id: &str) -> Result<Sandbox, DriverError> {
        let paused = self.fake.pause(call, id).await?;
        if self.twist == Twist::PausesNothing {
            self.fake.resume(call, id).await?;
        }
        Ok(paused)
    }

    async fn resume(&self, call: &Call, id: &str) -> Result<Sandbox, DriverError> {
        self.fake.resume(call, id).await
    }

    async fn snapshot(
        &self,
        call: &Call,
        id: &str,
        snapshot_id: &str,
    ) -> Result<SnapshotSandboxResponse, DriverError> {
        self.fake.snapshot(call, id, snapshot_id).await
    }

    async fn restore(
        &self,
        call: &Call,
        snapshot_id: &str,
        handle: Option<Handle>,
        request: CreateRequest,
    ) -> Result<Created, DriverError> {
        match self.twist {
            Twist::RestoresNothing => self.fake.create(call, request).await,
            _ => self.fake.restore(call, snapshot_id, handle, request).await,
        }
    }

    async fn delete_snapshot(
        &self,
        call: &Call,
        snapshot_id: &str,
        handle: Option<Handle>,
    ) -> Result<(), DriverError> {
        self.fake.delete_snapshot(call, snapshot_id, handle).await
    }

    async fn shutdown(&self) {
        self.fake.shutdown().await;
    }
}

fn twisted(
    twist: Twist,
    event: Result<RunCommandResponse, DriverError>,
) -> Option<Result<RunCommandResponse, DriverError>> {
    let mut event = event;
    if let Ok(RunCommandResponse {
        event: Some(Event::Exited(exited)),
    }) = &mut event
    {
        match twist {
            Twist::CommandsEndSilently => return None,
            Twist::CommandsSucceed => {
                if let Some(termination) = &mut exited.termination {
                    termination.exit_code = 0;
                }
            }
            _ => {}
        }
    }
    Some(event)
}
