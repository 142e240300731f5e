//! What a run found, as data. How it is written is in the modules below.

mod json;
mod junit;
mod text;

use serde::Serialize;

use crate::case::{Case, Tier};

pub use json::json;
pub use junit::junit;
pub use text::{bench_lines, case_lines, driver_lines, list_lines, summary_line};

/// Names the shape of the JSON report. Fields are added under the same name; a report in which one
/// has changed its meaning has another.
pub const FORMAT: &str = "cofferdam-conformance/1";

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: &'static str,
    /// Of the suite.
    pub suite_version: &'static str,
    /// Who was tried.
    pub driver: DriverFacts,
    /// In the order in which they ran.
    pub cases: Vec<CaseReport>,
    /// The counts.
    pub summary: Summary,
    /// With `--bench`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bench: Option<Bench>,
}

/// Who was tried, by its own words.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DriverFacts {
    /// Where it listens.
    pub socket: String,
    /// As in the handshake; empty if it was refused.
    pub name: String,
    /// As in the handshake.
    pub version: String,
    /// As in the handshake.
    pub description: String,
    /// As in the handshake.
    pub incarnation: String,
    /// `SUPERVISED` or `DRIVER_EXECUTED`.
    pub execution: String,
    /// `NAMESPACES`, …
    pub isolation: String,
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The driver does what the contract says.
    Passed,
    /// It does something else.
    Failed,
    /// It could not be tried.
    Skipped,
}

/// One case.
#[derive(Debug, Clone, Serialize)]
pub struct CaseReport {
    /// Stable.
    pub id: &'static str,
    /// The first part of the id.
    pub tier: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, cleaning up not included.
    pub duration_ms: u64,
    /// Where the contract says it.
    pub source: &'static str,
    /// What the contract says.
    pub says: &'static str,
    /// What was seen instead; only when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// What to do; only when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Why it could not be tried; only when it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl CaseReport {
    pub(crate) fn of(case: &Case, verdict: crate::case::Verdict, duration_ms: u64) -> Self {
        use crate::case::Stop;
        let mut report = Self {
            id: case.id,
            tier: case.tier().name(),
            outcome: Outcome::Passed,
            duration_ms,
            source: case.source,
            says: case.says,
            seen: None,
            fix: None,
            reason: None,
        };
        match verdict {
            Ok(()) => {}
            Err(Stop::Failed { seen, fix }) => {
                report.outcome = Outcome::Failed;
                report.seen = Some(seen);
                report.fix = Some(fix.unwrap_or_else(|| case.fix.to_owned()));
            }
            Err(Stop::Skipped(reason)) => {
                report.outcome = Outcome::Skipped;
                report.reason = Some(reason);
            }
        }
        report
    }
}

/// The counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Cases that could not be tried.
    pub skipped: usize,
    /// Of the whole run.
    pub duration_ms: u64,
}

impl Summary {
    pub(crate) fn of(cases: &[CaseReport], duration_ms: u64) -> Self {
        let count = |outcome| cases.iter().filter(|case| case.outcome == outcome).count();
        Self {
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            skipped: count(Outcome::Skipped),
            duration_ms,
        }
    }
}

/// How long things take on this driver.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Bench {
    /// What was measured.
    pub latencies: Vec<Latency>,
    /// Why it ended early, and after how many rounds; only when it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// How long one thing takes. A percentile is the smallest sample that so many of all do not exceed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// `create`, `ready`, `exec`, `delete`.
    pub what: &'static str,
    /// How often it was measured.
    pub samples: usize,
    /// The shortest.
    pub min_ms: f64,
    /// Half of them are no longer.
    pub p50_ms: f64,
    /// Nine of ten are no longer.
    pub p90_ms: f64,
    /// All but one of a hundred are no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Report {
    /// Whether everything that was tried is as the contract says.
    #[must_use]
    pub fn is_conformant(&self) -> bool {
        self.summary.failed == 0
    }

    /// Whether all was measured that was asked for.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        let bench = self.bench.as_ref();
        bench.is_none_or(|bench| bench.trouble.is_none())
    }

    /// Whether anything could be tried. What is only said about other cases does not count, unless
    /// it is all that was asked for.
    #[must_use]
    pub fn has_tried_anything(&self) -> bool {
        let is_tried = |case: &&CaseReport| case.outcome != Outcome::Skipped;
        let is_own = |case: &&CaseReport| !crate::cases::is_about_others(case.id);
        match self.cases.iter().any(|case| is_own(&case)) {
            true => self.cases.iter().filter(is_own).any(|case| is_tried(&case)),
            false => self.cases.iter().any(|case| is_tried(&case)),
        }
    }

    /// The report of one case, if it was among those that were asked for.
    #[must_use]
    pub fn case(&self, id: &str) -> Option<&CaseReport> {
        self.cases.iter().find(|case| case.id == id)
    }

    /// Ids of the cases that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        let failed = self
            .cases
            .iter()
            .filter(|case| case.outcome == Outcome::Failed);
        failed.map(|case| case.id).collect()
    }

    fn tiers(&self) -> impl Iterator<Item = (Tier, Vec<&CaseReport>)> {
        Tier::ALL.into_iter().filter_map(|tier| {
            let cases = self.cases.iter().filter(|case| case.tier == tier.name());
            let cases: Vec<_> = cases.collect();
            (!cases.is_empty()).then_some((tier, cases))
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One of each outcome.
    pub(crate) fn sample() -> Report {
        let case = |id: &'static str, outcome| CaseReport {
            id,
            tier: "core",
            outcome,
            duration_ms: 1234,
            source: "CreateSandbox",
            says: "The same spec again gives the same sandbox.",
            seen: None,
            fix: None,
            reason: None,
        };
        let cases = vec![
            case("core.create.accepts", Outcome::Passed),
            CaseReport {
                seen: Some("it answered \"<none>\" & ended".to_owned()),
                fix: Some("look it up first".to_owned()),
                ..case("core.create.idempotent", Outcome::Failed)
            },
            CaseReport {
                reason: Some("the driver does not claim pause".to_owned()),
                ..case("core.create.pause", Outcome::Skipped)
            },
        ];
        Report {
            format: FORMAT,
            suite_version: "1.2.3",
            driver: DriverFacts {
                socket: "/run/x.sock".to_owned(),
                name: "x".to_owned(),
                version: "0.1.0".to_owned(),
                description: "a driver".to_owned(),
                incarnation: "0123456789".to_owned(),
                execution: "SUPERVISED".to_owned(),
                isolation: "NAMESPACES".to_owned(),
            },
            summary: Summary::of(&cases, 5678),
            cases,
            bench: Some(Bench {
                latencies: vec![Latency {
                    what: "create",
                    samples: 20,
                    min_ms: 1.5,
                    p50_ms: 2.0,
                    p90_ms: 3.25,
                    p99_ms: 4.5,
                    max_ms: 4.5,
                }],
                trouble: None,
            }),
        }
    }
}
