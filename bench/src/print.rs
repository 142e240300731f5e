//! Turns a report into text for people. Pure: text in, text out.

use std::fmt::Write;

use crate::report::{Bound, Report, Scenario, Table, Target, Unit};
use crate::stats::Summary;

const NAME_COLUMN: usize = 44;

/// One scenario, as soon as it is over.
pub(crate) fn scenario(scenario: &Scenario) -> String {
    let mut text = String::new();
    for part in &scenario.tables {
        text.push_str(&table(part));
        text.push('\n');
    }
    for part in &scenario.targets {
        let _ = writeln!(text, "  {}", target(part));
    }
    for note in &scenario.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    if let Some(error) = &scenario.error {
        let _ = writeln!(text, "  FAILED: {error}");
    }
    text
}

/// All targets once more, at the end.
pub(crate) fn verdicts(report: &Report) -> String {
    let mut text = String::from("== targets\n");
    for scenario in &report.scenarios {
        for part in &scenario.targets {
            let _ = writeln!(text, "  {:<9} {}", scenario.name, target(part));
        }
        if let Some(error) = &scenario.error {
            let _ = writeln!(text, "  {:<9} FAILED: {error}", scenario.name);
        }
    }
    if report.quick {
        text.push_str("  a quick run: it shows that everything works, and measures nothing\n");
    }
    text
}

fn table(table: &Table) -> String {
    let mut text = String::new();
    // A high percentile of a throughput is its best value, not its worst.
    let columns = if table.unit.is_latency() {
        ["p50", "p90", "p99"]
    } else {
        ["median", "min", "max"]
    };
    let _ = write!(
        text,
        "  {:<NAME_COLUMN$} {:>6} {:>9} {:>9} {:>9}",
        format!("{} [{}]", table.title, table.unit.symbol()),
        "n",
        columns[0],
        columns[1],
        columns[2],
    );
    if let Some(baseline) = &table.baseline {
        let _ = write!(text, "   x {baseline}");
    }
    text.push('\n');
    for row in &table.rows {
        let [a, b, c] = values(table.unit, &row.summary).map(number);
        let _ = write!(
            text,
            "    {:<width$} {:>6} {a:>9} {b:>9} {c:>9}",
            row.name,
            row.summary.n,
            width = NAME_COLUMN - 2,
        );
        if let Some(ratio) = row.ratio {
            let _ = write!(text, "   {}", number(ratio));
        }
        text.push('\n');
    }
    text
}

fn values(unit: Unit, summary: &Summary) -> [f64; 3] {
    if unit.is_latency() {
        [summary.p50, summary.p90, summary.p99]
    } else {
        [summary.p50, summary.min, summary.max]
    }
}

fn target(target: &Target) -> String {
    let sign = match target.bound {
        Bound::AtMost => "<=",
        Bound::AtLeast => ">=",
    };
    format!(
        "{}  {}: {} {unit} (aim: {sign} {} {unit})",
        if target.is_met { "pass" } else { "MISS" },
        target.what,
        number(target.measured),
        number(target.limit),
        unit = target.unit.symbol(),
    )
}

/// Three significant digits, never an exponent.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Samples;

    fn samples(values: &[f64]) -> Samples {
        values.iter().copied().collect()
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.1234, 1.234, 12.34, 123.4, 1234.0].map(number);
        assert_eq!(shown, ["0.123", "1.23", "12.3", "123", "1234"]);
    }

    #[test]
    fn a_scenario_shows_figures_ratios_targets_and_notes() {
        let mut shown = Scenario::new("exec", "A command in a ready sandbox");
        let (ours, raw) = (samples(&[1.0, 1.2, 3.0]), samples(&[0.5, 0.6, 0.9]));
        shown.tables.push(Table::new(
            "latency",
            Unit::Milliseconds,
            Some("fork+exec"),
            [("cofferdam", &ours), ("fork+exec", &raw)],
        ));
        shown.aim(
            "p50",
            shown.p50("cofferdam"),
            Bound::AtMost,
            1.5,
            Unit::Milliseconds,
        );
        shown.aim("p50", Some(1.6), Bound::AtMost, 1.5, Unit::Milliseconds);
        shown.note("docker: skipped");
        let expected = "  \
  latency [ms]                                      n       p50       p90       p99   x fork+exec
    cofferdam                                       3      1.20      3.00      3.00   2.00
    fork+exec                                       3     0.600     0.900     0.900   1.00

  pass  p50: 1.20 ms (aim: <= 1.50 ms)
  MISS  p50: 1.60 ms (aim: <= 1.50 ms)
  note: docker: skipped
";
        assert_eq!(scenario(&shown), expected);
    }
}
