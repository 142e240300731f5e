//! What holds now: the script and how far its rules have been counted, the platform, the open
//! connections. Shared by everything that serves; nothing in here waits with a lock held.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::journal::{Book, Journal};
use super::platform::{Platform, Restart};
use super::script::{Door, Rule, Script};
use super::variant::Variant;
use crate::fake::FakeDriver;
use crate::proto::Handle;
use crate::server::Server;
use crate::settings::SchemaError;

/// What an IncarnationUnreported driver calls itself at every start.
const SAME_INCARNATION: &str = "the-same-at-every-start";

/// A script with its counters.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) script: Script,
    /// For each rule, how many calls it has been compared with that it is about.
    counts: Vec<AtomicU64>,
}

impl Current {
    fn new(script: Script) -> Arc<Self> {
        let counts = script.rules.iter().map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { script, counts })
    }

    fn pick(&self, rpc: &str, sandbox: &str) -> Option<Rule> {
        let rules = self.script.rules.iter().zip(&self.counts);
        for (rule, count) in rules {
            let about = (rule.rpc == "*" || rule.rpc == rpc)
                && rule.sandbox.as_ref().is_none_or(|id| id == sandbox);
            if !about {
                continue;
            }
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            let last = rule.times.map(|times| rule.nth.saturating_add(times) - 1);
            if number >= rule.nth && last.is_none_or(|last| number <= last) {
                return Some(rule.clone());
            }
        }
        None
    }
}

/// What was seen of sandboxes, for drivers that misuse it.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Bootstrap tokens, as hexadecimal digits.
    pub(super) tokens: HashMap<String, String>,
    pub(super) handles: HashMap<String, Handle>,
}

#[derive(Debug)]
pub(crate) struct Live {
    current: watch::Sender<Arc<Current>>,
    book: Book,
    platform: Platform,
    memory: Mutex<Memory>,
    /// Of an UnreadHoldsUp driver: who is just being told something.
    telling: tokio::sync::Mutex<()>,
    /// Of the connections that are open now.
    connections: Mutex<CancellationToken>,
}

impl Live {
    pub(super) fn new(script: Script) -> Result<Self, SchemaError> {
        Ok(Self {
            current: watch::Sender::new(Current::new(script)),
            book: Book::default(),
            platform: Platform::new()?,
            memory: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
            connections: Mutex::default(),
        })
    }

    pub(super) fn set(&self, script: Script) {
        let closes = self.door() != script.door;
        tracing::info!(?script, "a new script");
        self.current.send_replace(Current::new(script));
        if closes {
            self.cut();
        }
    }

    pub(super) async fn restart(&self, restart: Restart) -> Result<(), SchemaError> {
        self.platform.restart(restart).await?;
        if !restart.keep_connections {
            self.cut();
        }
        Ok(())
    }

    pub(super) fn cut(&self) {
        let mut connections = (self.connections.lock()).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *connections).cancel();
    }

    pub(super) fn journal(&self) -> Journal {
        Journal {
            incarnation: self.incarnation().1,
            ..self.book.copy()
        }
    }

    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    pub(super) fn door(&self) -> Door {
        self.current.borrow().script.door
    }

    /// Cancelled when all connections are closed.
    pub(super) fn connection(&self) -> CancellationToken {
        let connections = self.connections.lock();
        let connections = connections.unwrap_or_else(PoisonError::into_inner);
        connections.child_token()
    }

    pub(super) fn current(&self) -> Arc<Current> {
        self.current.borrow().clone()
    }

    /// The script whenever it changes.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<Current>> {
        self.current.subscribe()
    }

    pub(super) fn breaks(&self, variant: Variant) -> bool {
        self.current.borrow().script.variant == Some(variant)
    }

    /// The rule for this call, which is counted.
    pub(super) fn pick(&self, rpc: &str, sandbox: &str) -> Option<Rule> {
        self.current().pick(rpc, sandbox)
    }

    /// Waits until the rule is not in the script any more.
    pub(super) async fn taken_away(&self, rule: &Rule) {
        let mut changes = self.changes();
        let gone = |current: &Arc<Current>| !current.script.rules.contains(rule);
        // The sender lives in `self`, so there is always somebody to wait for.
        drop(changes.wait_for(gone).await);
    }

    pub(super) fn server(&self) -> Server<FakeDriver> {
        self.platform.server()
    }

    pub(super) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// As it is, and as the driver says that it is.
    pub(super) fn incarnation(&self) -> (String, String) {
        let (real, mut said) = self.platform.incarnation();
        if self.breaks(Variant::IncarnationUnreported) {
            SAME_INCARNATION.clone_into(&mut said);
        }
        (real, said)
    }

    /// The turn to tell a watcher something.
    pub(super) async fn telling(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.telling.lock().await
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::Fault;
    use super::*;

    #[test]
    fn rules_are_counted_by_what_they_are_about() {
        let rule = |rpc: &str, sandbox: Option<&str>, nth, times| Rule {
            sandbox: sandbox.map(str::to_owned),
            nth,
            times,
            ..Rule::always(rpc, Fault::Reset {})
        };
        let rules = vec![
            rule("GetSandbox", Some("a"), 2, Some(1)),
            rule("*", None, 4, None),
        ];
        let current = Current::new(Script {
            rules: rules.clone(),
            ..Script::default()
        });
        let calls = [
            ("GetSandbox", "a"),
            ("GetSandbox", "b"),
            ("GetSandbox", "a"),
        ];
        let picked: Vec<_> = calls.map(|(rpc, id)| current.pick(rpc, id)).to_vec();
        assert_eq!(picked, [None, None, Some(rules[0].clone())]);
        // Counted by the second rule: the first two, since the first one took the third.
        let picked: Vec<_> = calls.map(|(rpc, id)| current.pick(rpc, id)).to_vec();
        assert_eq!(
            picked,
            [None, Some(rules[1].clone()), Some(rules[1].clone())]
        );
    }
}
