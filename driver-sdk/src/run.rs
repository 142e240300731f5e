//! The process around a driver: where it listens, who may call, how it ends.
//!
//! ```text
//!   main ─► parse flags ─► listen (inherited descriptor, or a socket of its own) ─► serve
//!                                                                                     │
//!   SIGTERM, SIGINT ─► stop accepting ─► end streams ─► wait for calls ─► deadline ─► exit
//!   a second one    ─► exit at once
//!   the gateway that started it is gone ─► as the first signal
//! ```
//!
//! Sandboxes are not touched by the end of their driver.
//!
//! # Where it listens
//! - `--socket PATH`: a socket of its own, removed at the end.
//! - `LISTEN_FDS=N` (and `LISTEN_PID`, which must then be this process): descriptors from 3 on, as
//!   systemd passes them. `LISTEN_PID` may be absent: a parent that cannot know the pid before the
//!   fork leaves it out.
//! - `COFFERDAM_LISTEN_FD=N`: the one descriptor N. It goes before `LISTEN_FDS`.
//!
//! # Who may call
//! The kernel says whose process is on the other side of each connection (`SO_PEERCRED`). Allowed
//! are root, the user of this process, the users of `--allow-uid`, and with an inherited listener
//! the user of the parent process, which owns it.

mod args;
mod listen;
mod parent;
mod peers;
mod serve;
mod signals;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use crate::context::Context;
use crate::driver::ComputeDriver;
use crate::server::{CONTRACT, Server};
use crate::settings::SchemaError;

pub use args::{Args, LogFormat};
pub use listen::{ListenError, Listeners};
pub use peers::Peers;
pub use serve::serve;
#[cfg(feature = "fake")]
pub(crate) use serve::{http2, routes};
pub(crate) use signals::Signals;

/// Runs a driver as a process: the whole of its `main`. `new` makes the driver, without touching
/// the platform; settings come later, by [`ComputeDriver::configure`].
pub fn run<D: ComputeDriver>(new: impl FnOnce(Context) -> D) -> ExitCode {
    run_with(std::env::args_os(), new)
}

/// As [`run`], with these arguments, the first of which is the program's name.
pub fn run_with<D: ComputeDriver>(
    arguments: impl IntoIterator<Item = OsString>,
    new: impl FnOnce(Context) -> D,
) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    if args.version {
        return print(&version_line::<D>());
    }
    if args.describe {
        return print(&description::<D>());
    }
    log_to_stderr(&args);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail::<D>(&RunError::Runtime(error)),
    };
    let ended = runtime.block_on(run_async(&args, new));
    // What still runs has had its time; sandboxes are processes of their own.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail::<D>(&error),
    }
}

/// Why a driver process could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is nothing to listen on, or it cannot be used.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A mistake in the driver.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The kernel gives no threads or no signals.
    #[error("the runtime cannot be started")]
    Runtime(#[source] std::io::Error),
}

async fn run_async<D: ComputeDriver>(
    args: &Args,
    new: impl FnOnce(Context) -> D,
) -> Result<(), RunError> {
    let listeners = Listeners::open(args)?;
    let signals = Signals::new().map_err(RunError::Runtime)?;
    let peers = Peers::new(&args.allow_uid, listeners.are_inherited());
    let context = Context::new();
    let server = Server::new(new(context.clone()), context)?;
    tracing::info!(
        driver.name = D::NAME,
        driver.version = D::VERSION,
        incarnation = %server.context().incarnation,
        listening = %listeners,
        "the driver is up"
    );
    // Only a service manager that asked for it is told; an error concerns nobody.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let drain_max = Duration::from_secs(args.drain_timeout_s);
    serve(
        server,
        listeners,
        peers,
        first_reason_to_end(&signals),
        drain_max,
        signals.second(),
    )
    .await;
    tracing::info!(
        driver.name = D::NAME,
        "the driver has ended; its sandboxes have not"
    );
    Ok(())
}

fn first_reason_to_end(signals: &Signals) -> impl Future<Output = ()> + Send + use<> {
    let signal = signals.first();
    async move {
        tokio::select! {
            () = signal => {}
            () = parent::gone() => {}
        }
    }
}

fn print(text: &str) -> ExitCode {
    // Whoever closes the pipe has read enough.
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}

#[allow(
    clippy::print_stderr,
    reason = "a usage error is for the person at the terminal"
)]
fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        eprint!("{error}");
        ExitCode::from(2)
    } else {
        print(error.to_string().trim_end())
    }
}

#[allow(
    clippy::print_stderr,
    reason = "why the process ends, for whoever started it"
)]
fn fail<D: ComputeDriver>(error: &RunError) -> ExitCode {
    let mut text = format!("cofferdam-driver-{}: {error}", D::NAME);
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    eprintln!("{text}");
    if let RunError::Listen(ListenError::Nowhere) = error {
        eprintln!("\n{}", what_this_is::<D>());
        return ExitCode::from(2);
    }
    ExitCode::FAILURE
}

/// For somebody who runs it by hand.
fn what_this_is<D: ComputeDriver>() -> String {
    let name = D::NAME;
    format!(
        "This is the {name} driver of Cofferdam: a program that a gateway starts, or that runs as \
         a service of its own, and that makes sandboxes for the gateway. It is of no use alone.\n\
         \n\
         To run something in a sandbox:     cofferdam run -- COMMAND\n\
         To run this driver as a service:   cofferdam-driver-{name} --socket PATH\n\
         and tell the gateway about it:     cofferdam-gateway --compute-driver-socket {name}=PATH"
    )
}

fn version_line<D: ComputeDriver>() -> String {
    format!(
        "cofferdam-driver-{} {} (cofferdam.compute.v1 revisions {} to {})",
        D::NAME,
        D::VERSION,
        CONTRACT.min,
        CONTRACT.max
    )
}

/// What can be said without a platform, as JSON: for packagers and documentation.
fn description<D: ComputeDriver>() -> String {
    let schema = |text: &str| serde_json::from_str(text).unwrap_or(serde_json::Value::Null);
    let description = serde_json::json!({
        "name": D::NAME,
        "version": D::VERSION,
        "contract": {"package": "cofferdam.compute.v1", "min": CONTRACT.min, "max": CONTRACT.max},
        "settings_schema": schema(D::settings_schema()),
        "driver_config_schema": schema(D::driver_config_schema()),
    });
    format!("{description:#}")
}

/// Text has no time where the socket was handed in: who starts drivers like that, the gateway or a
/// service manager, notes the time of every line itself.
pub(crate) fn log_to_stderr(args: &Args) {
    use tracing_subscriber::EnvFilter;

    let filter =
        EnvFilter::try_from_env("COFFERDAM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Somebody who embeds the driver may have set up a log already.
    let _ = match args.log_format {
        LogFormat::Text if args.socket.is_none() => log.without_time().try_init(),
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}

/// A future that may never come, as [`serve`] takes it.
pub(crate) trait Event: Future<Output = ()> + Send {}
impl<F: Future<Output = ()> + Send> Event for F {}
