//! The gateway's end of one sandbox's byte stream: a directory, a socket in it, and the session with
//! the supervisor that connects there.
//!
//! ```text
//!  listen ──► accept ──► hello (both prove the token) ──► HTTP/2 ──► first Ping ──► Session
//!    │                                                                               │
//!    ├─ close: as when the gateway dies          cut, Shape: what a stream can meet ─┘
//!    └─ refuse: SANDBOX_GONE, and it is counted who still calls
//! ```

mod hello;
mod relay;
mod session;

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cofferdam_gateway::transport;
use cofferdam_proto::hello::KEY_BYTES;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::case::Stop;
use crate::suite::Suite;

pub(crate) use relay::Shape;
pub(crate) use session::Session;

pub(crate) type Token = [u8; KEY_BYTES];

const SOCKET: &str = "gateway.sock";

/// The end of a deleted sandbox's stream reaches the suite a moment after the answer.
const END_NOTICE: Duration = Duration::from_millis(300);

const NOTHING_CONNECTS: &str = "start the handshake's supervisor in the sandbox with `--callback`, \
    and make the callback directory (not the socket file) reachable for it: docs/supervisor.md";

/// One sandbox's callback. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Callback(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    suite: Suite,
    sandbox_id: String,
    directory: PathBuf,
    state: watch::Sender<State>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What a supervisor may prove itself with; the newest last.
    accepted: Vec<Token>,
    listening: Option<CancellationToken>,
    shape: Option<Shape>,
    /// The sandbox was deleted: nobody has any business here.
    refuses: bool,
    /// It was deleted, and its supervisor still had a session.
    has_outlived: bool,
    sessions: u64,
}

/// What has happened on the socket.
#[derive(Debug, Clone, Default)]
struct State {
    session: Option<Session>,
    connections: u64,
    /// Why the last connection did not become a session.
    trouble: Option<String>,
}

impl Callback {
    /// Makes the directory and listens in it.
    pub(crate) fn open(suite: &Suite, sandbox_id: &str, token: Token) -> Result<Self, Stop> {
        // As a gateway's: others on this host must not get to any sandbox's socket.
        let parent = suite.runtime_dir().join("callback");
        make_directory(&parent, 0o700)?;
        let directory = parent.join(sandbox_id);
        make_directory(&directory, 0o755)?;
        let callback = Self(Arc::new(Shared {
            suite: suite.clone(),
            sandbox_id: sandbox_id.to_owned(),
            directory,
            state: watch::Sender::default(),
            inner: Mutex::default(),
        }));
        callback.add_token(token);
        callback.listen()?;
        Ok(callback)
    }

    /// What the driver is told.
    pub(crate) fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// A new boot proves itself with this one; those before stay valid until it has.
    pub(crate) fn add_token(&self, token: Token) {
        self.inner().accepted.push(token);
    }

