//! The gateway service: parse, build, run, drain. See `cofferdam_gateway::service`.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cofferdam_gateway::app::{App, StartError};
use cofferdam_gateway::config::{self, ConfigError, Flags, Host, Resolved};
use cofferdam_gateway::driver;
use cofferdam_gateway::service::{self, LockError, ServiceError};

/// As in sysexits.h: EX_CONFIG. systemd shows it by name.
const EXIT_CONFIG: u8 = 78;
/// As in sysexits.h: EX_TEMPFAIL; another gateway has the state directory.
const EXIT_TAKEN: u8 = 75;

/// Runs other people's code in sandboxes, for callers on a socket.
#[derive(Debug, Parser)]
#[command(name = "cofferdam-gateway", version)]
struct Cli {
    #[command(flatten)]
    flags: Flags,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the configuration without running anything
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report everything that is wrong with it; exit code 78 if anything is. Programs of drivers are
    /// asked which settings they take
    Check,
    /// Print it
    Show {
        /// Every value that is used, and where it comes from (the only way there is)
        #[arg(long)]
        effective: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let host = Host::here();
    let resolved = match config::load(&cli.flags, &host) {
        Ok(resolved) => resolved,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    match cli.command {
        Some(Command::Config(command)) => look(command, &resolved),
        None => run(resolved, &cli.flags, &host),
    }
}

#[allow(clippy::print_stderr, reason = "remarks go to stderr")]
fn look(command: ConfigCommand, resolved: &Resolved) -> ExitCode {
    for warning in &resolved.warnings {
        eprintln!("warning: {warning}");
    }
    match command {
        ConfigCommand::Check => return check_settings(resolved),
        ConfigCommand::Show { effective: _ } => say(&resolved.effective.to_string()),
    }
    ExitCode::SUCCESS
}

/// The part of the check for which programs of drivers are asked what they take.
#[allow(clippy::print_stderr, reason = "remarks go to stderr")]
fn check_settings(resolved: &Resolved) -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let mut found = Vec::new();
    for driver in &resolved.config.drivers {
        let name = &driver.name;
        match runtime.block_on(driver::check_settings(driver)) {
            Ok(violations) => {
                found.extend(violations.into_iter().map(|found| (name.clone(), found)));
            }
            Err(error) => eprintln!(
                "warning: drivers.{name}.settings: not checked: {}",
                chain(&error)
            ),
        }
    }
    if found.is_empty() {
        say("the configuration is good\n");
        return ExitCode::SUCCESS;
    }
    fail(&ConfigError::of_settings(found), EXIT_CONFIG)
}

/// To stdout. Whoever reads only the beginning, or nothing, may.
fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

fn run(resolved: Resolved, flags: &Flags, host: &Host) -> ExitCode {
    service::init_log(&resolved.config.log, host);
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let outcome = runtime.block_on(service::run(resolved.config, flags, host, announce));
    // After an orderly end nothing is left to wait for.
    runtime.shutdown_timeout(service::FORCED_PATIENCE);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ ServiceError::Lock(LockError::Taken { .. })) => fail(&error, EXIT_TAKEN),
        Err(error) => {
            let code = fail(&error, 1);
            if let ServiceError::Start(StartError::Store(store)) = &error {
                hint(store.hint());
            }
            code
        }
    }
}

/// Below what went wrong, as a configuration's problems have it.
#[allow(clippy::print_stderr, reason = "there may be no log yet")]
fn hint(text: Option<&str>) {
    if let Some(text) = text {
        eprintln!("  hint: {text}");
    }
}

/// One line for scripts and people who wait for it; the log says the same.
fn announce(app: &App) {
    let socket = app.socket().display();
    tracing::info!(%socket, version = env!("CARGO_PKG_VERSION"), "listening");
    say(&format!("listening on unix:{socket}\n"));
}

/// The whole chain of an error, on one line.
#[allow(clippy::print_stderr, reason = "there may be no log yet")]
fn fail(error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("cofferdam-gateway: {}", chain(error));
    ExitCode::from(code)
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
