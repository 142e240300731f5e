//! The report as one JSON object.

use super::Report;

/// One line.
///
/// # Panics
/// Never: the report has neither maps with odd keys nor values that JSON does not know.
#[must_use]
#[allow(clippy::expect_used, reason = "see above")]
pub fn json(report: &Report) -> String {
    serde_json::to_string(report).expect("a report is JSON")
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn the_shape_is_stable() {
        let value: serde_json::Value = serde_json::from_str(&json(&sample())).unwrap();
        let expected = serde_json::json!({
            "format": "cofferdam-conformance/1",
            "suite_version": "1.2.3",
            "driver": {
                "socket": "/run/x.sock", "name": "x", "version": "0.1.0",
                "description": "a driver", "incarnation": "0123456789",
                "execution": "SUPERVISED", "isolation": "NAMESPACES",
            },
            "cases": [
                {
                    "id": "core.create.accepts", "tier": "core", "outcome": "passed",
                    "duration_ms": 1234, "source": "CreateSandbox",
                    "says": "The same spec again gives the same sandbox.",
                },
                {
                    "id": "core.create.idempotent", "tier": "core", "outcome": "failed",
                    "duration_ms": 1234, "source": "CreateSandbox",
                    "says": "The same spec again gives the same sandbox.",
                    "seen": "it answered \"<none>\" & ended", "fix": "look it up first",
                },
                {
                    "id": "core.create.pause", "tier": "core", "outcome": "skipped",
                    "duration_ms": 1234, "source": "CreateSandbox",
                    "says": "The same spec again gives the same sandbox.",
                    "reason": "the driver does not claim pause",
                },
            ],
            "summary": {"passed": 1, "failed": 1, "skipped": 1, "duration_ms": 5678},
            "bench": {"latencies": [{
                "what": "create", "samples": 20,
                "min_ms": 1.5, "p50_ms": 2.0, "p90_ms": 3.25, "p99_ms": 4.5, "max_ms": 4.5,
            }]},
        });
        assert_eq!(value, expected);
    }
}
