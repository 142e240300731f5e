//! What the gateway itself notices about a driver that answers: calls that do not come back, streams
//! that break, words that do not fit together. A driver says how its platform is; this says how the
//! driver is.
//!
//! ```text
//!   calls that wait ──── slow ────╮
//!   calls that failed ── failing ─┼──► list: an id, a sentence, what to do
//!   everything else ──── facts ───╯
//! ```
//!
//! Nothing is refused because of a notice: it is for people, and goes when its reason goes.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::trouble::SILENT_FIX;
use super::{CallError, CallErrorKind};

/// A call that has waited so long is worth a word. Most are answered within a second.
pub(super) const SLOW_AFTER: Duration = Duration::from_secs(3);

/// What failed, and was not tried again, is of no interest after so long.
const REMEMBERED: Duration = Duration::from_secs(600);

/// For answers that the contract does not allow.
pub(super) const FAULT_FIX: &str = "see the driver's log, and install a version of it that passes \
                                    the conformance suite";

/// One thing that was noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Stable: `calls`, `watch`, `inventory`.
    pub id: &'static str,
    /// Something does not work; otherwise it works with a loss.
    pub is_failure: bool,
    /// One sentence.
    pub detail: String,
    /// What to do.
    pub fix: String,
}

/// What a fact is about. At most one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// `WatchSandboxes` itself.
    Watch,
    /// The snapshot that it begins with.
    Snapshot,
    /// Changes that the watch did not tell.
    Untold,
    /// More words than anybody can use.
    Flood,
    /// `Fingerprint` does not stay.
    Health,
    /// `ListSandboxes`.
    Inventory,
    /// `RecoverSandboxes`.
    Recovery,
    /// Sandboxes that it does not know any more.
    Lost,
}

impl Subject {
    fn id(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Snapshot => "snapshot",
            Self::Untold => "untold",
            Self::Flood => "flood",
            Self::Health => "health",
            Self::Inventory => "inventory",
            Self::Recovery => "recovery",
            Self::Lost => "lost",
        }
    }
}

/// All that was noticed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Notices {
    slow: BTreeMap<u64, Slow>,
    failing: BTreeMap<String, Failing>,
    facts: BTreeMap<Subject, Fact>,
}

/// A call that is under way.
#[derive(Debug, Clone, PartialEq)]
struct Slow {
    operation: String,
    since: Instant,
    /// Why the last attempt was not the last one; empty while it is the first.
    last: String,
}

/// Calls of one kind that failed, one after the other.
#[derive(Debug, Clone, PartialEq)]
struct Failing {
    times: u32,
    at: Instant,
    message: String,
    fix: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Fact {
    is_failure: bool,
    detail: String,
    fix: String,
    until: Option<Instant>,
}

impl Notices {
    /// Everything that holds now, the worst first.
    pub fn list(&self) -> Vec<Notice> {
        let now = Instant::now();
        let mut all: Vec<Notice> = self.slow_calls(now).into_iter().collect();
        let recent = |at: &Instant| now.saturating_duration_since(*at) < REMEMBERED;
        let failing = self.failing.iter().filter(|(_, call)| recent(&call.at));
        all.extend(failing.map(|(kind, call)| call.notice(kind)));
        let facts = self.facts.iter();
        let lasting = facts.filter(|(_, fact)| fact.until.is_none_or(|until| until > now));
        all.extend(lasting.map(|(subject, fact)| Notice {
            id: subject.id(),
            is_failure: fact.is_failure,
            detail: fact.detail.clone(),
            fix: fact.fix.clone(),
        }));
        all.sort_by_key(|notice| !notice.is_failure);
        all
    }

    fn slow_calls(&self, now: Instant) -> Option<Notice> {
        let oldest = self.slow.values().min_by_key(|call| call.since)?;
        let waited = now.saturating_duration_since(oldest.since).as_secs();
        let others = match self.slow.len() - 1 {
            0 => String::new(),
            1 => ", and 1 more call".to_owned(),
            n => format!(", and {n} more calls"),
        };
        let last = match oldest.last.as_str() {
            "" => String::new(),
            last => format!(" (last: {last})"),
        };
        Some(Notice {
            id: "unanswered",
            is_failure: true,
            detail: format!(
                "it has not answered {} for {waited} s{others}{last}",
                oldest.operation
            ),
            fix: SILENT_FIX.to_owned(),
        })
    }

    /// A call has waited for long, or is trying again.
    pub(super) fn slow(&mut self, number: u64, operation: &str, since: Instant, last: &str) {
        let call = Slow {
            operation: operation.to_owned(),
            since,
            last: last.to_owned(),
        };
        self.slow.insert(number, call);
    }

    /// It has ended, whatever its end.
    pub(super) fn ended(&mut self, number: u64) {
        self.slow.remove(&number);
    }

    /// Whether anything has to be taken back when a call of this kind works.
    pub(super) fn is_failing(&self, kind: &str) -> bool {
        self.failing.contains_key(kind)
    }

