//! The flags that every driver has.

use std::path::PathBuf;

/// A compute driver of Cofferdam.
#[derive(Debug, Clone, clap::Parser)]
#[command(disable_version_flag = true)]
pub struct Args {
    /// Listen on a socket of its own at this path. Without it, the listener must be inherited
    /// (`LISTEN_FDS`, `COFFERDAM_LISTEN_FD`).
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Mode of that socket, in octal digits.
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = octal)]
    pub socket_mode: u32,

    /// User that may call, besides root, this user, and the owner of an inherited listener.
    /// Repeatable.
    #[arg(long, value_name = "UID")]
    pub allow_uid: Vec<u32>,

    /// How long calls may take to end after SIGTERM, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub drain_timeout_s: u64,

    /// How log lines on stderr look. What is logged is chosen by the environment variable
    /// `COFFERDAM_LOG`: `info`, `debug`, `cofferdam_driver_sdk=debug`.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Print name, version and contract, and exit.
    #[arg(short = 'V', long)]
    pub version: bool,

    /// Print name, version, contract and schemas as JSON, and exit.
    #[arg(long)]
    pub describe: bool,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("a mode has up to three octal digits: 600, 660".to_owned()),
    }
}
