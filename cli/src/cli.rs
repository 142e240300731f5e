//! What can be typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, FromArgMatches as _, Parser, Subcommand};

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

impl Cli {
    /// What was typed, or what is wrong with it.
    pub(crate) fn of(words: &[OsString]) -> Result<Self, clap::Error> {
        let matches = Self::outline().try_get_matches_from(words);
        let outlined = matches.and_then(|mut matches| Self::from_arg_matches_mut(&mut matches));
        // Only the whole can speak about itself.
        outlined.or_else(|_| Self::try_parse_from(words))
    }

    /// The same, whose commands have their flags only once they are typed: to make the flags of all
    /// commands takes as long as all the rest of a short one.
    fn outline() -> clap::Command {
        fn later<A: Args>(name: &'static str) -> clap::Command {
            clap::Command::new(name).defer(A::augment_args)
        }
        Global::augment_args(clap::Command::new("cofferdam")).subcommands([
            later::<run::Args>("run"),
            later::<create::Args>("create"),
            later::<exec::Args>("exec"),
            later::<ls::Args>("ls"),
            later::<ps::Args>("ps").alias("executions"),
            later::<inspect::Args>("inspect"),
            later::<logs::Args>("logs"),
            later::<attach::Args>("attach"),
            later::<cp::Args>("cp"),
            later::<port_forward::Args>("port-forward"),
            later::<start::Args>("start"),
            later::<stop::Args>("stop"),
            later::<rm::Args>("rm"),
            later::<cancel::Args>("cancel"),
            later::<kill::Args>("kill"),
            later::<driver::Args>("driver"),
            later::<doctor::Args>("doctor"),
            later::<completion::Args>("completion"),
            later::<version::Args>("version"),
        ])
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;

    use super::*;

    fn names(command: &clap::Command) -> Vec<String> {
        let subcommands = command.get_subcommands();
        let names = subcommands.flat_map(|subcommand| {
            let name = std::iter::once(subcommand.get_name());
            name.chain(subcommand.get_all_aliases())
        });
        names.map(str::to_owned).collect()
    }

    /// But for their order in a help text, which the whole writes.
    fn flags(command: &clap::Command) -> BTreeSet<String> {
        let arguments = command.get_arguments();
        let texts = arguments.map(|argument| {
            let text = format!("{argument:?}");
            let (before, order) = text.split_once("disp_ord: ").unwrap();
            let (_, after) = order.split_once("val_names: ").unwrap();
            format!("{before}{after}")
        });
        texts.collect()
    }

    #[test]
    fn the_outline_is_that_of_the_whole() {
        let (mut whole, mut outline) = (Cli::command(), Cli::outline());
        assert_eq!(names(&outline), names(&whole));
        whole.build();
        outline.build();
        for command in whole.get_subcommands() {
            let name = command.get_name();
            let outlined = outline.find_subcommand(name).unwrap();
            assert_eq!(flags(outlined), flags(command), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_by_the_whole() {
        let words = |line: &str| -> Vec<OsString> { line.split(' ').map(OsString::from).collect() };
        let of = |line: &str| Cli::of(&words(line));
        assert!(of("cofferdam --json exec sandbox true").is_ok());
        let error = of("cofferdam run --tiemout 3s true")
            .unwrap_err()
            .to_string();
        assert!(error.contains("'--timeout'"), "{error}");
        let help = of("cofferdam --help").unwrap_err().to_string();
        assert!(help.contains("Run a command in a fresh sandbox"), "{help}");
        let none = of("cofferdam").unwrap_err().to_string();
        assert!(none.contains("Usage: cofferdam"), "{none}");
    }
}
