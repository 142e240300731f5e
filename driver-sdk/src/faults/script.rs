//! What is to go wrong, in words that a test writes in Rust or in JSON.
//!
//! An empty script breaks nothing. Unknown words are refused, so that a mistyped fault does not look
//! like a gateway that survived it.

use serde::{Deserialize, Serialize};

use super::Variant;

/// Everything that goes wrong at one time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// One rule of the contract that is broken throughout.
    pub variant: Option<Variant>,
    /// What a connection meets.
    pub door: Door,
    /// What happens to calls. The first rule that fits counts.
    pub rules: Vec<Rule>,
    /// What happens to `WatchSandboxes`, also on streams that are open already.
    pub watch: WatchFaults,
    /// What happens to `ListSandboxes`.
    pub inventory: InventoryFaults,
    /// What happens to `Fingerprint`, also on streams that are open already.
    pub health: Option<HealthFaults>,
}

impl Script {
    /// Breaks one rule of the contract.
    #[must_use]
    pub fn variant(variant: Variant) -> Self {
        Self {
            variant: Some(variant),
            ..Self::default()
        }
    }

    /// One fault for every call of `rpc`.
    #[must_use]
    pub fn always(rpc: &str, fault: Fault) -> Self {
        Self {
            rules: vec![Rule::always(rpc, fault)],
            ..Self::default()
        }
    }
}

/// What a connection meets. Anything but `Open` closes those that are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// A driver.
    #[default]
    Open,
    /// Accepted, and never answered.
    Silent,
    /// Accepted, and closed at once.
    Closing,
    /// Bytes that mean nothing.
    Garbage,
    /// A web server's answer.
    Http1,
}

/// One fault of some calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// As in the contract: `CreateSandbox`. `*` is every one.
    pub rpc: String,
    /// Only calls about this sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// The first call that it happens to, counted from 1 and from when the script was set.
    #[serde(default = "one")]
    pub nth: u64,
    /// How many calls it happens to. Absent: all from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// What happens.
    pub fault: Fault,
}

fn one() -> u64 {
    1
}

impl Rule {
    /// For every call of `rpc`.
    #[must_use]
    pub fn always(rpc: &str, fault: Fault) -> Self {
        Self {
            rpc: rpc.to_owned(),
            sandbox: None,
            nth: 1,
            times: None,
            fault,
        }
    }
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// No answer, until the caller gives up or the rule is taken away.
    Hang {
        /// The work is done first.
        #[serde(default)]
        after: bool,
        /// Also when the rule is taken away.
        #[serde(default)]
        for_good: bool,
    },
    /// The work begins later.
    Delay {
        /// In milliseconds.
        ms: u64,
    },
    /// The connection is closed.
    Cut {
        /// The work is done first, and its answer is lost.
        #[serde(default)]
        after: bool,
    },
    /// An error.
    Fail {
        /// As in gRPC: `UNAVAILABLE`.
        code: Code,
        /// For people.
        #[serde(default)]
        message: String,
        /// The exact remedy, as `google.rpc.Help`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        fix: String,
        /// The work is done first, and its answer is thrown away.
        #[serde(default)]
        after: bool,
    },
    /// The HTTP/2 stream is reset; the connection goes on.
    Reset {},
    /// A message without any field, after the work was done.
    Empty {},
    /// A message that cannot be decoded, after the work was done.
    Garbage {},
    /// A message that is larger than the contract allows, after the work was done.
    Huge {
        /// Its size.
        bytes: usize,
    },
    /// Something that is not gRPC.
    Http {
        /// The HTTP status.
        status: u16,
    },
    /// The end of the whole process, as by a bug: only for a driver that is a program of its own.
    Abort {},
}

/// A gRPC code by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "gRPC's own names")]
pub enum Code {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl From<Code> for tonic::Code {
    fn from(code: Code) -> Self {
        match code {
            Code::Cancelled => Self::Cancelled,
            Code::Unknown => Self::Unknown,
            Code::InvalidArgument => Self::InvalidArgument,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::FailedPrecondition => Self::FailedPrecondition,
            Code::Aborted => Self::Aborted,
            Code::OutOfRange => Self::OutOfRange,
            Code::Unimplemented => Self::Unimplemented,
            Code::Internal => Self::Internal,
            Code::Unavailable => Self::Unavailable,
            Code::DataLoss => Self::DataLoss,
            Code::Unauthenticated => Self::Unauthenticated,
        }
    }
}

/// What happens to the events of a watch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchFaults {
    /// Nothing is said while this holds, no bookmark either. Afterwards it goes on.
    pub freeze: bool,
    /// Never told. The cursors of later messages are beyond them.
    pub drop: Vec<EventKind>,
    /// Each message twice.
    pub duplicate: bool,
    /// CREATING is told after what followed it.
    pub reorder: bool,
    /// After each change, the sandbox's first state once more.
    pub stale: bool,
    /// The last message again and again, as fast as it is read, with growing revisions.
    pub flood: bool,
    /// The stream ends, without an error: after its snapshot, or at once if it goes on from a cursor.
    pub end: bool,
}

/// A kind of message of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A sandbox in the snapshot.
    Snapshot,
    /// A change.
    Changed,
    /// The end of a sandbox.
    Deleted,
    /// A bookmark that does not end the snapshot.
    Bookmark,
    /// The bookmark that says that the snapshot is whole.
    Synced,
}

/// Lies about what there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InventoryFaults {
    /// Ids that are left out; `*` is all.
    pub omit: Vec<String>,
    /// What is left out is NOT_FOUND for `GetSandbox` and GONE for `RecoverSandboxes` as well.
    pub deny: bool,
    /// The list says that it is not complete.
    pub incomplete: bool,
    /// Ids that are listed as running and do not exist.
    pub invent: Vec<String>,
    /// The last page never comes.
    pub endless: bool,
}

impl InventoryFaults {
    /// Whether this sandbox is left out.
    #[must_use]
    pub fn omits(&self, sandbox_id: &str) -> bool {
        self.omit.iter().any(|id| id == "*" || id == sandbox_id)
    }
}

/// What the platform says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthFaults {
    /// Instead of what it is.
    pub is: Health,
    /// Why.
    pub reason: String,
    /// What to do.
    pub fix: String,
    /// In turn with the truth, each for so many milliseconds. Absent: throughout.
    pub flap_ms: Option<u64>,
}

/// The contract's healths by their names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the contract's own names")]
pub enum Health {
    Undetected,
    #[default]
    Unhealthy,
    Healthy,
}
