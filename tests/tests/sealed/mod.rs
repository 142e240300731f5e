//! Trying to break out, of sandboxes made by root and by an ordinary user.

mod files;
mod limits;
mod network;
mod privileges;
pub(crate) mod probe;
mod supervisor;

use std::collections::BTreeMap;

use cofferdam_tests::engine::Engine;
use cofferdam_tests::gateway::Builder;
use cofferdam_tests::{TestGateway, User, engine};
use serde_json::Value;

/// Makes two tests of each function: its sandboxes are root's, or an ordinary user's.
macro_rules! for_each_user {
    ($($name:ident),* $(,)?) => {
        mod made_by_root {
            $(#[test]
            fn $name() {
                cofferdam_tests::need!(cofferdam_tests::engine::Engine::Root);
                super::$name(cofferdam_tests::User::Tester);
            })*
        }
        mod made_by_an_ordinary_user {
            $(#[test]
            fn $name() {
                super::$name(cofferdam_tests::User::Ordinary);
            })*
        }
    };
}
pub(crate) use for_each_user;

/// A gateway with one sandbox, and the prober in it.
pub(crate) struct Sealed {
    pub(crate) gateway: TestGateway,
}

impl Sealed {
    pub(crate) fn new(user: User) -> Self {
        Self::with(TestGateway::builder().user(user), &[])
    }

    /// Its sandbox has limits; an ordinary user's gateway got cgroups to enforce them. None: this
    /// host has none to give.
    pub(crate) fn limited(user: User, flags: &[&str]) -> Option<Self> {
        let mut builder = TestGateway::builder().user(user);
        if !user.is_root() {
            if !engine::is_there(Engine::Cgroups) {
                return None;
            }
            builder = builder.delegated_cgroup();
        }
        Some(Self::with(builder, flags))
    }

    fn with(builder: Builder, flags: &[&str]) -> Self {
        let gateway = builder.start();
        let flags = ["--name", "sealed"].iter().chain(flags);
        gateway.create(flags);
        probe::install(&gateway, "sealed");
        Self { gateway }
    }

    /// A shell script in the sandbox that has to succeed; its stdout.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        self.gateway.ok(["exec", "sealed", "sh", "-c", script])
    }

    /// What a probe finds there.
    #[track_caller]
    pub(crate) fn probe<I: AsRef<str>>(&self, args: impl IntoIterator<Item = I>) -> Findings {
        let args: Vec<String> = args
            .into_iter()
            .map(|arg| arg.as_ref().to_owned())
            .collect();
        let words = ["exec", "sealed", "./probe"].map(str::to_owned);
        let text = self.gateway.ok(words.into_iter().chain(args));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// The JSON object that a probe writes.
    #[track_caller]
    pub(crate) fn measure(&self, args: &[&str]) -> Value {
        let words = ["exec", "sealed", "./probe"].iter().chain(args);
        let text = self.gateway.ok(words);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }
}

/// Where a supervisor's callback socket might be found from inside.
pub(crate) fn ways_to_the_callback() -> Vec<String> {
    let mut ways: Vec<String> = ["/proc/1/cwd", "/proc/1/root", "/run", "/", "."]
        .iter()
        .map(|dir| format!("{dir}/gateway.sock"))
        .collect();
    for process in ["1", "self"] {
        for number in 0..20 {
            ways.push(format!("/proc/{process}/fd/{number}/gateway.sock"));
        }
    }
    ways
}

/// What was tried, and how it ended.
pub(crate) type Findings = BTreeMap<String, String>;

/// Fails if anything went well that must not.
#[track_caller]
pub(crate) fn none_is_ok(findings: &Findings) {
    let open: Vec<_> = findings.iter().filter(|(_, how)| *how == "ok").collect();
    assert!(open.is_empty(), "possible from inside: {open:?}");
}