    pub(super) fn has_fact(&self, subject: Subject) -> bool {
        self.facts.contains_key(&subject)
    }

    /// Calls of this kind work.
    pub(super) fn worked(&mut self, kind: &str) {
        self.failing.remove(kind);
    }

    /// A call of this kind has failed, if that is the driver's affair.
    pub(super) fn failed(&mut self, kind: &str, error: &CallError) {
        let Some(fix) = fix(error) else {
            return;
        };
        let before = self.failing.get(kind).map_or(0, |call| call.times);
        let call = Failing {
            times: before.saturating_add(1),
            at: Instant::now(),
            message: error.message.clone(),
            fix,
        };
        self.failing.insert(kind.to_owned(), call);
    }

    pub(super) fn fact(&mut self, subject: Subject, is_failure: bool, detail: &str, fix: &str) {
        let fact = Fact {
            is_failure,
            detail: detail.to_owned(),
            fix: fix.to_owned(),
            until: None,
        };
        self.facts.insert(subject, fact);
    }

    /// A fact that nothing takes back.
    pub(super) fn passing_fact(&mut self, subject: Subject, detail: &str, fix: &str) {
        self.fact(subject, false, detail, fix);
        if let Some(fact) = self.facts.get_mut(&subject) {
            fact.until = Some(Instant::now() + REMEMBERED);
        }
    }

    pub(super) fn no_fact(&mut self, subject: Subject) {
        self.facts.remove(&subject);
    }

    /// Another process serves now: what was said of streams and lists was said of the old one.
    pub(super) fn new_incarnation(&mut self) {
        self.facts.clear();
    }
}

impl Failing {
    fn notice(&self, kind: &str) -> Notice {
        let times = match self.times {
            1 => String::new(),
            n => format!(" ({n} times in a row)"),
        };
        Notice {
            id: "failing",
            is_failure: true,
            detail: format!("{kind} failed{times}: {}", self.message),
            fix: self.fix.clone(),
        }
    }
}

/// What helps against a failure that is the driver's; none for failures that are not.
fn fix(error: &CallError) -> Option<String> {
    let usual = match error.kind {
        CallErrorKind::Timeout | CallErrorKind::Unavailable => SILENT_FIX,
        CallErrorKind::Internal | CallErrorKind::AlreadyExists | CallErrorKind::Unimplemented => {
            FAULT_FIX
        }
        CallErrorKind::Precondition => "see the driver's log, and its platform",
        CallErrorKind::Denied => "see the driver's settings: its platform refuses its credentials",
        CallErrorKind::Invalid
        | CallErrorKind::NotFound
        | CallErrorKind::Exhausted { .. }
        | CallErrorKind::Unreachable => return None,
    };
    Some(match error.fix.as_str() {
        "" => usual.to_owned(),
        fix => fix.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: CallErrorKind, fix: &str) -> CallError {
        CallError {
            kind,
            message: "driver d: create sbx-1: no".to_owned(),
            fix: fix.to_owned(),
            violations: Vec::new(),
            ambiguous: false,
        }
    }

    #[test]
    fn failures_count_until_one_works() {
        let mut notices = Notices::default();
        notices.failed("create", &error(CallErrorKind::Timeout, ""));
        notices.failed("create", &error(CallErrorKind::Internal, "buy another"));
        let [notice] = &notices.list()[..] else {
            panic!("{notices:?}");
        };
        assert_eq!(
            notice.detail,
            "create failed (2 times in a row): driver d: create sbx-1: no"
        );
        assert_eq!(notice.fix, "buy another");
        notices.worked("create");
        assert_eq!(notices.list(), []);
    }

    #[test]
    fn what_is_the_callers_affair_is_no_notice() {
        let mut notices = Notices::default();
        for kind in [
            CallErrorKind::Invalid,
            CallErrorKind::NotFound,
            CallErrorKind::Exhausted { retry: None },
            CallErrorKind::Unreachable,
        ] {
            notices.failed("create", &error(kind, ""));
        }
        assert_eq!(notices.list(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_calls_are_counted_and_forgotten() {
        let mut notices = Notices::default();
        let now = Instant::now();
        notices.slow(2, "list", now, "");
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(notices.list()[0].detail, "it has not answered list for 7 s");
        notices.slow(1, "create sbx-1", now - Duration::from_secs(1), "cut");
        assert_eq!(
            notices.list()[0].detail,
            "it has not answered create sbx-1 for 8 s, and 1 more call (last: cut)"
        );
        notices.ended(1);
        notices.ended(2);
        notices.passing_fact(Subject::Untold, "a change was not told", "look");
        assert_eq!(notices.list().len(), 1);
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(notices.list(), []);
    }

    #[test]
    fn failures_come_first() {
        let mut notices = Notices::default();
        notices.fact(Subject::Watch, false, "a", "");
        notices.fact(Subject::Inventory, true, "b", "");
        let ids: Vec<_> = notices.list().iter().map(|notice| notice.id).collect();
        assert_eq!(ids, ["inventory", "watch"]);
    }
}
