//! Where an engine listens, as an address and nothing more.

use std::fmt;
use std::path::PathBuf;

use url::Url;

/// Engines listen there without TLS; with it one port higher.
const PORT_PLAIN: u16 = 2375;
const PORT_TLS: u16 = 2376;

/// An engine's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket on this host.
    Unix(PathBuf),
    /// Unprotected, for engines on a private wire or behind a forward.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// With TLS, and usually with a client certificate.
    Tls {
        /// Name or address, as in the engine's certificate.
        host: String,
        /// Port.
        port: u16,
        /// Key material.
        files: TlsFiles,
    },
    /// Through `ssh`, with the user's own keys and configuration.
    Ssh {
        /// `[user@]host`.
        destination: String,
        /// None: as ssh is configured.
        port: Option<u16>,
        /// The engine's socket on the other side, if not its default.
        socket: Option<String>,
    },
}

/// PEM files for TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities that may have signed the engine's certificate.
    pub ca: PathBuf,
    /// Our certificate and its key, if the engine wants one.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// An address that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EndpointError {
    /// Not in the form of a URL.
    #[error(
        "{0:?} is no address of an engine: use unix:///path, tcp://host:port or ssh://user@host"
    )]
    Malformed(String),
    /// A scheme that is not known here.
    #[error("{scheme:?} is no way to reach an engine: use unix, tcp, https or ssh")]
    Scheme {
        /// As written.
        scheme: String,
    },
    /// `https` needs to know whom to trust.
    #[error("{0:?} needs `tls.ca`: the authority that signed the engine's certificate")]
    NoAuthority(String),
}

impl Endpoint {
    /// Reads what `DOCKER_HOST`, a context or a setting says. With `tls`, tcp means TLS.
    ///
    /// # Errors
    /// When it is no address.
    pub fn parse(text: &str, tls: Option<&TlsFiles>) -> Result<Self, EndpointError> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let malformed = || EndpointError::Malformed(text.to_owned());
        let url = Url::parse(text).map_err(|_| malformed())?;
        let host = || url.host_str().map(str::to_owned).ok_or_else(malformed);
        match (url.scheme(), tls) {
            ("unix", _) if url.path().len() > 1 => Ok(Self::Unix(url.path().into())),
            ("tcp" | "https", Some(files)) => Ok(Self::Tls {
                host: host()?,
                port: url.port().unwrap_or(PORT_TLS),
                files: files.clone(),
            }),
            ("https", None) => Err(EndpointError::NoAuthority(text.to_owned())),
            ("tcp" | "http", None) => Ok(Self::Tcp {
                host: host()?,
                port: url.port().unwrap_or(PORT_PLAIN),
            }),
            ("ssh", _) => {
                let host = host()?;
                // A name that begins with a dash would be an option of ssh.
                if host.starts_with('-') || url.username().starts_with('-') {
                    return Err(malformed());
                }
                Ok(Self::Ssh {
                    destination: match url.username() {
                        "" => host,
                        user => format!("{user}@{host}"),
                    },
                    port: url.port(),
                    socket: Some(url.path().to_owned()).filter(|path| path.len() > 1),
                })
            }
            ("unix", _) => Err(malformed()),
            (scheme, _) => Err(EndpointError::Scheme {
                scheme: scheme.to_owned(),
            }),
        }
    }

    /// Whether the engine's socket is a file here. The engine may still be in a machine of its own.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Tls { host, port, .. } => write!(f, "https://{host}:{port}"),
            Self::Ssh {
                destination,
                port,
                socket,
            } => {
                write!(f, "ssh://{destination}")?;
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                f.write_str(socket.as_deref().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> String {
        match Endpoint::parse(text, None) {
            Ok(endpoint) => endpoint.to_string(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn addresses_as_people_write_them() {
        assert_eq!(parse("/run/x.sock"), "unix:///run/x.sock");
        assert_eq!(parse("unix:///run/x.sock"), "unix:///run/x.sock");
        assert_eq!(parse("tcp://10.0.0.1"), "tcp://10.0.0.1:2375");
        assert_eq!(parse("tcp://h:99"), "tcp://h:99");
        assert_eq!(parse("ssh://u@h:22/run/e.sock"), "ssh://u@h:22/run/e.sock");
        let files = TlsFiles::default();
        let tls = Endpoint::parse("tcp://h", Some(&files)).unwrap();
        assert_eq!(tls.to_string(), "https://h:2376");
    }

    #[test]
    fn what_is_no_address_is_said_to_be_none() {
        for text in [
            "",
            "docker",
            "unix://",
            "ftp://x",
            "tcp://",
            "ssh://-oProxy=x/",
        ] {
            assert!(
                parse(text).starts_with("error: "),
                "{text}: {}",
                parse(text)
            );
        }
        assert!(parse("https://h").contains("tls.ca"));
    }
}
