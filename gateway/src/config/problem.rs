//! What is wrong with a configuration, all of it, and where.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::driver::Violation;
use crate::model::DriverName;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `--socket`
    Flag(&'static str),
    /// `COFFERDAM_SOCKET`
    Environment(&'static str),
    File {
        path: Arc<PathBuf>,
        /// From 1.
        line: usize,
    },
    /// Nobody said anything; this is why it is what it is.
    Default(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Environment(variable) => write!(f, "${variable}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Default(_) => f.write_str("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `None`: no single place is to blame.
    pub origin: Option<Origin>,
    /// What it is about: `executions.timeout_max`, or a file. May be empty.
    pub subject: String,
    /// One sentence without a stop at its end.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    pub(super) fn new(
        origin: impl Into<Option<Origin>>,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            origin: origin.into(),
            subject: subject.into(),
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.subject.is_empty() {
            write!(f, "{}: ", self.subject)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// A configuration that cannot be used, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// About drivers' settings, which only their drivers can judge.
    pub fn of_settings(violations: impl IntoIterator<Item = (DriverName, Violation)>) -> Self {
        let problems = violations.into_iter().map(|(driver, violation)| {
            let dot = if violation.field.is_empty() { "" } else { "." };
            let subject = format!("drivers.{driver}.settings{dot}{}", violation.field);
            Problem::new(None, subject, violation.message)
        });
        Self::new(problems.collect())
    }

    /// Those of files come first, in the order in which one would mend them.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_cached_key(|problem| match &problem.origin {
            Some(Origin::File { path, line }) => (0, Arc::clone(path), *line),
            _ => (1, Arc::default(), 0),
        });
        Self { problems }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("the configuration has a problem:")?,
            count => write!(f, "the configuration has {count} problems:")?,
        }
        for problem in &self.problems {
            write!(f, "\n{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
