//! Remarks that come again and again: the first few are shown, the rest is counted. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// So many in one window are news; more of them hide everything else.
const SHOWN_MAX: u32 = 3;
const WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Repeats(BTreeMap<String, Topic>);

#[derive(Debug)]
struct Topic {
    window_start: Instant,
    shown: u32,
    withheld: u64,
}

impl Repeats {
    /// Whether a remark is to be shown; if so, how many on its topic were withheld before it.
    pub(crate) fn admit(&mut self, topic: &str, now: Instant) -> Option<u64> {
        let topic = self.0.entry(topic.to_owned()).or_insert(Topic {
            window_start: now,
            shown: 0,
            withheld: 0,
        });
        if now.saturating_duration_since(topic.window_start) >= WINDOW {
            topic.window_start = now;
            topic.shown = 0;
        }
        if topic.shown >= SHOWN_MAX {
            topic.withheld += 1;
            return None;
        }
        topic.shown += 1;
        Some(std::mem::take(&mut topic.withheld))
    }

    /// The topics of which something was withheld and not told yet, and how much.
    pub(crate) fn take_withheld(&mut self) -> Vec<(String, u64)> {
        let topics = std::mem::take(&mut self.0).into_iter();
        topics
            .map(|(name, topic)| (name, topic.withheld))
            .filter(|(_, withheld)| *withheld > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_window_are_shown_and_the_rest_is_counted() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        let shown: Vec<_> = (0..5).map(|_| repeats.admit("port 80", start)).collect();
        assert_eq!(shown, [Some(0), Some(0), Some(0), None, None]);
        assert_eq!(repeats.admit("port 81", start), Some(0));
        assert_eq!(repeats.admit("port 80", start + WINDOW), Some(2));
        assert_eq!(repeats.take_withheld(), []);
    }

    #[test]
    fn what_was_withheld_at_the_end_can_be_told() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        for _ in 0..10 {
            repeats.admit("port 80", start);
        }
        assert_eq!(repeats.take_withheld(), [("port 80".to_owned(), 7)]);
        assert_eq!(repeats.take_withheld(), []);
    }
}
