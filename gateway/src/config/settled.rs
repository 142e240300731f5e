//! Picking values: what was said, or else the default and its reason.

use std::path::PathBuf;
use std::time::Duration;

use super::effective::Line;
use super::problem::{Located, Origin, Problem};
use super::scalar::{Kind, Scalar};
use super::wire::{KEYS, Layer};

/// Values are taken out of what was said, one by one; what each came to is remembered.
pub(super) struct Settled {
    pub(super) layer: Layer,
    pub(super) lines: Vec<Line>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Settled {
    pub(super) fn value(
        &mut self,
        name: &'static str,
        default: impl Into<Scalar>,
        reason: &'static str,
    ) -> Located<Scalar> {
        let located = self.layer.values.remove(name).unwrap_or_else(|| Located {
            value: default.into(),
            origin: Origin::Default(reason),
        });
        let kind = KEYS.iter().find(|key| key.name == name).map(|key| key.kind);
        self.lines.push(Line {
            name,
            value: kind.unwrap_or(Kind::Text).show(&located.value),
            origin: located.origin.clone(),
        });
        located
    }

    pub(super) fn path(
        &mut self,
        name: &'static str,
        (path, reason): (PathBuf, &'static str),
    ) -> PathBuf {
        match self.value(name, Scalar::Path(path), reason).value {
            Scalar::Path(path) => path,
            _ => PathBuf::new(),
        }
    }

    pub(super) fn number(&mut self, name: &'static str, default: u64, reason: &'static str) -> u64 {
        self.limit(name, Some(default), reason).unwrap_or(u64::MAX)
    }

    pub(super) fn limit(
        &mut self,
        name: &'static str,
        default: Option<u64>,
        reason: &'static str,
    ) -> Option<u64> {
        let default = default.map_or(Scalar::Unlimited, Scalar::Number);
        match self.value(name, default, reason).value {
            Scalar::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn duration(
        &mut self,
        name: &'static str,
        default: Duration,
        reason: &'static str,
    ) -> Duration {
        match self.value(name, Scalar::Duration(default), reason).value {
            Scalar::Duration(duration) => duration,
            _ => Duration::MAX,
        }
    }

    pub(super) fn text(
        &mut self,
        name: &'static str,
        default: &str,
        reason: &'static str,
    ) -> Located<String> {
        let located = self.value(name, Scalar::Text(default.to_owned()), reason);
        let value = match located.value {
            Scalar::Text(text) => text,
            _ => String::new(),
        };
        Located {
            value,
            origin: located.origin,
        }
    }

    /// Adds a problem with a value that was taken; `shown` gives what a key has come to.
    pub(super) fn problem_with(
        &mut self,
        name: &'static str,
        problem: impl FnOnce(&dyn Fn(&str) -> String) -> Problem,
    ) {
        let find = |name: &str| self.lines.iter().find(|line| line.name == name);
        let shown = |name: &str| find(name).map_or_else(String::new, |line| line.value.clone());
        let mut problem = problem(&shown);
        problem.origin = find(name).map(|line| line.origin.clone());
        self.problems.push(problem);
    }
}
