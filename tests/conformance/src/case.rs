//! A case: what the contract says, who says it, and how to see whether a driver does it.

use std::fmt;
use std::str::FromStr;

use futures_util::future::BoxFuture;

use crate::answer::Refused;
use crate::needs::Need;
use crate::suite::Suite;

/// One thing that the contract says, tried on a driver.
pub struct Case {
    /// Stable: `core.create.idempotent`. Its first part is the tier.
    pub id: &'static str,
    /// The RPC or message of `compute_driver.proto` whose comment says it, or `rule N`, `errors` or
    /// `the socket` of its head.
    pub source: &'static str,
    /// What that comment says.
    pub says: &'static str,
    /// What to do when it fails, unless the case knows better.
    pub fix: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) run: fn(Suite) -> BoxFuture<'static, Verdict>,
}

impl Case {
    /// What it belongs to.
    #[must_use]
    pub fn tier(&self) -> Tier {
        let name = self.id.split('.').next().unwrap_or_default();
        // A test holds every case to it.
        name.parse().unwrap_or(Tier::Core)
    }

    /// Whether `selector` means this case: its id, or a group that it is in.
    #[must_use]
    pub fn is_meant_by(&self, selector: &str) -> bool {
        let group = selector.trim_end_matches(".*");
        self.id
            .strip_prefix(group)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({})", self.id)
    }
}

/// A part of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// What every driver does.
    Core,
    /// The byte stream, and what is done over it.
    Interactive,
    /// Drivers that run commands themselves.
    Command,
    /// Whether limits hold.
    Resources,
    /// Pause and snapshots.
    Snapshot,
    /// Deaths and restarts of the driver.
    Faults,
}

impl Tier {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Core,
        Self::Interactive,
        Self::Command,
        Self::Resources,
        Self::Snapshot,
        Self::Faults,
    ];

    /// The first part of its cases' ids.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Interactive => "interactive",
            Self::Command => "command",
            Self::Resources => "resources",
            Self::Snapshot => "snapshot",
            Self::Faults => "faults",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Tier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|tier| tier.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{text:?} is no tier; there are {names}")
        })
    }
}

/// How a case ended.
pub(crate) type Verdict = Result<(), Stop>;

/// Why a case did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The driver does something else than the contract says.
    Failed {
        seen: String,
        /// Instead of the case's own.
        fix: Option<String>,
    },
    /// It could not be tried, and why.
    Skipped(String),
}

impl Stop {
    pub(crate) fn failed(seen: impl Into<String>) -> Self {
        Self::Failed {
            seen: seen.into(),
            fix: None,
        }
    }

    /// With another remedy than the case's.
    pub(crate) fn with_fix(self, fix: impl Into<String>) -> Self {
        match self {
            Self::Failed { seen, .. } => Self::Failed {
                seen,
                fix: Some(fix.into()),
            },
            skipped => skipped,
        }
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::failed(refused.to_string())
    }
}

/// Ends the case as failed with what was seen, unless it is so.
macro_rules! ensure {
    ($true:expr, $($seen:tt)+) => {
        if !$true {
            return Err($crate::case::Stop::failed(format!($($seen)+)));
        }
    };
}

/// Ends the case as failed with what was seen.
macro_rules! fail {
    ($($seen:tt)+) => {
        return Err($crate::case::Stop::failed(format!($($seen)+)))
    };
}

/// Ends the case as skipped, with the reason.
macro_rules! skip {
    ($($reason:tt)+) => {
        return Err($crate::case::Stop::Skipped(format!($($reason)+)))
    };
}

/// A case's `run`, of an async function.
macro_rules! run {
    ($function:path) => {
        |suite| Box::pin($function(suite))
    };
}

pub(crate) use {ensure, fail, run, skip};

#[cfg(test)]
mod tests {
    #[test]
    fn a_selector_is_an_id_or_a_group() {
        let case = crate::cases()
            .find(|case| case.id == "core.create.idempotent")
            .unwrap();
        for selector in [
            "core.create.idempotent",
            "core.create",
            "core.create.*",
            "core",
        ] {
            assert!(case.is_meant_by(selector), "{selector}");
        }
        for selector in ["core.cre", "create", "core.create.idempotent.x", "x"] {
            assert!(!case.is_meant_by(selector), "{selector}");
        }
    }
}
