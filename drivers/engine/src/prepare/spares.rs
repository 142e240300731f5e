//! Workspaces that are ready before anybody needs one. No waiting and no engine here.

use std::collections::HashMap;

use crate::naming;

/// At least so many at a time: a carrier costs the same for one as for all of them.
const BATCH_MIN: usize = 1;

/// What a spare is good for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    gateway_id: String,
    user: (u32, u32),
}

impl Kind {
    pub(super) fn new(gateway_id: &str, user: (u32, u32)) -> Self {
        Self {
            gateway_id: gateway_id.to_owned(),
            user,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Spares {
    ready: HashMap<Kind, Vec<String>>,
    filling: HashMap<Kind, ()>,
}

/// Kinds beyond this are not kept: somebody uses a new user for each sandbox.
const KINDS_MAX: usize = 32;

impl Spares {
    pub(super) fn take(&mut self, kind: &Kind) -> Option<String> {
        self.ready.get_mut(kind)?.pop()
    }

    pub(super) fn put(&mut self, kind: &Kind, names: Vec<String>) {
        self.ready.entry(kind.clone()).or_default().extend(names);
    }

    /// They are removed.
    pub(super) fn forget(&mut self) {
        self.ready.clear();
    }

    /// How many are to be made now. None: enough are there, somebody is at it, or this kind is one
    /// too many.
    pub(super) fn begin_filling(&mut self, kind: &Kind, ahead: usize) -> Option<usize> {
        let there = self.ready.get(kind).map_or(0, Vec::len);
        let is_new = !self.ready.contains_key(kind);
        let is_filled = there > ahead / 2 || ahead == 0;
        let is_too_much = is_new && self.ready.len() >= KINDS_MAX;
        if is_filled || is_too_much || self.filling.contains_key(kind) {
            return None;
        }
        self.filling.insert(kind.clone(), ());
        Some(ahead - there)
    }

    pub(super) fn end_filling(&mut self, kind: &Kind) {
        self.filling.remove(kind);
    }
}

/// How many are made when somebody waits for one.
pub(super) fn batch(ahead: usize) -> usize {
    (ahead / 2).max(BATCH_MIN)
}

pub(super) fn fresh_name(gateway_id: &str) -> String {
    naming::object(gateway_id, "workspace", &random_id())
}

/// Sixty-four random bits.
pub(super) fn random_id() -> String {
    let mut bytes = [0; 8];
    // Without randomness names would clash, and the engine refuses the second.
    let _ = getrandom::fill(&mut bytes);
    data_encoding::HEXLOWER.encode(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spares_are_filled_up_by_one_at_a_time() {
        let mut spares = Spares::default();
        let kind = Kind::new("gw", (1000, 1000));
        assert_eq!(spares.begin_filling(&kind, 8), Some(8));
        assert_eq!(spares.begin_filling(&kind, 8), None, "somebody is at it");
        spares.end_filling(&kind);
        spares.put(&kind, (0..8).map(|n| n.to_string()).collect());
        assert_eq!(spares.begin_filling(&kind, 8), None, "enough");
        for _ in 0..4 {
            assert!(spares.take(&kind).is_some());
        }
        assert_eq!(spares.begin_filling(&kind, 8), Some(4));
        assert_eq!(spares.take(&Kind::new("gw", (1, 1))), None);
    }

    #[test]
    fn without_spares_each_is_made_when_it_is_needed() {
        let mut spares = Spares::default();
        assert_eq!(spares.begin_filling(&Kind::new("gw", (1, 1)), 0), None);
        assert_eq!(batch(0), 1);
        assert_ne!(fresh_name("gw"), fresh_name("gw"));
    }
}
