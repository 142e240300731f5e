//! What can be typed.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand};

use crate::commands::{
    attach, cancel, completion, cp, create, doctor, driver, exec, inspect, kill, logs, ls,
    port_forward, ps, rm, run, start, stop, version,
};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Yellow.on_default())
    .usage(AnsiColor::Yellow.on_default())
    .literal(AnsiColor::Green.on_default());

const AFTER_HELP: &str = "\
Exit codes: the command's own; 124 timeout, 125 our failure, 126 not executable, 127 not found,
128+n signal n; 0 also after leaving a session with Ctrl-] d. With --json the reason is on the
last line of stderr.";

/// Run code in sealed sandboxes.
#[derive(Debug, Parser)]
#[command(
    name = "cofferdam",
    version,
    styles = STYLES,
    after_help = AFTER_HELP,
    max_term_width = 100,
    infer_subcommands = false,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The gateway's socket [default: a gateway of your own in $XDG_RUNTIME_DIR/cofferdam or
    /// /tmp/cofferdam-UID, then /run/cofferdam/gateway.sock] [env: COFFERDAM_GATEWAY].
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        help_heading = "Global options"
    )]
    gateway: Option<PathBuf>,
    /// Write JSON: one object, or one object a line for lists and streams.
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Write ids only, and no remarks.
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
}

impl Global {
    /// The socket that somebody has named: by the flag, or by the variable. Not left to clap,
    /// which would show the flag in every usage line while the variable is set.
    pub(crate) fn named_gateway(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os("COFFERDAM_GATEWAY").filter(|path| !path.is_empty());
        self.gateway
            .clone()
            .or_else(|| variable().map(PathBuf::from))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<run::Args>),
    Create(Box<create::Args>),
    Exec(exec::Args),
    Ls(ls::Args),
    #[command(visible_alias = "executions")]
    Ps(ps::Args),
    Inspect(inspect::Args),
    Logs(logs::Args),
    Attach(attach::Args),
    Cp(cp::Args),
    PortForward(port_forward::Args),
    Start(start::Args),
    Stop(stop::Args),
    Rm(rm::Args),
    Cancel(cancel::Args),
    Kill(kill::Args),
    Driver(driver::Args),
    Doctor(doctor::Args),
    Completion(completion::Args),
    Version(version::Args),
}
