//! A gateway of our own, for as long as one command runs.
//!
//! The seam to `cofferdam_gateway`'s own life: nothing else in this crate starts or examines one. It lives
//! on threads of its own, so that a stalled terminal here holds up nothing there.

use std::error::Error;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use cofferdam_gateway::config::Host;
pub(crate) use cofferdam_gateway::embed::Remains;
use cofferdam_gateway::embed::{self, EmbedError, EmbedOptions};
use cofferdam_gateway::service::{self, Examined};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use crate::error::{CommandError, Kind};
use crate::libexec;

/// Somebody looks at what comes of it, and will wait.
const CLEAR_PATIENCE: Duration = Duration::from_secs(20);

/// What an embedded gateway is to be.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The driver that is wanted. None: the gateway's own default.
    pub(crate) driver: Option<String>,
    /// Third parties' drivers, by name and socket.
    pub(crate) driver_sockets: Vec<(String, PathBuf)>,
}

/// A gateway that runs in this process.
#[derive(Debug)]
pub(crate) struct Embedded {
    pub(crate) socket: PathBuf,
    /// Dropped, it asks for the end.
    stop: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Embedded {
    /// Starts it and waits until its drivers have answered.
    pub(crate) async fn start(options: Options) -> Result<Self, CommandError> {
        let options = embed_options(options, libexec::find()?);
        log_if_asked();
        let (started, socket) = oneshot::channel();
        let (stop, stop_asked) = oneshot::channel();
        let (done, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("gateway".to_owned())
            .spawn(move || live(options, started, stop_asked, done))
            .map_err(|error| CommandError::io("cannot start a thread", error))?;
        let socket = socket.await.unwrap_or_else(|_| {
            Err(CommandError::new(
                Kind::Internal,
                "the gateway that was brought along died at once",
            ))
        })?;
        Ok(Self {
            socket,
            stop,
            stopped,
            thread,
        })
    }

    /// Ends what still runs, removes what is left, and returns when that is done. When it is
    /// cancelled the removal goes on until the process ends.
    pub(crate) async fn shutdown(self) {
        drop(self.stop);
        // An error means that the thread has ended, too.
        let _ = self.stopped.await;
        // A panic there has been shown; the result of the command is not changed by it.
        let _ = self.thread.join();
    }
}

fn embed_options(options: Options, libexec_dir: PathBuf) -> EmbedOptions {
    let is_third_party = |wanted: &String| {
        options
            .driver_sockets
            .iter()
            .any(|(name, _)| name == wanted)
    };
    let built_in = options.driver.clone().filter(|name| !is_third_party(name));
    EmbedOptions {
        libexec_dir,
        drivers: built_in.into_iter().collect(),
        driver_sockets: options.driver_sockets,
        default_driver: options.driver,
    }
}

/// The gateway's whole life, on its own thread.
fn live(
    options: EmbedOptions,
    started: oneshot::Sender<Result<PathBuf, CommandError>>,
    stop_asked: oneshot::Receiver<()>,
    done: oneshot::Sender<()>,
) {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            // The command waits for the answer: it cannot have gone.
            let _ = started.send(Err(CommandError::io("cannot start an event loop", error)));
            return;
        }
    };
    runtime.block_on(async {
        let gateway = match embed::start(options).await {
            Ok(gateway) => gateway,
            Err(error) => {
                let _ = started.send(Err(could_not_start(&error)));
                return;
            }
        };
        gateway.ready().await;
        if started.send(Ok(gateway.socket().to_path_buf())).is_ok() {
            // The command has ended, in whichever way.
            let _ = stop_asked.await;
        }
        gateway.shutdown().await;
    });
    let _ = done.send(());
}

/// Removes what the gateways left that were brought along by commands which were killed.
pub(crate) async fn clear_dead() -> Result<Vec<Remains>, CommandError> {
    Ok(embed::clear_dead(&libexec::find()?, CLEAR_PATIENCE).await)
}

/// What the service of this user, which does not run, would start with.
pub(crate) async fn examine_service() -> Result<Examined, CommandError> {
    let examined = service::examine(&Host::here()).await;
    examined.map_err(|error| {
        let (problems, hint) = on_one_line(&error.to_string());
        let told = CommandError::new(Kind::NoGateway, problems);
        match hint {
            Some(hint) => told.hint(hint),
            None => told,
        }
    })
}

/// It lists its problems as lines, each with its hint below; we have one line for all of them.
fn could_not_start(error: &EmbedError) -> CommandError {
    let (problems, hint) = on_one_line(&error.to_string());
    let told = CommandError::new(
        Kind::NoGateway,
        format!("no gateway runs, and the one to be brought along did not start: {problems}"),
    );
    let told = match hint {
        Some(hint) => told.hint(hint),
        None => told,
    };
    match causes(error) {
        Some(causes) => told.caused_by(causes),
        None => told,
    }
}

const HINT: &str = "hint:";

/// The problems, and the hints if there are any.
fn on_one_line(text: &str) -> (String, Option<String>) {
    let (hints, problems): (Vec<&str>, Vec<&str>) = text
        .lines()
        .partition(|line| line.trim_start().starts_with(HINT));
    let problems = problems.join("; ").replace(":; ", ": ");
    let hints: Vec<&str> = hints
        .iter()
        .map(|line| line.trim_start().trim_start_matches(HINT).trim_start())
        .collect();
    (problems, (!hints.is_empty()).then(|| hints.join("; ")))
}

/// Everything below an error, outermost first.
pub(crate) fn causes(error: &dyn Error) -> Option<String> {
    let below = std::iter::successors(error.source(), |&cause| cause.source());
    let texts: Vec<String> = below.map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(": "))
}

/// What the gateway logs is shown only when COFFERDAM_LOG says so: "info", "debug", …
fn log_if_asked() {
    if let Ok(filter) = EnvFilter::try_from_env("COFFERDAM_LOG") {
        // Only the first one counts, and there is only one.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .try_init();
    }
}

/// "NAME=PATH"
pub(crate) fn parse_driver_socket(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(path)))
        }
        _ => Err(format!("{text:?} is not NAME=PATH")),
    }
}
