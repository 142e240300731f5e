//! `cofferdam completion`: scripts for shells.

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::Shell as Generator;

use super::DONE;
use crate::cli::Cli;
use crate::error::CommandError;
use crate::ui::Ui;

/// Write a completion script for a shell.
///
/// For bash: source <(cofferdam completion bash)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(args: Args, ui: &Ui) -> Result<u8, CommandError> {
    let generator = match args.shell {
        Shell::Bash => Generator::Bash,
        Shell::Zsh => Generator::Zsh,
        Shell::Fish => Generator::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(generator, &mut Cli::command(), "cofferdam", &mut script);
    ui.out(&String::from_utf8_lossy(&script))?;
    Ok(DONE)
}
