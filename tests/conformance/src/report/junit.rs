//! The report as JUnit XML: a suite for each tier, a test case for each case.

use std::fmt::Write as _;

use super::{CaseReport, Outcome, Report};

/// The whole file.
#[must_use]
pub fn junit(report: &Report) -> String {
    let summary = report.summary;
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let all = report.cases.len();
    let (failed, skipped) = (summary.failed, summary.skipped);
    let time = seconds(summary.duration_ms);
    // Writing into a string cannot fail.
    let _ = writeln!(
        xml,
        "<testsuites name=\"cofferdam-conformance\" tests=\"{all}\" failures=\"{failed}\" \
         errors=\"0\" skipped=\"{skipped}\" time=\"{time}\">"
    );
    for (tier, cases) in report.tiers() {
        let count = |outcome| cases.iter().filter(|case| case.outcome == outcome).count();
        let (failed, skipped) = (count(Outcome::Failed), count(Outcome::Skipped));
        let time = seconds(cases.iter().map(|case| case.duration_ms).sum());
        let all = cases.len();
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{tier}\" tests=\"{all}\" failures=\"{failed}\" errors=\"0\" \
             skipped=\"{skipped}\" time=\"{time}\">"
        );
        for case in cases {
            test_case(&mut xml, case);
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn test_case(xml: &mut String, case: &CaseReport) {
    // `core.create` is the class, `idempotent` the name, as readers of JUnit group them.
    let (class, name) = case.id.rsplit_once('.').unwrap_or((case.tier, case.id));
    let time = seconds(case.duration_ms);
    let _ = write!(
        xml,
        "    <testcase classname=\"{class}\" name=\"{name}\" time=\"{time}\""
    );
    match case.outcome {
        Outcome::Passed => xml.push_str("/>\n"),
        Outcome::Skipped => {
            let reason = escaped(case.reason.as_deref().unwrap_or_default());
            let _ = writeln!(
                xml,
                ">\n      <skipped message=\"{reason}\"/>\n    </testcase>"
            );
        }
        Outcome::Failed => {
            let seen = escaped(case.seen.as_deref().unwrap_or_default());
            let text = escaped(&format!(
                "contract ({}): {}\nseen: {}\nfix: {}",
                case.source,
                case.says,
                case.seen.as_deref().unwrap_or_default(),
                case.fix.as_deref().unwrap_or_default(),
            ));
            let _ = writeln!(
                xml,
                ">\n      <failure message=\"{seen}\">{text}</failure>\n    </testcase>"
            );
        }
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// Text for attributes and content. What XML cannot hold at all becomes a question mark.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push('\t'),
            other if other.is_control() => out.push('?'),
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
    fn the_shape_is_stable() {
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="cofferdam-conformance" tests="3" failures="1" errors="0" skipped="1" time="5.678">
  <testsuite name="core" tests="3" failures="1" errors="0" skipped="1" time="3.702">
    <testcase classname="core.create" name="accepts" time="1.234"/>
    <testcase classname="core.create" name="idempotent" time="1.234">
      <failure message="it answered &quot;&lt;none&gt;&quot; &amp; ended">contract (CreateSandbox): The same spec again gives the same sandbox.&#10;seen: it answered &quot;&lt;none&gt;&quot; &amp; ended&#10;fix: look it up first</failure>
    </testcase>
    <testcase classname="core.create" name="pause" time="1.234">
      <skipped message="the driver does not claim pause"/>
    </testcase>
  </testsuite>
</testsuites>
"#;
        assert_eq!(junit(&sample()), expected);
    }

    #[test]
    fn a_drivers_words_cannot_break_the_file() {
        assert_eq!(escaped("a\x1b[0m\0]]>"), "a?[0m?]]&gt;");
    }
}
