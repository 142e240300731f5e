//! What goes wrong, as people and programs see it: a kind, one sentence, a hint.

use std::error::Error;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Exit code of everything that is our own failure, and not the command's.
pub(crate) const EXIT_OURS: u8 = 125;
/// What a shell shows for a program that SIGPIPE ended.
const EXIT_PIPE: u8 = 128 + 13;

/// Who has to act. Programs see it in `--json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What was typed makes no sense.
    Usage,
    /// No gateway answers.
    NoGateway,
    Invalid,
    NotFound,
    AlreadyExists,
    Precondition,
    LimitReached,
    Unavailable,
    PermissionDenied,
    /// A checksum differs.
    DataLoss,
    /// A call to the gateway took too long.
    Deadline,
    /// How an execution ended cannot be known.
    Lost,
    Unsupported,
    Failed,
    Io,
    Internal,
    /// The reader of our output went away. Nobody is left to tell.
    OutputClosed,
}

impl Kind {
    /// For people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::NoGateway => "no gateway",
            Self::Invalid => "invalid request",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Precondition => "not possible now",
            Self::LimitReached => "limit reached",
            Self::Unavailable => "unavailable",
            Self::PermissionDenied => "permission denied",
            Self::DataLoss => "data differs",
            Self::Deadline => "no answer in time",
            Self::Lost => "lost",
            Self::Unsupported => "not supported",
            Self::Failed => "failed",
            Self::Io => "input/output",
            Self::Internal => "fault",
            Self::OutputClosed => "output closed",
        }
    }

    /// For programs; stable.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Usage => "USAGE",
            Self::NoGateway => "NO_GATEWAY",
            Self::Invalid => "INVALID_REQUEST",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::Precondition => "FAILED_PRECONDITION",
            Self::LimitReached => "LIMIT_REACHED",
            Self::Unavailable => "UNAVAILABLE",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::DataLoss => "DATA_LOSS",
            Self::Deadline => "DEADLINE_EXCEEDED",
            Self::Lost => "LOST",
            Self::Unsupported => "UNSUPPORTED",
            Self::Failed => "FAILED",
            Self::Io => "IO",
            Self::Internal => "INTERNAL",
            Self::OutputClosed => "OUTPUT_CLOSED",
        }
    }
}

/// One field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// As the contract calls it: "sandbox.memory_bytes".
    pub(crate) field: String,
    /// The flag that sets it, where there is one.
    pub(crate) flag: Option<&'static str>,
    pub(crate) message: String,
}

/// Boxed, because a `Result` is moved far more often than it is an error.
#[derive(Debug)]
pub(crate) struct CommandError(Box<Details>);

#[derive(Debug)]
pub(crate) struct Details {
    pub(crate) kind: Kind,
    /// One sentence, without the causes.
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) violations: Vec<Violation>,
    /// The gateway's stable reason: "SANDBOX_NOT_FOUND".
    pub(crate) reason: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) retry_after_ms: Option<u64>,
    source: Option<Box<dyn Error + Send + Sync>>,
    exit_code: u8,
}

impl CommandError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            kind,
            message: message.into(),
            hint: None,
            violations: Vec::new(),
            reason: None,
            request_id: None,
            retry_after_ms: None,
            source: None,
            exit_code: EXIT_OURS,
        }))
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// An operation on a named object that the operating system refused.
    pub(crate) fn io(operation: impl Into<String>, error: impl Into<std::io::Error>) -> Self {
        Self::new(Kind::Io, operation).caused_by(error.into())
    }

    /// Writing to stdout failed.
    pub(crate) fn output(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::new(Kind::OutputClosed, "nobody reads the output").exits_with(EXIT_PIPE);
        }
        Self::io("cannot write the output", error)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn exits_with(mut self, code: u8) -> Self {
        self.exit_code = code;
        self
    }

    pub(crate) fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// The message and what caused it, outermost first, without saying anything twice.
    pub(crate) fn sentence(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = Error::source(self);
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.contains(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        text
    }
}

impl Deref for CommandError {
    type Target = Details;

    fn deref(&self) -> &Details {
        &self.0
    }
}

impl DerefMut for CommandError {
    fn deref_mut(&mut self) -> &mut Details {
        &mut self.0
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CommandError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|error| error as &(dyn Error + 'static))
    }
}
