//! The command line: where the stream is, and where the bootstrap is. Never a secret.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use thiserror::Error;

/// What is printed when the command line does not parse.
pub(crate) const USAGE: &str = "usage: cofferdam-supervisor \
--callback dir:PATH|dirfd:N|stdio|virtio:NAME --config-fd N|--config-file PATH|--config-stdin";

/// Where the byte stream to the gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Callback {
    /// A directory that holds `gateway.sock`. The directory, since a restarted gateway binds a new
    /// socket in it.
    Directory(PathBuf),
    /// The same, as an inherited descriptor, so that nothing of it is visible in the sandbox.
    DirectoryFd(RawFd),
    /// Standard input and output are the stream.
    Stdio,
    /// A virtio-serial port, found by its name.
    VirtioPort(String),
}

/// Where the bootstrap is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BootstrapSource {
    Fd(RawFd),
    /// Unlinked once it has been read.
    File(PathBuf),
    /// The first line of standard input; what follows may be the stream.
    Stdin,
}

/// What the supervisor was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Args {
    Run {
        callback: Callback,
        bootstrap: BootstrapSource,
    },
    Version,
}

/// The command line makes no sense.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ArgsError {
    #[error("{0}: not an option")]
    Unknown(String),
    #[error("{0}: needs a value")]
    NoValue(&'static str),
    #[error("--callback {0}: not one of dir:PATH, dirfd:N, stdio, virtio:NAME")]
    Callback(String),
    #[error("{0}: not a descriptor above 2")]
    Descriptor(String),
    #[error("{0} is missing")]
    Missing(&'static str),
}

/// Parses what follows the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Args, ArgsError> {
    let mut arguments = arguments.into_iter();
    let mut callback = None;
    let mut bootstrap = None;
    while let Some(argument) = arguments.next() {
        let mut value = |name| arguments.next().ok_or(ArgsError::NoValue(name));
        match argument.to_str() {
            Some("--version") => return Ok(Args::Version),
            Some("--callback") => callback = Some(parse_callback(value("--callback")?)?),
            Some("--config-fd") => {
                let value = value("--config-fd")?;
                bootstrap = Some(BootstrapSource::Fd(descriptor(&value.to_string_lossy())?));
            }
            Some("--config-file") => {
                bootstrap = Some(BootstrapSource::File(value("--config-file")?.into()));
            }
            Some("--config-stdin") => bootstrap = Some(BootstrapSource::Stdin),
            _ => return Err(ArgsError::Unknown(argument.to_string_lossy().into_owned())),
        }
    }
    let callback = callback.ok_or(ArgsError::Missing("--callback"))?;
    let bootstrap = bootstrap.ok_or(ArgsError::Missing(
        "--config-fd, --config-file or --config-stdin",
    ))?;
    Ok(Args::Run {
        callback,
        bootstrap,
    })
}

fn parse_callback(value: OsString) -> Result<Callback, ArgsError> {
    let text = value.to_string_lossy().into_owned();
    match text.split_once(':') {
        Some(("dir", path)) if !path.is_empty() => Ok(Callback::Directory(path.into())),
        Some(("dirfd", number)) => Ok(Callback::DirectoryFd(descriptor(number)?)),
        Some(("virtio", name)) if !name.is_empty() => Ok(Callback::VirtioPort(name.to_owned())),
        None if text == "stdio" => Ok(Callback::Stdio),
        _ => Err(ArgsError::Callback(text)),
    }
}

/// 0 to 2 have other uses, and descriptors are closed by these names.
fn descriptor(text: &str) -> Result<RawFd, ArgsError> {
    match text.parse() {
        Ok(fd @ 3..) => Ok(fd),
        _ => Err(ArgsError::Descriptor(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args, ArgsError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn each_place_of_the_stream_is_understood() {
        for (text, callback) in [
            (
                "dir:/run/callback",
                Callback::Directory("/run/callback".into()),
            ),
            ("dirfd:5", Callback::DirectoryFd(5)),
            ("stdio", Callback::Stdio),
            (
                "virtio:sbx.gateway",
                Callback::VirtioPort("sbx.gateway".into()),
            ),
        ] {
            let args = parsed(&format!("--callback {text} --config-fd 3"));
            let bootstrap = BootstrapSource::Fd(3);
            assert_eq!(
                args,
                Ok(Args::Run {
                    callback,
                    bootstrap
                })
            );
        }
    }

    #[test]
    fn the_bootstrap_may_be_a_file() {
        let args = parsed("--config-file /run/x --callback stdio");
        let bootstrap = BootstrapSource::File("/run/x".into());
        assert_eq!(
            args,
            Ok(Args::Run {
                callback: Callback::Stdio,
                bootstrap
            })
        );
    }

    #[test]
    fn the_bootstrap_may_go_before_the_stream() {
        let args = parsed("--callback stdio --config-stdin");
        let bootstrap = BootstrapSource::Stdin;
        assert_eq!(
            args,
            Ok(Args::Run {
                callback: Callback::Stdio,
                bootstrap
            })
        );
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert_eq!(parsed("--callback"), Err(ArgsError::NoValue("--callback")));
        assert_eq!(
            parsed("--callback stdio:"),
            Err(ArgsError::Callback("stdio:".into()))
        );
        assert_eq!(
            parsed("--callback tcp:1"),
            Err(ArgsError::Callback("tcp:1".into()))
        );
        assert_eq!(
            parsed("--callback dirfd:1"),
            Err(ArgsError::Descriptor("1".into()))
        );
        assert_eq!(
            parsed("--config-fd 3"),
            Err(ArgsError::Missing("--callback"))
        );
        assert_eq!(
            parsed("--token x"),
            Err(ArgsError::Unknown("--token".into()))
        );
    }
}
