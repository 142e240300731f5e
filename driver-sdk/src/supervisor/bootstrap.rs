//! What a supervisor is told when it starts, and the secret in it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use zeroize::{Zeroize as _, Zeroizing};

/// Bound on the bootstrap that a supervisor reads.
pub const BOOTSTRAP_BYTES_MAX: usize = 64 * 1024;

/// The one-time secret of a sandbox: 32 bytes, never printed, erased when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<[u8; 32]>);

impl Token {
    /// Takes exactly 32 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let bytes = <[u8; 32]>::try_from(bytes).ok()?;
        Some(Self(Zeroizing::new(bytes)))
    }

    /// A token of zeros, for platforms that run commands themselves and need none.
    #[must_use]
    pub fn unused() -> Self {
        Self(Zeroizing::new([0; 32]))
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

/// What a supervisor is told when it starts: one JSON object, over a descriptor or from a file that
/// is removed, never in arguments or environment.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// The sandbox that it is in.
    pub sandbox_id: String,
    /// What it proves itself with.
    pub token: Token,
    /// When it ends itself, if nobody else did. 0: never.
    pub expire_time_unix_ms: u64,
    /// Whom it runs programs as.
    pub workload: Workload,
    /// Default working directory of programs.
    pub workspace: String,
    /// `oom_score_adj` of programs, so that the kernel takes them before the supervisor.
    pub oom_score_adj: i32,
    /// What the image wants every program to have in its environment. Never a secret: an image has
    /// none.
    pub environment: BTreeMap<String, String>,
}

/// Whom a supervisor runs programs as.
#[derive(Debug, Clone, Serialize)]
pub struct Workload {
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// `HOME`.
    pub home: String,
    /// `USER`.
    pub user: String,
}

/// What a driver may let the supervisor inherit beside its bootstrap, by number. All are optional: a
/// supervisor finds the first by itself where a container shows it its own control group, and one
/// that does not know them closes them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Descriptors {
    /// `memory.events` or `memory.oom_control` of the sandbox, to be read: the supervisor says with
    /// the end of each program how often the kernel killed for want of memory.
    pub memory_events: Option<i32>,
    /// `cgroup.threads` or `tasks` of a group below the supervisor's own, to be written: programs are
    /// put there, so that a bound on their cpu time does not bound the supervisor's.
    pub cpu_threads: Option<i32>,
}

/// `oom_score_adj` of programs unless a driver knows better: certainly before the supervisor.
pub const OOM_SCORE_ADJ: i32 = 500;

#[derive(Serialize)]
struct BootstrapJson<'a> {
    sandbox_id: &'a str,
    token: &'a str,
    expire_time_unix_ms: u64,
    workload: &'a Workload,
    workspace: &'a str,
    oom_score_adj: i32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_events_fd: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_threads_fd: Option<i32>,
}

impl Bootstrap {
    /// The JSON object, in memory that is erased when it is dropped.
    ///
    /// # Panics
    /// When a name in it is so long that it exceeds [`BOOTSTRAP_BYTES_MAX`], which the bounds of
    /// the contract exclude.
    #[must_use]
    pub fn to_json(&self) -> Zeroizing<String> {
        self.to_json_with(Descriptors::default())
    }

    /// The same, for a supervisor that inherits descriptors.
    ///
    /// # Panics
    /// As [`Bootstrap::to_json`].
    #[must_use]
    pub fn to_json_with(&self, descriptors: Descriptors) -> Zeroizing<String> {
        let mut token = hex::encode(self.token.expose());
        let json = BootstrapJson {
            sandbox_id: &self.sandbox_id,
            token: &token,
            expire_time_unix_ms: self.expire_time_unix_ms,
            workload: &self.workload,
            workspace: &self.workspace,
            oom_score_adj: self.oom_score_adj,
            environment: &self.environment,
            memory_events_fd: descriptors.memory_events,
            cpu_threads_fd: descriptors.cpu_threads,
        };
        // Room from the start: a vector that grows leaves copies behind.
        let mut bytes = Vec::with_capacity(BOOTSTRAP_BYTES_MAX);
        serde_json::to_writer(&mut bytes, &json).expect("plain data is JSON");
        assert!(
            bytes.len() <= BOOTSTRAP_BYTES_MAX,
            "the bootstrap is bounded"
        );
        token.zeroize();
        Zeroizing::new(String::from_utf8(bytes).expect("JSON is UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_in_the_json_and_nowhere_else() {
        let bootstrap = Bootstrap {
            sandbox_id: "sbx-1".to_owned(),
            token: Token::from_slice(&[0xab; 32]).unwrap(),
            expire_time_unix_ms: 7,
            workload: Workload {
                uid: 1000,
                gid: 1000,
                home: "/workspace".to_owned(),
                user: "sandbox".to_owned(),
            },
            workspace: "/workspace".to_owned(),
            oom_score_adj: OOM_SCORE_ADJ,
            environment: BTreeMap::new(),
        };
        assert!(!format!("{bootstrap:?}").contains("abab"));
        let json: serde_json::Value = serde_json::from_str(&bootstrap.to_json()).unwrap();
        assert_eq!(json["token"], "ab".repeat(32));
        assert_eq!(json["workload"]["user"], "sandbox");
        assert_eq!(json["oom_score_adj"], 500);
        assert!(json.get("memory_events_fd").is_none());
        let descriptors = Descriptors {
            memory_events: Some(5),
            cpu_threads: Some(6),
        };
        let json = bootstrap.to_json_with(descriptors);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let numbers = (&json["memory_events_fd"], &json["cpu_threads_fd"]);
        assert_eq!(numbers, (&5.into(), &6.into()));
    }

    #[test]
    fn a_token_has_32_bytes() {
        assert!(Token::from_slice(&[0; 31]).is_none());
        assert!(Token::from_slice(&[0; 33]).is_none());
    }
}
