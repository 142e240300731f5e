//! Samples and what is said about them. Knows nothing of where they come from.

use std::time::Duration;

use serde::Serialize;

/// Measured values in the order in which they were taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn push_ms(&mut self, took: Duration) {
        self.push(took.as_secs_f64() * 1e3);
    }

    /// None if nothing was measured: unmeasured is not zero.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        Some(Summary {
            n: sorted.len(),
            min,
            p50: percentile(&sorted, 50),
            p90: percentile(&sorted, 90),
            p99: percentile(&sorted, 99),
            max,
        })
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) n: usize,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// Nearest rank: always a value that was measured.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(values: impl IntoIterator<Item = u32>) -> Summary {
        let samples: Samples = values.into_iter().map(f64::from).collect();
        samples.summary().unwrap()
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let all = summary((1..=200).rev());
        assert_eq!((all.min, all.p50, all.p90), (1.0, 100.0, 180.0));
        assert_eq!((all.p99, all.max, all.n), (198.0, 200.0, 200));
    }

    #[test]
    fn one_sample_is_every_percentile() {
        let one = summary([7]);
        assert_eq!((one.min, one.p50, one.p99, one.max), (7.0, 7.0, 7.0, 7.0));
    }

    #[test]
    fn nothing_measured_has_no_summary() {
        assert_eq!(Samples::default().summary(), None);
    }
}
