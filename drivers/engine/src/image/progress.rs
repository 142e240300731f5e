//! How far a pull is, over all layers.

use std::collections::BTreeMap;

use crate::client::PullEvent;

/// Bytes done and to be done, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    name: String,
    /// Of each layer.
    layers: BTreeMap<String, (u64, u64)>,
}

impl Progress {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            layers: BTreeMap::new(),
        }
    }

    /// True if that was news.
    pub(crate) fn take(&mut self, event: &PullEvent) -> bool {
        if event.layer.is_empty() {
            return false;
        }
        let layer = self.layers.entry(event.layer.clone()).or_default();
        let before = *layer;
        match (event.status.as_str(), event.done_bytes, event.total_bytes) {
            ("Downloading", done, total) => {
                layer.1 = total.unwrap_or(layer.1);
                layer.0 = done.unwrap_or(layer.0).max(layer.0);
            }
            ("Download complete" | "Pull complete" | "Extracting", ..) => layer.0 = layer.1,
            _ => {}
        }
        *layer != before
    }

    pub(crate) fn done_bytes(&self) -> u64 {
        self.layers.values().map(|(done, _)| done).sum()
    }

    /// 0: not known.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.layers.values().map(|(_, total)| total).sum()
    }

    /// One sentence for people.
    pub(crate) fn sentence(&self) -> String {
        const MEGA: u64 = 1_000_000;
        let name = &self.name;
        match self.total_bytes() {
            0 => format!("pulling {name}"),
            total => format!(
                "pulling {name}: {} of {} MB",
                self.done_bytes() / MEGA,
                total.div_ceil(MEGA)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(layer: &str, status: &str, done: u64, total: u64) -> PullEvent {
        PullEvent {
            layer: layer.to_owned(),
            status: status.to_owned(),
            done_bytes: (done > 0).then_some(done),
            total_bytes: (total > 0).then_some(total),
        }
    }

    #[test]
    fn layers_add_up_and_never_go_back() {
        let mut progress = Progress::new("a:b");
        assert_eq!(progress.sentence(), "pulling a:b");
        progress.take(&event("", "Pulling from a", 0, 0));
        progress.take(&event("l1", "Downloading", 4_000_000, 10_000_000));
        progress.take(&event("l2", "Downloading", 1_000_000, 5_000_000));
        assert_eq!(progress.sentence(), "pulling a:b: 5 of 15 MB");
        assert!(progress.take(&event("l1", "Download complete", 0, 0)));
        // Extraction counts other bytes.
        assert!(!progress.take(&event("l1", "Extracting", 1, 10_000_000)));
        assert_eq!(progress.done_bytes(), 11_000_000);
    }
}
