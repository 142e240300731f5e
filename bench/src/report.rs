//! What a run has to say: tables of figures with ratios, targets with verdicts, notes. Pure.

use serde::Serialize;

use crate::machine::Machine;
use crate::stats::{Samples, Summary};

/// Of the JSON file. Fields may be added under the same number.
const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: u32,
    pub(crate) time: String,
    pub(crate) revision: Option<String>,
    /// A smoke run: too few samples to conclude anything from.
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    pub(crate) scenarios: Vec<Scenario>,
}

impl Report {
    pub(crate) fn new(machine: Machine, quick: bool) -> Self {
        Self {
            schema: SCHEMA,
            time: jiff::Timestamp::now().to_string(),
            revision: std::env::var("COFFERDAM_REVISION").ok(),
            quick,
            machine,
            scenarios: Vec::new(),
        }
    }
}

/// One question and its answers.
#[derive(Debug, Serialize)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) tables: Vec<Table>,
    pub(crate) targets: Vec<Target>,
    pub(crate) notes: Vec<String>,
    /// Set when it could not be carried out to its end.
    pub(crate) error: Option<String>,
    pub(crate) took_seconds: f64,
}

impl Scenario {
    pub(crate) fn new(name: &'static str, title: &'static str) -> Self {
        Self {
            name,
            title,
            tables: Vec::new(),
            targets: Vec::new(),
            notes: Vec::new(),
            error: None,
            took_seconds: 0.0,
        }
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Holds a measured value against the aim. What was not measured is noted, never passed.
    pub(crate) fn aim(
        &mut self,
        what: &str,
        measured: Option<f64>,
        bound: Bound,
        limit: f64,
        unit: Unit,
    ) {
        let Some(measured) = measured else {
            self.note(format!("{what}: not measured"));
            return;
        };
        self.targets.push(Target {
            what: what.to_owned(),
            measured,
            bound,
            limit,
            unit,
            is_met: bound.holds(measured, limit),
        });
    }

    /// The summary of a row, wherever it is.
    pub(crate) fn row(&self, name: &str) -> Option<&Summary> {
        let mut rows = self.tables.iter().flat_map(|table| &table.rows);
        rows.find(|row| row.name == name).map(|row| &row.summary)
    }

    pub(crate) fn p50(&self, name: &str) -> Option<f64> {
        self.row(name).map(|row| row.p50)
    }

    /// How many times the median of `of` the median of `name` is.
    pub(crate) fn ratio(&self, name: &str, of: &str) -> Option<f64> {
        Some(self.p50(name)? / self.p50(of)?)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Milliseconds,
    /// 10^6 bytes.
    MegabytesPerSecond,
    PerSecond,
    Kibibytes,
    CpuSecondsPerGibibyte,
    /// A ratio.
    Times,
}

impl Unit {
    pub(crate) fn is_latency(self) -> bool {
        self == Self::Milliseconds
    }

    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::MegabytesPerSecond => "MB/s",
            Self::PerSecond => "/s",
            Self::Kibibytes => "KiB",
            Self::CpuSecondsPerGibibyte => "cpu s/GiB",
            Self::Times => "x",
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) unit: Unit,
    /// The row that the others are compared with.
    pub(crate) baseline: Option<String>,
    pub(crate) rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) summary: Summary,
    /// Median by the baseline's median.
    pub(crate) ratio: Option<f64>,
}

impl Table {
    /// Lanes without samples were not run and get no row.
    pub(crate) fn new<'a>(
        title: impl Into<String>,
        unit: Unit,
        baseline: Option<&str>,
        lanes: impl IntoIterator<Item = (&'a str, &'a Samples)>,
    ) -> Self {
        let measured: Vec<(&str, Summary)> = lanes
            .into_iter()
            .filter_map(|(name, samples)| Some((name, samples.summary()?)))
            .collect();
        let base = measured
            .iter()
            .find(|(name, _)| Some(*name) == baseline)
            .map(|(_, summary)| summary.p50);
        let rows = measured
            .into_iter()
            .map(|(name, summary)| Row {
                name: name.to_owned(),
                ratio: base.map(|base| summary.p50 / base),
                summary,
            })
            .collect();
        Self {
            title: title.into(),
            unit,
            baseline: base.and(baseline).map(str::to_owned),
            rows,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtMost,
    AtLeast,
}

impl Bound {
    fn holds(self, measured: f64, limit: f64) -> bool {
        match self {
            Self::AtMost => measured <= limit,
            Self::AtLeast => measured >= limit,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) bound: Bound,
    pub(crate) limit: f64,
    pub(crate) unit: Unit,
    pub(crate) is_met: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        values.iter().copied().collect()
    }

    fn example() -> Scenario {
        let mut scenario = Scenario::new("example", "An example");
        let (ours, raw, absent) = (samples(&[3.0]), samples(&[2.0]), Samples::default());
        scenario.tables.push(Table::new(
            "latency",
            Unit::Milliseconds,
            Some("raw"),
            [("ours", &ours), ("raw", &raw), ("absent", &absent)],
        ));
        scenario
    }

    #[test]
    fn a_row_is_compared_with_the_baseline() {
        let scenario = example();
        assert_eq!(scenario.tables[0].rows[0].ratio, Some(1.5));
        assert_eq!(scenario.ratio("ours", "raw"), Some(1.5));
    }

    #[test]
    fn a_lane_that_did_not_run_has_no_row_and_no_ratio() {
        let scenario = example();
        assert_eq!(scenario.tables[0].rows.len(), 2);
        assert_eq!(scenario.ratio("ours", "absent"), None);
        let alone = Table::new("t", Unit::Times, Some("raw"), []);
        assert_eq!(alone.baseline, None);
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let mut scenario = example();
        scenario.aim(
            "p50",
            scenario.p50("absent"),
            Bound::AtMost,
            1.0,
            Unit::Milliseconds,
        );
        assert!(scenario.targets.is_empty());
        assert_eq!(scenario.notes, ["p50: not measured"]);
    }

    #[test]
    fn a_target_is_met_at_its_limit() {
        let mut scenario = example();
        scenario.aim("a", Some(3.0), Bound::AtMost, 3.0, Unit::Milliseconds);
        scenario.aim("b", Some(3.0), Bound::AtLeast, 3.1, Unit::Milliseconds);
        let met: Vec<bool> = scenario
            .targets
            .iter()
            .map(|target| target.is_met)
            .collect();
        assert_eq!(met, [true, false]);
    }
}