    /// Binds a new socket file, as a gateway that was started again.
    pub(crate) fn listen(&self) -> Result<(), Stop> {
        let path = self.0.directory.join(SOCKET);
        let problem = |error| ours(&format!("listen on {}", path.display()), &error);
        let listener = transport::bind(&path).map_err(problem)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).map_err(problem)?;
        let listener = UnixListener::from_std(listener).map_err(problem)?;
        let cancel = self.0.suite.cancel().child_token();
        self.inner().listening = Some(cancel.clone());
        let callback = self.clone();
        self.0.suite.tasks().spawn(async move {
            let accepting = callback.accept(listener, &cancel);
            cancel.run_until_cancelled(accepting).await;
        });
        Ok(())
    }

    /// Takes the socket away, as when the gateway dies. A session that is up stays.
    pub(crate) fn close(&self) {
        if let Some(listening) = self.inner().listening.take() {
            listening.cancel();
        }
        let _ = std::fs::remove_file(self.0.directory.join(SOCKET));
    }

    /// What streams go through from now on.
    pub(crate) fn set_shape(&self, shape: Option<Shape>) {
        self.inner().shape = shape;
    }

    /// From now on nobody should call, and who does is sent away for good.
    pub(crate) async fn refuse(&self) -> Result<(), Stop> {
        let outlived = match self.current() {
            Some(session) => !session.ends_within(END_NOTICE).await,
            None => false,
        };
        // What called before, and is not taken yet, is no straggler: that goes with the old socket.
        self.close();
        let mut inner = self.inner();
        inner.refuses = true;
        inner.has_outlived = outlived;
        drop(inner);
        self.0.state.send_modify(|state| {
            state.connections = 0;
            if let Some(session) = state.session.take() {
                session.cut();
            }
        });
        self.listen()
    }

    /// Whether its supervisor had a session when it was refused: then it calls again.
    pub(crate) fn has_outlived(&self) -> bool {
        self.inner().has_outlived
    }

    /// How many connections there were, or since `refuse`.
    pub(crate) fn connections(&self) -> u64 {
        self.0.state.borrow().connections
    }

    /// The session, once it is up.
    pub(crate) async fn session(&self) -> Result<Session, Stop> {
        let suite = &self.0.suite;
        suite.step(format!(
            "waiting for the supervisor of {}",
            self.0.sandbox_id
        ));
        let patience = suite.patience();
        if let Some(session) = self.session_within(patience).await {
            return Ok(session);
        }
        let seconds = patience.as_secs();
        let socket = self.0.directory.join(SOCKET);
        let state = self.0.state.borrow().clone();
        let stop = match (state.connections, state.trouble) {
            (0, _) => Stop::failed(format!(
                "nothing has connected to {} within {seconds} s",
                socket.display()
            ))
            .with_fix(NOTHING_CONNECTS),
            (count, trouble) => Stop::failed(format!(
                "{count} connections to {} within {seconds} s, and none became a session: {}",
                socket.display(),
                trouble.unwrap_or_else(|| "the hello was not finished".to_owned())
            )),
        };
        Err(stop)
    }

    /// The same, as long as one likes to wait.
    pub(crate) async fn session_within(&self, patience: Duration) -> Option<Session> {
        self.session_that(patience, |_| true).await
    }

    /// A session that is wanted.
    pub(crate) async fn session_that(
        &self,
        patience: Duration,
        is_wanted: impl Fn(&Session) -> bool,
    ) -> Option<Session> {
        let mut state = self.0.state.subscribe();
        let is_up = |state: &State| {
            let session = state.session.as_ref();
            session.is_some_and(|session| session.is_up() && is_wanted(session))
        };
        let found = timeout(patience, state.wait_for(is_up)).await.ok()?.ok()?;
        found.session.clone()
    }

    /// The session that is up now.
    pub(crate) fn current(&self) -> Option<Session> {
        let session = self.0.state.borrow().session.clone();
        session.filter(Session::is_up)
    }

    async fn accept(&self, listener: UnixListener, closed: &CancellationToken) {
        while let Ok((stream, _)) = listener.accept().await {
            let (refuses, shape) = {
                let inner = self.inner();
                (inner.refuses, inner.shape)
            };
            let is_counted = self.0.state.send_if_modified(|state| {
                state.connections += u64::from(!closed.is_cancelled());
                !closed.is_cancelled()
            });
            if !is_counted {
                break;
            }
            let callback = self.clone();
            let cancel = self.0.suite.cancel().child_token();
            self.0.suite.tasks().spawn(async move {
                let greeted = cancel.run_until_cancelled(callback.greet(stream, refuses, shape));
                if let Some(Err(trouble)) = greeted.await {
                    callback
                        .0
                        .state
                        .send_modify(|state| state.trouble = Some(trouble));
                }
            });
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Stop> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(ours(&format!("make {}", path.display()), &error));
        }
        _ => {}
    }
    // Whatever the umask says.
    std::fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|error| ours(&format!("change the mode of {}", path.display()), &error))
}

/// Not the driver's fault.
fn ours(operation: &str, error: &std::io::Error) -> Stop {
    Stop::failed(format!("the suite itself cannot {operation}: {error}"))
        .with_fix("give the suite a temporary directory of its own: TMPDIR")
}
