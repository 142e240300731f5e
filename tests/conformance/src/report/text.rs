//! The report for people, line by line. The words of a driver are shown with their control
//! characters escaped: they must not steer a terminal.

use super::{Bench, CaseReport, DriverFacts, Latency, Outcome, Summary};
use crate::Case;

/// A case when it has ended.
#[must_use]
pub fn case_lines(case: &CaseReport) -> String {
    let time = format!("{:.2} s", case.duration_ms as f64 / 1000.0);
    match case.outcome {
        Outcome::Passed => format!("PASS  {}  ({time})\n", case.id),
        Outcome::Skipped => {
            let reason = plain(case.reason.as_deref().unwrap_or_default());
            format!("SKIP  {}: {reason}\n", case.id)
        }
        Outcome::Failed => format!(
            "FAIL  {}  ({time})\n      contract  {}: {}\n      seen      {}\n      fix       {}\n",
            case.id,
            case.source,
            case.says,
            plain(case.seen.as_deref().unwrap_or_default()),
            plain(case.fix.as_deref().unwrap_or_default()),
        ),
    }
}

/// Who was tried.
#[must_use]
pub fn driver_lines(driver: &DriverFacts) -> String {
    format!(
        "driver {} {} on {}: {}, {}; {}\n",
        plain(&driver.name),
        plain(&driver.version),
        driver.socket,
        driver.execution,
        driver.isolation,
        plain(&driver.description),
    )
}

/// The last line.
#[must_use]
pub fn summary_line(summary: &Summary) -> String {
    let Summary {
        passed,
        failed,
        skipped,
        duration_ms,
    } = summary;
    let seconds = *duration_ms as f64 / 1000.0;
    format!("{passed} passed, {failed} failed, {skipped} skipped in {seconds:.1} s\n")
}

/// A table of what was measured, and why there is no more of it.
#[must_use]
pub fn bench_lines(bench: &Bench) -> String {
    let mut lines = String::new();
    if !bench.latencies.is_empty() {
        lines.push_str(&format!(
            "{:<8} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
            "LATENCY", "COUNT", "MIN ms", "P50 ms", "P90 ms", "P99 ms", "MAX ms"
        ));
    }
    for Latency {
        what,
        samples,
        min_ms,
        p50_ms,
        p90_ms,
        p99_ms,
        max_ms,
    } in &bench.latencies
    {
        lines.push_str(&format!(
            "{what:<8} {samples:>7} {min_ms:>9.2} {p50_ms:>9.2} {p90_ms:>9.2} {p99_ms:>9.2} \
             {max_ms:>9.2}\n",
        ));
    }
    if let Some(trouble) = &bench.trouble {
        lines.push_str(&format!("the measurement ended early {}\n", plain(trouble)));
    }
    lines
}

/// The list of cases, as Markdown: what `--list` prints.
#[must_use]
pub fn list_lines<'a>(cases: impl Iterator<Item = &'a Case>) -> String {
    let mut lines = String::from("| case | contract | says |\n|---|---|---|\n");
    for case in cases {
        lines.push_str(&format!(
            "| `{}` | {} | {} |\n",
            case.id, case.source, case.says
        ));
    }
    lines
}

fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => out.push(' '),
            other if other.is_control() => out.extend(other.escape_default()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn each_outcome_says_what_one_needs() {
        let report = sample();
        let lines: String = report.cases.iter().map(case_lines).collect();
        assert_eq!(
            lines,
            "PASS  core.create.accepts  (1.23 s)\n\
             FAIL  core.create.idempotent  (1.23 s)\n\
             \x20     contract  CreateSandbox: The same spec again gives the same sandbox.\n\
             \x20     seen      it answered \"<none>\" & ended\n\
             \x20     fix       look it up first\n\
             SKIP  core.create.pause: the driver does not claim pause\n"
        );
        assert_eq!(
            summary_line(&report.summary),
            "1 passed, 1 failed, 1 skipped in 5.7 s\n"
        );
    }

    #[test]
    fn a_measurement_says_how_often_and_how_long() {
        let mut bench = sample().bench.unwrap();
        bench.trouble = Some("after 20 rounds: CreateSandbox\u{7} failed".to_owned());
        assert_eq!(
            bench_lines(&bench),
            "LATENCY    COUNT    MIN ms    P50 ms    P90 ms    P99 ms    MAX ms\n\
             create        20      1.50      2.00      3.25      4.50      4.50\n\
             the measurement ended early after 20 rounds: CreateSandbox\\u{7} failed\n"
        );
    }

    #[test]
    fn a_drivers_words_cannot_steer_the_terminal() {
        assert_eq!(plain("a\x1b[2J\nb"), "a\\u{1b}[2J b");
    }
}
